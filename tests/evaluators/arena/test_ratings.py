"""Ratings against evalica's and scipy's, and their intervals against each other and against what they are to cover."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from evaluators.arena.agreement import agreement, krippendorff_alpha
from evaluators.arena.comparisons import Comparison
from evaluators.arena.ratings import ELO, bootstrap, fit

evalica = pytest.importorskip("evalica", reason='evalica is not installed: pip install "vlm-soup[test]"')
NAMES = ("a", "b", "c", "d")
STRENGTHS = dict(zip(NAMES, (0.0, 0.5, -0.4, 1.0), strict=True))


def drawn(random, questions=60, votes=6, spread=0.0, length_effect=0.0):
    """Votes of people whose taste differs from question to question by `spread`."""
    rows = []
    for question in range(questions):
        of_question = {name: STRENGTHS[name] + spread * random.normal() for name in NAMES}
        for _ in range(votes):
            first, second = random.choice(NAMES, 2, replace=False)
            longer = random.uniform(-1, 1)
            chance = expit(of_question[first] - of_question[second] + length_effect * longer)
            points = 0.5 if random.random() < 0.2 else float(random.random() < chance)
            weight = float(random.choice([0.5, 1, 2]))
            rows.append(Comparison(str(question), str(first), str(second), points, weight, longer))
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_ratings_are_evalicas(seed):
    rows = drawn(np.random.default_rng(seed))
    winners = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    theirs = evalica.bradley_terry(
        [row.first for row in rows],
        [row.second for row in rows],
        [winners[row.points] for row in rows],
        weights=[row.weight for row in rows],
        tolerance=1e-14,
        limit=100_000,
    ).scores
    ours = fit(rows, NAMES, "b")
    expected = [np.log(theirs[name] / theirs["b"]) for name in NAMES]
    np.testing.assert_allclose(ours.strengths, expected, atol=1e-6)
    assert not ours.is_joined


@pytest.mark.parametrize("seed", range(3))
def test_the_effect_of_length_is_what_scipys_minimum_says(seed):
    rows = drawn(np.random.default_rng(seed), length_effect=0.8)
    deviation = np.sqrt(np.average([row.longer**2 for row in rows], weights=[row.weight for row in rows]))

    def loss(free):
        strength = dict(zip(("b", "c", "d"), free, strict=False)) | {"a": 0.0}
        d = np.array([strength[r.first] - strength[r.second] + free[3] * r.longer / deviation for r in rows])
        points, weights = np.array([r.points for r in rows]), np.array([r.weight for r in rows])
        tie = 0.5 * (np.logaddexp(0, free[3]) - free[3] / 2)  # of two answers that differ in length alone
        return float(weights @ (np.logaddexp(0, d) - points * d) + tie)

    expected = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8}).x
    ours = fit(rows, NAMES, "a", length=True)
    np.testing.assert_allclose([*ours.strengths[1:], ours.length], expected, atol=1e-4)
    assert ours.length_effect.low > 0
    plain = fit(rows, NAMES, "a")
    assert not np.allclose(plain.strengths, ours.strengths, atol=1e-3)


def test_sandwich_and_bootstrap_agree_and_are_wider_where_taste_differs_by_question():
    rows = drawn(np.random.default_rng(1), questions=300, votes=8, spread=1.5)
    plain, draws = fit(rows, NAMES, "a"), bootstrap(rows, NAMES, "a", draws=400)
    apart = fit([Comparison(str(n), r.first, r.second, r.points, r.weight) for n, r in enumerate(rows)], NAMES, "a")
    for name in NAMES[1:]:
        ours, drawn_anew = plain.difference(name), draws[name]
        assert (drawn_anew.high - drawn_anew.low) / (ours.high - ours.low) == pytest.approx(1, abs=0.12)
        assert drawn_anew.value == ours.value
        naive = apart.difference(name)
        assert (ours.high - ours.low) > 1.1 * (naive.high - naive.low)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    many = fit(drawn(np.random.default_rng(0), questions=20_000), NAMES, "a")
    truth = dict(zip(NAMES, many.strengths, strict=True))  # ties pull strengths together
    hits = total = 0
    for seed in range(150):
        result = fit(drawn(np.random.default_rng(1000 + seed), questions=80, votes=4), NAMES, "a")
        for name in NAMES[1:]:
            interval = result.difference(name)
            total += 1
            hits += interval.low <= truth[name] <= interval.high
    assert 0.90 < hits / total < 0.985


def test_two_candidates_are_a_share_of_wins():
    rows = [Comparison(str(n), "a", "b", points) for n, points in enumerate([1] * 50 + [0.5] * 10 + [0] * 40)]
    result = fit(rows, ("a", "b"), "b")
    assert result.preferred("a") == pytest.approx(0.55)
    assert ELO * result.difference("a").value == pytest.approx(34.86, abs=0.01)
    points = np.array([row.points for row in rows])
    error = points.std(ddof=1) / np.sqrt(len(points)) / (0.55 * 0.45)  # the delta method
    assert (result.difference("a").high - result.difference("a").low) / 2 == pytest.approx(1.96 * error, rel=1e-3)
    assert result.centred("a").value == pytest.approx(result.difference("a").value / 2)


def test_order_of_votes_and_sides_change_nothing():
    rows = drawn(np.random.default_rng(7))
    mirrored = [Comparison(r.question, r.second, r.first, 1 - r.points, r.weight, -r.longer) for r in reversed(rows)]
    for length in (False, True):
        ours, theirs = fit(rows, NAMES, "a", length=length), fit(mirrored, NAMES, "a", length=length)
        np.testing.assert_allclose(ours.strengths, theirs.strengths, atol=1e-9)
        np.testing.assert_allclose(ours.covariance, theirs.covariance, atol=1e-9)


@pytest.mark.parametrize(
    "rows",
    [
        [Comparison("1", "a", "b", 1.0), Comparison("2", "a", "b", 1.0)],
        [Comparison("1", "a", "b", 0.5), Comparison("2", "c", "d", 0.5)],
    ],
    ids=["never lost", "two parts"],
)
def test_an_infinite_rating_is_held_by_virtual_ties_and_that_is_told(rows):
    result = fit(rows, NAMES, "a")
    assert result.is_joined
    assert np.isfinite(result.strengths).all()
    assert np.abs(result.strengths).max() < 5
    assert all(np.isfinite(end.low) for end in bootstrap(rows, NAMES, "a", draws=20).values())


def test_a_length_that_decides_all_has_a_finite_effect():
    rows = [
        Comparison(str(n), *pair, points, 1.0, 0.5 if points else -0.5)
        for n, (pair, points) in enumerate([(("a", "b"), 1.0), (("a", "b"), 0.0)] * 5)
    ]
    result = fit(rows, ("a", "b"), "a", length=True)
    assert 0 < result.length < 10
    level = fit([Comparison("1", "a", "b", 1.0), Comparison("2", "a", "b", 0.0)], ("a", "b"), "a", length=True)
    assert level.length == pytest.approx(0)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_is_evalicas(seed):
    random = np.random.default_rng(seed)
    truth = random.choice([0, 0.5, 1], size=30)
    ratings = np.where(random.random((4, 30)) < 0.7, truth, random.choice([0, 0.5, 1], size=(4, 30)))
    ratings = np.where(random.random((4, 30)) < 0.4, np.nan, ratings)
    expected = evalica.alpha(pandas.DataFrame(ratings), distance="interval").alpha
    units = [[float(value) for value in column if value == value] for column in ratings.T]
    assert krippendorff_alpha(units) == pytest.approx(expected)


def test_agreement_counts_pairs_of_votes():
    result = agreement([{"ann": 1.0, "bob": 1.0, "cat": 0.5}, {"ann": 0.0, "bob": 1.0}, {"ann": 0.0}])
    assert (result.share, result.pairs) == (pytest.approx(1 / 4), 4)
    assert agreement([{"ann": 1.0}]).share is None
    assert agreement([{"ann": 1.0, "bob": 1.0}]).alpha is None
