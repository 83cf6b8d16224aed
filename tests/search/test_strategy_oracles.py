"""Strategies beside greedy: each against a loop or an optimum that is known, over tables of scores."""

from __future__ import annotations

import inspect
import itertools
import random
import re
from statistics import fmean
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soup.errors import EvaluatorError, RecipeError
from soup.evaluation.api import Score
from soup.evaluation.objective import Guard, Objective
from soup.search.strategies import Choice, average, greedy
from soup.search.strategies.forward_backward import _neighbours
from soup.search.strategies.mixture import _features, _Fit
from soup.support.plugins import STRATEGIES
from soup.testing.table_scorer import TableScorer
from tests.helpers.score_tables import Assumed, Table, Told, Unknown, question_scores

NEWER = ["cma", "exhaustive", "forward-backward", "mixture", "prune", "scale", "soce", "trajectory"]
names = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True)


def run(name, pool, score, **options):
    """The shares by name that a strategy chooses."""
    choice = STRATEGIES.get(name)(pool, score, **options)
    assert isinstance(choice, Choice)
    return choice


def shares(choice):
    chosen = choice.chosen
    return dict(chosen) if isinstance(chosen, dict) else dict.fromkeys(chosen, 1 / len(chosen))


def drawn(seed, levels=4):
    """A table of few levels: ties are many."""
    return lambda weights, **params: random.Random(f"{seed}{sorted(weights.items())}{params}").randrange(levels)


def near(target):
    """A concave table: the higher, the nearer the weights are to a target."""
    return lambda weights: 90 - 100 * sum((weights.get(name, 0) - share) ** 2 for name, share in target.items())


# prune


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-9, 9).filter(bool), min_size=1))
def test_prune_drops_exactly_what_is_negative_where_scores_add_up(values):
    score = Table(lambda weights: sum(values[name] for name in weights))
    kept = [name for name, value in values.items() if value > 0]
    best = max(values, key=lambda name: (values[name], -list(values).index(name)))
    assert [*run("prune", list(values), score).chosen] == kept or (
        not kept and values[best] == score.function(shares(run("prune", list(values), score)))
    )


@given(names, st.integers())
def test_prune_is_stepwise_elimination_line_by_line(pool, seed):
    score = Table(drawn(seed))
    left = list(pool)
    while len(left) > 1:
        tried = [[name for name in left if name != out] for out in left]
        overalls = [score(part).overall for part in tried]
        if max(overalls) <= score(left).overall:
            break
        left = tried[overalls.index(max(overalls))]
    table = Table(drawn(seed))
    assert run("prune", pool, table).chosen == left
    assert len(table.asked) <= len(pool) * (len(pool) + 1) // 2


@given(names, st.integers())
def test_prune_in_own_order_is_one_sweep_from_the_worst_on(pool, seed):
    score = Table(drawn(seed))
    left = list(pool)
    for out in sorted(pool, key=lambda name: score([name]).overall)[:-1]:
        rest = [name for name in left if name != out]
        if score(rest).overall > score(left).overall:
            left = rest
    table = Table(drawn(seed))
    assert run("prune", pool, table, order="own").chosen == left
    assert len(table.asked) <= 2 * len(pool)


def test_prune_tells_what_each_ingredient_gives_with_its_interval():
    worth = {"a": 0.1, "b": -0.2, "c": 0.05}
    scorer = TableScorer([*worth], question_scores(lambda soup, name: 0.5 + sum(worth[part] for part in soup)))
    (note,) = run("prune", [*worth], scorer).notes
    rows = {line.split(":")[0].strip(): line for line in note.splitlines()[1:]}
    assert "+" in rows["a"]
    assert rows["b"].split(": -")[1].count(",") == 1, "a paired interval"
    assert [*run("prune", [*worth], scorer).chosen] == ["a", "c"]


def test_prune_goes_on_until_the_guards_are_kept():
    objective = Objective(guards=(Guard("strict", -5.0),))
    scorer = TableScorer(
        list("abcd"),
        lambda soup: {"overall": Score(10.0 * len(soup)), "strict": Score(50.0 if len(soup) < 3 else 10.0)},
        objective=objective,
    )
    choice = run("prune", list("abcd"), scorer)
    assert choice.chosen == ["c", "d"]


# exhaustive


@given(names, st.integers())
def test_exhaustive_finds_the_best_subset_and_of_equals_one_with_the_fewest(pool, seed):
    score = Table(drawn(seed))
    subsets = [list(s) for n in range(1, len(pool) + 1) for s in itertools.combinations(pool, n)]
    best = min(subsets, key=lambda subset: (-score(subset).overall, len(subset)))
    assert run("exhaustive", pool, score).chosen == best
    assert len(score.asked) == 2 ** len(pool) - 1


def test_exhaustive_refuses_nine_before_the_first_score():
    score = Table(drawn(0))
    with pytest.raises(RecipeError, match="a pool of 9 has 511: at most 8"):
        run("exhaustive", list("abcdefghi"), score)
    assert not score.asked


# forward-backward


@given(names, st.integers(), st.sampled_from(["greedy", "best"]))
def test_forward_backward_never_ends_below_its_start(pool, seed, start):
    score = Table(drawn(seed, 50))
    choice = run("forward-backward", pool, score, start=start, steps=3)
    first = greedy(pool, score) if start == "greedy" else [max(pool, key=lambda name: score([name]).overall)]
    assert score(choice.chosen).overall >= score(first).overall


@given(st.lists(st.integers(0, 2), min_size=2, max_size=4).filter(any), st.sampled_from(["greedy", "best"]))
def test_forward_backward_reaches_the_optimum_of_a_concave_score_on_the_grid_of_counts(counts, start):
    pool = list("abcd")[: len(counts)]
    target = {name: count / sum(counts) for name, count in zip(pool, counts, strict=True)}
    choice = run("forward-backward", pool, Table(near(target)), start=start, steps=20)
    assert shares(choice) == pytest.approx({name: share for name, share in target.items() if share})


def test_a_step_changes_one_count_and_soups_of_the_same_weights_are_one():
    assert _neighbours((1, 0), 1) == [(1, 0), (1, 1)]
    assert _neighbours((1, 2), 1) == [(1, 1), (1, 3), (0, 1)]
    assert _neighbours((1, 1), 2) == [(3, 2), (2, 3), (1, 2), (2, 1)]
    assert _neighbours((3, 0), 1) == [(1, 0), (3, 1)]


def test_forward_backward_takes_fewer_steps_by_noise_where_points_are_known():
    moved = dict.fromkeys((None, "gt", "p>0.99"), 0)
    for seed, rule in itertools.product(range(15), moved):
        noise = question_scores(lambda soup, benchmark: 0.6, questions=100, by_soup=True, seed=seed)
        scorer = TableScorer(list("abc"), noise)
        choice = run("forward-backward", list("abc"), scorer, accept=rule, steps=3, start="best")
        moved[rule] += len(choice.path) - 1
    assert moved["p>0.99"] < moved[None] < moved["gt"]


# scale


@pytest.mark.parametrize(("peak", "best"), [(0.5, 0.5), (0.2, 0.25), (1.02, None), (1.6, 1.5)])
def test_scale_finds_the_peak_with_five_more_scores_and_keeps_the_plain_soup_where_that_is_the_best(peak, best):
    pool, table = list("abc"), {"a": 40, "b": 50, "c": 45}

    def score(weights, scale=1.0):
        return 10 + fmean(table[name] for name in weights) - 20 * (scale - peak) ** 2

    scores = Table(score)
    choice = run("scale", pool, scores)
    assert choice.params == ({} if best is None else {"scale": best})
    assert choice.method == (None if best is None else "task-arithmetic")
    assert choice.chosen == greedy(pool, Table(score))
    assert len(scores.asked) == 5 + 5, "five of greedy"
    assert f"{best or 0.75}: " in choice.notes[0]


def test_scale_searches_several_parameters_one_after_another_from_the_best_so_far():
    def score(weights, density=0.2, scale=1.0):
        return 50 - 10 * abs(density - 0.3) - abs(scale - 0.5) * (density == 0.3)

    grid = {"density": [0.1, 0.3, 0.5], "scale": [0.5, 2.0]}
    choice = run("scale", ["a", "b"], Table(score), start="average", method="ties", grid=grid)
    assert (choice.method, choice.params) == ("ties", {"density": 0.3, "scale": 0.5})
    worse = Table(lambda weights, density=0.2, scale=1.0: 50 + 9 * (density == 0.3) - 5 * (scale != 1.0))
    choice = run("scale", ["a", "b"], worse, start="average", method="ties", grid=grid)
    assert choice.params == {"density": 0.3}, "54 with another scale is above the start, and below 59"


# soce


EXPERTS = {"a": (9, 1, 1, 1), "b": (1, 9, 1, 1), "c": (1, 1, 9, 1), "d": (1, 1, 1, 9), "e": (3, 3, 3, 3)}


def by_kind(rows):
    """Scores of weighted means of single models' rows, one column a benchmark."""
    count = len(next(iter(rows.values())))
    return lambda soup: {
        f"kind {i}": Score(sum(weight * rows[name][i] for name, weight in zip(soup.names, soup.weights, strict=True)))
        for i in range(count)
    }


@pytest.mark.parametrize("count", [3, 4])
def test_soce_picks_one_expert_for_each_block_of_benchmarks(count):
    rows = {name: tuple(10.0 * value for value in row[:count]) for name, row in EXPERTS.items()}

    def scores(soup):
        spread = 1 + len(soup)  # company helps
        return {name: Score(score.value + spread) for name, score in by_kind(rows)(soup).items()}

    scorer = TableScorer(list(rows), scores)
    choice = run("soce", list(rows), scorer, full=True)
    assert {*shares(choice)} == {*"abcd"[:count]}
    assert len(scorer.known) == 5 + {3: 36, 4: 84}[count]
    coarse = TableScorer(list(rows), scores)
    run("soce", list(rows), coarse)
    assert len(coarse.known) == 5 + {3: 12, 4: 22}[count]


def test_soce_leaves_out_a_benchmark_on_which_all_are_equal_and_refuses_too_few():
    rows = {name: (*(10.0 * value for value in row[:3]), 50.0) for name, row in EXPERTS.items()}
    scorer = TableScorer(list(rows), by_kind(rows))
    (note,) = run("soce", list(rows), scorer).notes
    assert note.startswith("Benchmarks that count: kind 0, kind 1, kind 2. Their experts: a + b + c")
    with pytest.raises(RecipeError, match="at least 5 ingredients"):
        run("soce", list("abcd"), scorer)
    two = TableScorer(list(rows), by_kind({name: row[:2] for name, row in rows.items()}))
    with pytest.raises(RecipeError, match="at least 3 benchmarks to find experts for; found 2"):
        run("soce", list(rows), two)


def test_soce_counts_no_benchmark_that_correlates_with_all_others():
    rows = {name: (float(i), 2.0 * i, 3.0 * i) for i, name in enumerate("abcde")}
    choice = run("soce", list(rows), TableScorer(list(rows), by_kind(rows)))
    assert choice.chosen == ["e"]
    assert "count: none" in choice.notes[0]


# a is best at two kinds, b at one.
PAIR = {"a": (60, 40, 60), "b": (20, 60, 20), "c": (20, 20, 30), "d": (40, 20, 40), "e": (20, 20, 20)}


def with_peak(height, tenths):
    """A table over `PAIR`, which notes how many tenths of each mean of a and b are a's."""

    def scores(soup):
        bonus = 0.0
        if {*soup.names} == {*"ab"}:
            share = dict(zip(soup.names, soup.weights, strict=True))["a"] / sum(soup.weights)
            bonus = height - 50 * abs(share - 0.7)
            tenths.append(round(10 * share))
        return {name: Score(max(0.0, score.value + bonus)) for name, score in by_kind(PAIR)(soup).items()}

    return TableScorer([*PAIR], scores)


@pytest.mark.parametrize("full", [True, False])
def test_soce_finds_the_best_tenths_of_two_experts_and_asks_those_around_the_best_fifths(full):
    tenths = []
    choice = run("soce", [*PAIR], with_peak(35.0, tenths), full=full)
    assert shares(choice) == pytest.approx({"a": 0.7, "b": 0.3})
    assert [trial.names for trial in choice.path] == [("a",), ("a", "b")]
    assert sorted(tenths) == ([*range(1, 10)] if full else [2, 4, 6, 7, 8, 9])


def test_soce_keeps_the_best_single_model_that_no_grid_beats():
    choice = run("soce", [*PAIR], with_peak(-5.0, []))
    assert (choice.chosen, len(choice.path)) == (["a"], 1)
    assert choice.notes[0].endswith("Their experts: a + b.")


def test_soce_takes_the_four_experts_that_gain_most_and_a_benchmark_that_varies_a_little():
    rows = {
        name: [10.0 + 30.0 * (i == j) for j in range(4)] + [90.0 + 0.01 * (i == 4)] for i, name in enumerate("abcde")
    }
    choice = run("soce", [*rows], TableScorer([*rows], by_kind(rows)))
    assert choice.notes[0].endswith("kind 3, kind 4. Their experts: a + b + c + d.")
    rows["a"] = [11.0, 10.0, 10.0, 10.0, 90.0]
    rows["e"] = [10.0, 10.0, 10.0, 10.0, 99.0]
    choice = run("soce", [*rows], TableScorer([*rows], by_kind(rows)))
    assert choice.notes[0].endswith("Their experts: b + c + d + e.")


def test_soce_asks_for_no_finer_weights_while_the_coarse_ones_are_not_there():
    scorer, asked = with_peak(35.0, []), []

    def score(chosen, method=None, params=None):
        asked.append(chosen)
        return Assumed() if isinstance(chosen, dict) else scorer(chosen)

    choice = run("soce", [*PAIR], score)
    assert choice.chosen == ["a"]
    assert sum(isinstance(chosen, dict) for chosen in asked) == 4


# cma


TARGETS = [{"a": 0.6, "b": 0.4}, {"a": 0.5, "b": 0.2, "c": 0.3}, {"a": 0.4, "b": 0.1, "c": 0.3, "d": 0.2}]


@pytest.mark.parametrize(
    ("target", "start", "seeds"),
    [(TARGETS[0], "average", 3), (TARGETS[1], "average", 3), (TARGETS[1], "greedy", 3), (TARGETS[2], "average", 20)],
)
def test_cma_is_within_two_hundredths_of_a_known_optimum_after_a_hundred_scores(target, start, seeds):
    missed = []
    for seed in range(seeds):
        score = Table(near(target))
        weights = shares(run("cma", list(target), score, start=start, seed=seed))
        missed.append(max(abs(weights[name] - share) for name, share in target.items()))
        assert len(score.asked) <= 100 + 2 * len(target)
    assert sorted(missed)[seeds // 2] <= 0.01
    assert sum(miss <= 0.02 for miss in missed) >= 0.95 * seeds
    assert max(missed) <= 0.03


def test_cma_gives_components_weights_of_their_own_and_the_rest_one_more():
    def score(weights, components=None):
        factors_by_component = components or {"llm": [1, 1], "vision": [1, 1], "other": [1, 1]}
        first = {name: factors[0] / 2 for name, factors in factors_by_component.items()}
        return 90 - 100 * (2 * (first["llm"] - 0.7) ** 2 + (first["vision"] - 0.4) ** 2 + (first["other"] - 0.4) ** 2)

    choice = run("cma", ["a", "b"], Table(score), components=["llm"])
    assert choice.chosen == ["a", "b"]
    factors = choice.params["components"]
    assert factors["llm"] == pytest.approx([1.4, 0.6], abs=0.04)
    assert factors["vision"] == factors["other"] == pytest.approx([0.8, 1.2], abs=0.04)


def test_cma_says_when_there_are_more_numbers_than_so_many_soups_tell():
    score, pool = Table(lambda weights, components=None: 50.0), [f"m{i}" for i in range(5)]
    many = run("cma", pool, score, components=["vision", "llm", "projector"], evaluations=20)
    assert "few for 16 numbers" in many.notes[0]
    assert "few for" not in run("cma", pool, score, components=["vision", "llm"], evaluations=20).notes[0]


def test_cma_of_one_seed_goes_one_way_and_leaves_numpys_own_generator_alone():
    target = {"a": 0.5, "b": 0.2, "c": 0.3}
    first, second, third = Table(near(target)), Table(near(target)), Table(near(target))
    before = np.random.get_state()[1].tolist()
    run("cma", list(target), first)
    np.random.seed(5)
    run("cma", list(target), second)
    np.random.seed(0)
    np.random.set_state(("MT19937", before, *np.random.get_state()[2:]))
    run("cma", list(target), third, seed=1)
    assert first.asked == second.asked != third.asked
    run("cma", list(target), first)
    assert np.random.get_state()[1].tolist() == before
    assert len(first.asked) <= 100 + 6


def test_cma_keeps_the_simplest_soup_that_is_not_beaten():
    flat = run("cma", list("abc"), Table(lambda weights: 50.0))
    assert flat.chosen == list("abc"), "greedy's soup of ties, which is the average"
    valley = run(
        "cma", list("abc"), Table(lambda weights: 50.0 if len(weights) == 2 or len(set(weights.values())) > 1 else 60.0)
    )
    assert valley.chosen == ["a"], "as good as the average"
    alone = run("cma", list("abc"), Table(lambda weights: 50.0 + max(weights.values())))
    assert len(shares(alone)) == 1
    assert "standard errors too good by chance" in alone.notes[0]


def test_scale_searches_the_factors_of_components_after_its_grid():
    def score(weights, scale=1.0, components=None):
        factors = {"llm": 1.0, "vision": 1.0, **(components or {})}
        return 90 - 30 * (scale - 0.75) ** 2 - 20 * (factors["llm"] - 1.3) ** 2 - 20 * (factors["vision"] - 0.8) ** 2

    table = Table(score)
    choice = run("scale", ["a", "b"], table, start="average", components=["llm", "vision"])
    assert choice.params == {"scale": 0.75, "components": {"llm": 1.25, "vision": 0.75}}
    assert len(table.asked) == 1 + 5 + 2 * 3
    budget = STRATEGIES.get("scale").budget(2, start="average", components=["llm", "vision"])
    assert budget.singles + budget.soups == len(table.asked)
    assert [note.splitlines()[0].split(",")[0] for note in choice.notes] == [
        "task-arithmetic with scale", "task-arithmetic with llm's factor", "task-arithmetic with vision's factor",
    ]  # fmt: skip


def test_scale_shows_how_many_answers_lost_their_form():
    def scores(soup):
        scale = dict(soup.params).get("scale", 1.0)
        lost = max(scale - 1.0, 0.0)
        return {"x": Score(50.0, 300, unparsed=lost), "y": Score(50.0, 100, unparsed=0.0), "z": Score(50.0, 100)}

    (note,) = run("scale", ["a"], TableScorer(["a"], scores), start="average").notes
    head, *rows = note.splitlines()
    assert head.endswith("0.0 % of answers unparsed:")
    assert [row.rpartition(", ")[2] for row in rows if row.strip().startswith(("0.75", "1.5"))] == [
        "0.0 % of answers unparsed", "37.5 % of answers unparsed",
    ]  # fmt: skip
    choice = run("scale", ["a"], TableScorer(["a"], lambda soup: {"z": Score(50.0)}), start="average")
    assert "unparsed" not in choice.notes[0]


@pytest.mark.parametrize("seed", range(5))
def test_cma_of_two_ends_where_the_best_is_one_alone(seed):
    choice = run("cma", ["a", "b"], Table(lambda weights: 50 + 40 * weights.get("a", 0)), seed=seed, evaluations=200)
    assert shares(choice) == {"a": 1.0}


def test_soups_that_break_a_guard_are_part_of_cmas_budget():
    objective = Objective(guards=(Guard("reading", -5.0),))

    def scores(soup):
        is_plain = len(set(soup.weights)) == 1
        return {"reading": Score(80.0 if is_plain else 20.0), "seeing": Score(50.0 + 10 * max(soup.weights))}

    scorer = TableScorer(list("abc"), scores, objective=objective)
    choice = run("cma", list("abc"), scorer, evaluations=40)
    assert scorer(choice.chosen).allowed
    most = STRATEGIES.get("cma").budget(3, evaluations=40)
    assert len(scorer.trials) <= most.singles + most.soups


def test_cma_turns_away_from_soups_that_break_a_guard_however_high_their_overall():
    breaks = []

    def scores(soup):
        is_plain = len(set(soup.weights)) == 1
        share = dict(zip(soup.names, soup.weights, strict=True)).get("a", 0) / sum(soup.weights)
        breaks.append(not is_plain and share > 0.6)
        return {"strict": Score(44.0 if breaks[-1] else 50.0), "seeing": Score(40.0 + 50 * share * (not is_plain))}

    for seed in range(2):
        scorer = TableScorer(list("abc"), scores, objective=Objective(guards=(Guard("strict", -5.0),)))
        choice = run("cma", list("abc"), scorer, seed=seed, evaluations=60)
        assert 0.59 < choice.chosen["a"] <= 0.6001
    assert sum(breaks) < len(breaks) / 3, "else the search stays where nothing can be chosen"


@pytest.mark.parametrize(("evaluations", "asked"), [(13, 7), (14, 14), (19, 14), (20, 20), (21, 20)])
def test_cma_asks_for_whole_generations_their_middle_and_a_parabola_s_top_within_its_evaluations(evaluations, asked):
    score = Table(near(TARGETS[1]))
    run("cma", [*TARGETS[1]], score, evaluations=evaluations)
    weightings = [soup for soup, _, _ in score.asked if len({weight for _, weight in soup}) > 1]
    assert len(weightings) == asked  # generations are of six; after one alone there is no parabola


def test_cma_breeds_no_generation_from_one_that_workers_are_judging():
    asked = []

    def score(chosen, /, method=None, params=None):
        if not isinstance(chosen, dict):
            return Told(50.0)
        asked.append(chosen)
        return Assumed()

    assert run("cma", list("abc"), score).chosen == list("abc")
    assert len(asked) == 6, "one generation"


def test_cma_s_path_goes_from_simple_soups_to_what_it_chooses():
    score = Table(near(TARGETS[1]))
    choice = run("cma", [*TARGETS[1]], score, evaluations=60)
    overalls = [trial.overall for trial in choice.path]
    assert overalls == sorted(overalls)
    assert len(overalls) > 1
    assert overalls[-1] == score(choice.chosen).overall


def test_cma_searches_the_scale_as_well():
    target = {"a": 0.6, "b": 0.4}

    def score(weights, scale=1.0):
        return near(target)(weights) - 30 * (scale - 0.5) ** 2

    choice = run("cma", list(target), Table(score), scale=True)
    assert choice.method == "task-arithmetic"
    assert choice.params["scale"] == pytest.approx(0.5, abs=0.1)


# trajectory


def test_trajectory_of_all_is_the_average_and_of_one_the_last():
    pool = ["step-900", "step-1000", "step-100"]
    assert {*run("trajectory", pool, Table(lambda weights: len(weights))).chosen} == {*average(pool, None)}
    assert run("trajectory", pool, Table(lambda weights: -len(weights))).chosen == ["step-1000"]
    assert run("trajectory", pool, Table(lambda weights: 1.0)).chosen == ["step-1000"], "ties to fewer"
    two = run("trajectory", pool, Table(lambda weights: len(weights) == 2))
    assert two.chosen == ["step-900", "step-1000"]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("linear", [1 / 6, 2 / 6, 3 / 6]), ("ema0.5", [1 / 7, 2 / 7, 4 / 7]), ("ema(0.5)", [1 / 7, 2 / 7, 4 / 7])],
)
def test_trajectory_weighs_by_age(weights, expected):
    choice = run("trajectory", ["s1", "s2", "s3"], Table(lambda weights: len(weights)), weights=weights)
    assert shares(choice) == pytest.approx(dict(zip(["s1", "s2", "s3"], expected, strict=True)))


@pytest.mark.parametrize(
    ("pool", "said"),
    [(["s1", "last"], "No step is known of last"), (["a-5", "b-5"], "Two checkpoints are of one step")],
)
def test_trajectory_refuses_checkpoints_whose_order_nothing_tells(pool, said):
    with pytest.raises(RecipeError, match=said):
        run("trajectory", pool, Table(drawn(0)))


# mixture


def test_mixture_proposes_the_ratios_that_are_best_and_tells_its_error():
    rows = {"a": 60.0, "b": 50.0, "c": 40.0}

    def scores(soup):
        weights = dict(zip(soup.names, soup.weights, strict=True))
        overall = sum(rows[name] * weight for name, weight in weights.items()) + 60 * weights.get("a", 0) * weights.get(
            "b", 0
        )
        return {"one": Score(overall), "two": Score(overall)}

    choice = run("mixture", list(rows), TableScorer(list(rows), scores))
    (note,) = choice.notes
    assert len(choice.path) == 2, "the average, and what beat it"
    ratios = re.match(r"Proposed data ratios: a \((0\.\d\d?)\) \+ b \((0\.\d\d?)\);", note)
    assert float(ratios[1]) == pytest.approx(7 / 12, abs=0.05), note
    assert "overall: leave-one-out error 0.0" in note


def test_mixture_of_two_reports_ratios_and_of_one_nothing():
    asked = TableScorer(["a", "b"], by_kind({"a": (80.0,), "b": (20.0,)}))
    choice = run("mixture", ["a", "b"], asked)
    assert choice.notes[0].startswith("Proposed data ratios: a; predicted overall 80.")
    alone = run("mixture", ["a"], Table(lambda weights: 50.0))
    assert (alone.chosen, alone.notes) == (["a"], ())


def test_mixture_says_where_the_fit_explains_nothing():
    dice = random.Random(0)
    scorer = TableScorer(list("abcd"), lambda soup: dice.uniform(40, 60))
    assert "explains nothing" in run("mixture", list("abcd"), scorer).notes[0]


def test_the_leave_one_out_error_is_that_of_fits_without_the_row():
    draws = np.random.default_rng(0)
    rows, scores = draws.dirichlet(np.ones(3), 25), draws.uniform(40, 60, 25)
    fit, errors = _Fit(rows, scores), {}
    for ridge in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        missed = []
        for out in range(1, 25):
            kept = np.arange(25) != out
            features = _features(rows[kept])
            solved = np.linalg.solve(features.T @ features + ridge * np.eye(6), features.T @ (scores[kept] - scores[0]))
            missed.append(scores[0] + _features(rows[out : out + 1]) @ solved - scores[out])
        errors[ridge] = float(np.sqrt(np.mean(np.square(missed))))
    assert fit.error == pytest.approx(min(errors.values()))


# All of them


class Telling(Table):
    """A table that keeps what a strategy tells to be its best so far."""

    def __init__(self, function):
        super().__init__(function)
        self.told = []

    def on_best(self, trial):
        self.told.append(trial.overall)


@pytest.mark.parametrize("name", ["forward-backward", "greedy", "prune", "scale"])
@given(pool=names, seed=st.integers(0, 99))
def test_a_strategy_tells_its_best_so_far_on_the_way_and_the_last_is_what_it_chooses(name, pool, seed):
    table = Telling(drawn(seed))
    returned = STRATEGIES.get(name)(pool, table)
    choice = returned if isinstance(returned, Choice) else Choice(returned)
    assert table.told[-1] == table(choice.chosen, choice.method, choice.params).overall
    assert table.told == sorted(table.told)


BUDGETS = [
    ("average", 5, {}, (0, 1)),
    ("greedy", 5, {}, (5, 4)),
    ("maximum", 5, {}, (5, 4)),
    ("maximum", 5, {"top_k": 1}, (5, 0)),
    ("maximum", 5, {"top_k": 3}, (5, 1)),
    ("prune", 1, {}, (1, 0)),
    ("prune", 2, {}, (2, 1)),
    ("prune", 5, {}, (2, 13)),
    ("prune", 1, {"order": "own"}, (1, 0)),
    ("prune", 5, {"order": "own"}, (5, 5)),
    ("exhaustive", 5, {}, (5, 26)),
    ("forward-backward", 5, {}, (5, 104)),
    ("forward-backward", 5, {"start": "best", "steps": 2}, (5, 20)),
    ("scale", 5, {}, (5, 9)),
    ("scale", 5, {"start": "average", "components": ["vision", "llm"]}, (0, 12)),
    ("soce", 5, {}, (5, 22)),
    ("soce", 5, {"full": True}, (5, 84)),
    ("cma", 5, {}, (5, 105)),
    ("cma", 5, {"evaluations": 20}, (5, 25)),
    ("trajectory", 5, {}, (1, 4)),
    ("mixture", 5, {}, (0, 31)),
    ("mixture", 5, {"samples": 20}, (0, 21)),
]


@pytest.mark.parametrize(("name", "count", "options", "most"), BUDGETS)
def test_a_budget_is_the_number_of_single_models_and_soups(name, count, options, most):
    told = STRATEGIES.get(name).budget(count, **options)
    assert (told.singles, told.soups) == most


OF_ONE = ["average", "greedy", "maximum", *sorted({*NEWER} - {"scale", "soce"})]  # which have more to ask, or less


@pytest.mark.parametrize("name", OF_ONE)
def test_of_a_pool_of_one_a_strategy_tells_one_evaluation_and_asks_for_that(name):
    score = TableScorer(["step-1"], lambda recipe: 50.0)
    chosen = STRATEGIES.get(name)(score.pool, score)
    assert list(getattr(chosen, "chosen", chosen)) == ["step-1"]
    told = STRATEGIES.get(name).budget(1)
    assert told.singles + told.soups == 1
    assert len(score.trials) <= 1


@pytest.mark.parametrize("name", ["greedy", "maximum", *NEWER])
def test_a_budget_has_the_defaults_of_its_strategy(name):
    function = STRATEGIES.get(name)

    def defaults(call):
        parameters = inspect.signature(call).parameters.values()
        return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}

    assert defaults(function.budget) == defaults(function)


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NEWER), ("prune", {"order": "own"})])
def test_nothing_is_bred_from_scores_that_are_not_there_yet(name, options):
    score, pool = Unknown(), [f"m{i}" for i in range(5)]
    STRATEGIES.get(name)(pool, score, **options)
    assert len(score.asked) <= {"exhaustive": 31, "mixture": 31}.get(name, 6 if options else 10)
    if name != "mixture":
        assert all(isinstance(chosen, list) and not params for chosen, params in score.asked)


@pytest.mark.parametrize("name", NEWER)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), rule=st.sampled_from(["gt", "p>0.7"]))
def test_no_soup_that_breaks_a_guard_is_chosen_where_one_that_keeps_it_was_met(name, seed, rule):
    pool, met = [f"m{i}" for i in range(5)], []

    def quality(soup, benchmark):
        return random.Random(f"{seed}{soup.digest}{benchmark}").uniform(0.3, 0.7)

    objective = Objective(guards=(Guard("reading", -10.0),))
    scorer = TableScorer(pool, question_scores(quality, questions=20), objective=objective)

    def score(*arguments, **options):
        met.append(scorer(*arguments, **options))
        return met[-1]

    choice = run(name, pool, score, **({} if name == "mixture" else {"accept": rule}))
    if any(trial.allowed and len(trial.names) > 1 for trial in met):
        assert scorer(choice.chosen, choice.method, choice.params).allowed


@pytest.mark.parametrize("start", ["greedy", "forward-backward", "maximum"])
def test_a_search_starts_from_the_best_single_that_keeps_the_guards(start):
    reading = {"a": 20.0, "b": 80.0, "c": 78.0}  # a is best of all, and spoils whatever it is part of
    looking = {"a": 99.0, "b": 30.0, "c": 20.0}

    def scores(soup):
        return {
            "looking": Score(fmean(map(looking.get, soup.names))),
            "reading": Score(min(map(reading.get, soup.names))),
        }

    scorer = TableScorer([*reading], scores, objective=Objective(guards=(Guard("reading", -5.0),)))
    options = {"start": "best", "accept": "gt"} if start == "forward-backward" else {}
    returned = STRATEGIES.get(start)([*reading], scorer, **options)
    assert [*getattr(returned, "chosen", returned)] == ["b"]


@pytest.mark.parametrize("name", [name for name in NEWER if name not in ("mixture", "soce", "scale")])
def test_on_ties_the_soup_stays_as_simple_as_it_was(name):
    pool = [f"m{i}" for i in range(5)]
    plain = run(name, pool, Table(lambda weights: 50.0), accept="gt")
    expected = {"exhaustive": pool[:1], "trajectory": pool[-1:]}
    assert plain.chosen == expected.get(name, pool)
    assert len(plain.path) == 1


@pytest.mark.parametrize("name", [name for name in NEWER if name != "mixture"])
def test_a_rule_by_probability_needs_points_and_says_so_early(name):
    scorer = TableScorer([f"m{i}" for i in range(5)], lambda soup: dict.fromkeys("xyz", Score(50.0)))
    with pytest.raises(EvaluatorError, match="no points"):
        run(name, scorer.pool, scorer, accept="p>0.9")
    assert len(scorer.known) == (9 if name == "scale" else 1), "scale has no score of its own before its start's"


WRONG = [
    ("prune", {"accept": "get"}, "Unknown rule 'get'"),
    ("prune", {"order": "best"}, "order must be full or own; found 'best'"),
    ("exhaustive", {"accept": "p>2"}, "Unknown rule 'p>2'"),
    ("greedy", {"accept": "better"}, "Unknown rule 'better'"),
    *((name, {"accept": "better"}, "Unknown rule 'better'") for name in NEWER if name != "mixture"),
    ("maximum", {"top_k": 6}, "must be a whole number from 1 to 5, the size of the pool; found 6"),
    ("maximum", {"top_k": "two"}, "found 'two'"),
    ("maximum", {"top_k": 2.5}, "found 2.5"),
    ("maximum", {"top_k": True}, "found True"),
    ("scale", {"start": 3}, "start must be a name; found 3"),
    ("scale", {"method": ["ties"]}, "method must be a name; found ['ties']"),
    ("scale", {"method": "nope"}, "Unknown method 'nope'"),
    ("forward-backward", {"accept": "lt"}, "Unknown rule 'lt'"),
    ("forward-backward", {"steps": 0}, "steps must be a whole number of at least 1; found 0"),
    ("forward-backward", {"steps": 2.5}, "found 2.5"),
    ("forward-backward", {"steps": True}, "found True"),
    ("forward-backward", {"start": "average"}, "start must be greedy or best"),
    ("scale", {"start": "gredy"}, "Did you mean 'greedy'"),
    ("scale", {"start": "scale"}, "must be a strategy that knows how many"),
    ("scale", {"grid": 5}, "grid must name parameters with the values to try"),
    ("scale", {"grid": {}}, "grid must name parameters"),
    ("scale", {"grid": {"scale": 0.5}}, "grid: scale must have a list of values to try; found 0.5"),
    ("scale", {"grid": {"scale": [float("nan")]}}, "scale must have finite values; found nan"),
    ("scale", {"grid": {"scale": ["much"]}}, "scale: Input should be a valid number"),
    ("scale", {"grid": {"scale": [0.5, 5.0]}}, "scale: expected a number from -1 to 2, found 5"),
    ("scale", {"grid": {"scael": [1.2]}}, "does not take these params:\n  - scael"),
    ("soce", {"tau": 0}, "tau must be a number above 0, at most 1; found 0"),
    ("soce", {"tau": "big"}, "found 'big'"),
    ("soce", {"full": 1}, "full must be true or false; found 1"),
    ("cma", {"seed": -1}, "seed must be a whole number of at least 0; found -1"),
    ("cma", {"evaluations": 5}, "evaluations must be a whole number of at least 10; found 5"),
    ("cma", {"start": "best"}, "start must be average or greedy"),
    ("scale", {"components": ["head"]}, "components must be a list of some of vision, projector, llm"),
    ("cma", {"components": 5}, "components must be a list of some of vision, projector, llm"),
    ("cma", {"scale": "yes"}, "scale must be true or false"),
    ("cma", {"components": "llm"}, "components must be a list of some of vision, projector, llm"),
    ("cma", {"components": ["llm", "llm"]}, "components must be a list"),
    ("trajectory", {"weights": "quadratic"}, "weights must be uniform, linear or ema0.9"),
    ("trajectory", {"weights": "ema1.5"}, "found 'ema1.5'"),
    ("mixture", {"samples": 10}, "samples must be a whole number from 20 to 60; found 10"),
    ("mixture", {"seed": 0.5}, "seed must be a whole number of at least 0; found 0.5"),
]


@pytest.mark.parametrize(("name", "options", "said"), WRONG)
def test_a_wrong_option_is_one_sentence_before_the_first_score(name, options, said):
    score, pool = Table(drawn(0)), [f"m{i}" for i in range(5)]
    with pytest.raises(RecipeError) as caught:
        run(name, pool, score, **options)
    assert said in str(caught.value)
    assert not score.asked
    with pytest.raises(RecipeError):
        STRATEGIES.get(name).budget(5, **options)


def test_a_strategy_that_starts_another_passes_on_what_that_finds_best():
    told = []

    class Score:
        def __call__(self, ingredients, method=None, params=None):
            return SimpleNamespace(overall=float(len(ingredients)))

        def on_best(self, trial):
            told.append(trial.overall)

    STRATEGIES.get("forward-backward")(["a", "b"], Score())
    assert told[:2] == [1.0, 2.0]
