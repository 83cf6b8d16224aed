"""An estimate from the disputed questions and an audit of the others, against brute force over many draws."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from soup.errors import EvaluatorError
from soup.evaluation.api import Score
from soup.evaluation.estimates import LIMIT, Audit, AuditFailedError, Estimate, refuse_failed_audit
from soup.evaluation.question_plan import QuestionPlan
from soup.evaluation.question_rule import AuditSize, QuestionRule
from soup.evaluation.questions import Dispute

COUNT = 600
TENTH = AuditSize(0.1)


def mean(points):
    return 100 * math.fsum(points.values()) / len(points)


def groups_too(points):
    """Half by questions, half by groups of which all is right: no plain mean."""
    groups = {}
    for index, value in points.items():
        groups.setdefault(index.partition("/")[0], []).append(value)
    return (mean(points) + 100 * sum(all(group) for group in groups.values()) / len(groups)) / 2


def indices(grouped):
    return [f"g{number // 4}/{number}" if grouped else str(number) for number in range(COUNT)]


def pool_of_two(grouped, disputed=120):
    """Two single models: they differ on the first questions, of the others four in five are right."""
    names = indices(grouped)
    dice = random.Random(1)
    first = {name: float(number < disputed or dice.random() < 0.8) for number, name in enumerate(names)}
    second = {name: float(number >= disputed and value) for number, (name, value) in enumerate(first.items())}
    return first, second


def soup_of(singles, changes, seed=2):
    """A soup that is right on half of the disputed questions, and differs on `changes` of the others."""
    first, second = singles
    dice = random.Random(seed)
    agreed = [name for name in first if first[name] == second[name]]
    points = {name: value if value == second[name] else float(dice.random() < 0.5) for name, value in first.items()}
    for name in dice.sample(agreed, changes):
        points[name] = 1 - points[name]
    return points


def estimates(grouped, changes, draws, audit=TENTH):
    """The true score, and one estimate a draw."""
    total = groups_too if grouped else mean
    singles = pool_of_two(grouped)
    points = soup_of(singles, changes)
    dispute = Dispute.among({f"s{i}": Score(total(row), COUNT, row) for i, row in enumerate(singles)}, total)
    estimated_scores = []
    for draw in range(draws):
        questions = dispute.questions_of(f"sha256:{draw}", audit)
        answers = {name: points[name] for name in questions.asked}
        estimated_scores.append(questions.estimate(Score(mean(answers), len(answers), answers), total))
    return total(points), estimated_scores


@pytest.mark.parametrize("grouped", [False, True])
def test_the_corrected_estimate_is_right_on_average_over_draws(grouped):
    true, estimated_scores = estimates(grouped, changes=40, draws=600)
    corrected = [score.value + score.estimate.correction for score in estimated_scores]
    average = math.fsum(corrected) / len(corrected)
    error = math.sqrt(sum((value - average) ** 2 for value in corrected)) / len(corrected)
    plain = math.fsum(score.value for score in estimated_scores) / len(estimated_scores)
    assert abs(average - true) < 4 * error
    assert abs(plain - true) > 20 * error, "the correction is worth something here"


@pytest.mark.parametrize("changes", [0, 1, 3, 10, 40])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_interval_holds_the_true_score_in_95_of_100_draws(grouped, changes):
    true, estimated_scores = estimates(grouped, changes, draws=200)
    held = sum(
        low <= true <= high for low, high in (score.estimate.interval(score.value) for score in estimated_scores)
    )
    assert held >= 0.94 * len(estimated_scores)


class CategoryMeans:
    """The mean of the means of categories, of which each question has one; counts how often it is asked."""

    def __init__(self, sizes, seed=3):
        self.labels = [label for label, size in enumerate(sizes) for _ in range(size)]
        random.Random(seed).shuffle(self.labels)
        self.sizes, self.calls = sizes, 0

    def __call__(self, points):
        self.calls += 1
        sums = [0.0] * len(self.sizes)
        for index, value in points.items():
            sums[self.labels[int(index)]] += value
        return 100 * math.fsum(total / size for total, size in zip(sums, self.sizes, strict=True)) / len(sums)

    def dispute(self):
        """Of two single models, which differ on one question in seven."""
        dice = random.Random(5)
        first = {str(number): float(dice.random() < 0.7) for number in range(len(self.labels))}
        second = {index: 1 - value if int(index) % 7 == 0 else value for index, value in first.items()}
        singles = {name: Score(self(row), len(row), row) for name, row in (("a", first), ("b", second))}
        return first, Dispute.among(singles, self)


@pytest.mark.parametrize("sizes", [(5, 5, 5, 985), (10, 100, 1990), (50, 950), (20, 40, 80, 160, 320, 640)])
def test_the_interval_of_a_mean_of_lopsided_categories_holds_the_true_score_in_95_of_100_soups(sizes):
    metric, dice, held = CategoryMeans(sizes), random.Random(0), 0
    first, dispute = metric.dispute()
    for soup in range(200):
        points = {i: 1 - value if dice.random() < (0.1 if value else 0.02) else value for i, value in first.items()}
        questions = dispute.questions_of(f"sha256:{soup}", AuditSize(0.05))
        answers = {index: points[index] for index in questions.asked}
        score = questions.estimate(Score(0.0, len(answers), answers), metric)
        low, high = score.estimate.interval(score.value)
        held += low <= metric(points) <= high
    assert held >= 0.92 * 200, "95 of 100 within what 200 draws tell"


def test_every_soup_is_asked_the_questions_that_weigh_most_and_equal_ones_cost_few_totals():
    metric = CategoryMeans((5, 5, 990))
    _, dispute = metric.dispute()
    small = {str(number) for number, label in enumerate(metric.labels) if label < 2}
    assert small <= dispute.disputed
    assert len(dispute.disputed - small) < 990 / 6, "of the large category no more than the disputed"
    assert dispute.weight == pytest.approx(100 / 3 / 990), "of those that are sampled"
    equal = CategoryMeans((1000,))
    _, dispute = equal.dispute()
    assert len(dispute.disputed) == 143
    assert equal.calls < 50


def test_questions_that_were_asked_count_as_answered_and_the_others_as_agreed():
    singles = pool_of_two(grouped=False)
    points = soup_of(singles, changes=60)
    dispute = Dispute.among({str(i): Score(mean(row), COUNT, row) for i, row in enumerate(singles)}, mean)
    questions = dispute.questions_of("sha256:0", AuditSize(0.1))
    answers = {name: points[name] for name in questions.asked}
    score = questions.estimate(Score(mean(answers), len(answers), answers), mean)
    assert score.questions == {name: points[name] if name in answers else singles[0][name] for name in points}
    assert (score.value, score.n, score.estimate.asked) == (mean(score.questions), COUNT, len(answers))


@pytest.mark.parametrize(
    ("count", "audit", "size"), [(40, 0.05, 0), (400, 0.05, 50), (4000, 0.05, 200), (400, 0.5, 200)]
)
def test_the_audit_is_a_share_of_the_agreed_questions_and_at_least_fifty(count, audit, size):
    agreed = {str(number): 1.0 for number in range(count)}
    questions = Dispute(frozenset(["x"]), agreed, 1.0, ()).questions_of("sha256:0", AuditSize(audit))
    if not size:
        assert questions is None, "forty are all asked"
    else:
        assert sum(map(len, questions.audited)) == size


def test_groups_are_audited_as_a_whole_and_each_soup_has_a_draw_of_its_own():
    agreed = dict.fromkeys(indices(grouped=True), 1.0)
    draws = [Dispute(frozenset(), agreed, 1.0, ()).questions_of(f"sha256:{draw}", AuditSize(0.1)) for draw in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0].digest != draws[2].digest
    assert draws[0].asked != draws[2].asked
    for group in draws[0].audited:
        assert len(group) == 4
        assert len({name.partition("/")[0] for name in group}) == 1


def test_what_is_known_of_the_others_is_a_part_of_the_question_set():
    first = Dispute(frozenset(["x"]), {str(number): 1.0 for number in range(100)}, 1.0, ("rule", ["a"]))
    second = Dispute(frozenset(["x"]), {str(number): float(number > 0) for number in range(100)}, 1.0, ("rule", ["a"]))
    third = Dispute(first.disputed, first.agreed, 1.0, ("rule", ["b"]))
    digests = {dispute.questions_of("sha256:0", AuditSize(0.6)).digest for dispute in (first, second, third)}
    assert len(digests) == 3


def test_a_benchmark_whose_score_is_not_that_of_its_points_disputes_nothing():
    points = {"1": 1.0, "2": 0.0}
    singles = {"a": Score(50.0, 2, points), "b": Score(51.0, 2, points)}
    assert "does not follow" in Dispute.among(singles, mean)
    parts = Score(50.0, 2, points, {"first": 100.0, "second": 0.0})
    assert "its parts" in Dispute.among({"a": parts, "b": parts}, mean)
    assert "does not tell" in Dispute.among({"a": Score(50.0, 2, points), "b": Score(50.0)}, mean)
    assert "does not tell" in Dispute.among({"a": Score(50.0, 2, points), "b": Score(0.0, 1, {"2": 0.0})}, mean)


def test_an_evaluator_that_answers_other_questions_is_an_error():
    agreed = {str(number): 1.0 for number in range(100)}
    questions = Dispute(frozenset(["x"]), agreed, 1.0, ()).questions_of("sha256:0", AuditSize(0.5))
    for answers in ({"x": 1.0}, {**dict.fromkeys(questions.asked, 1.0), "y": 1.0}, {}):
        with pytest.raises(EvaluatorError, match="51 questions that were asked"):
            questions.estimate(Score(100.0, 1, answers), mean)


def test_the_rule_is_read_from_its_text():
    assert [QuestionRule.parse(text).audit_of(6, 8) for text in ("all", "disputed")] == [None, AuditSize(0.05)]
    assert QuestionRule.parse("disputed:audit=.25").audit_of(6, 8) == AuditSize(0.25)
    for wrong in ("some", "disputed:audit=0", "disputed:audit=1.5", "disputed:0.1", "all:audit=0.1"):
        with pytest.raises(EvaluatorError):
            QuestionRule.parse(wrong)


def test_a_long_search_audits_a_part_of_that_at_first_unless_a_share_was_typed():
    parts = [QuestionRule.parse("disputed").audit_of(soups, 8).part for soups in (6, 19, 20, 39, 40, 1000)]
    assert parts == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert QuestionRule.parse("disputed").audit_of(26, 2).part == 1, "few questions in all"
    assert QuestionRule.parse("disputed:audit=0.05").audit_of(100, 8) == AuditSize(0.05)
    assert QuestionRule.parse("all").audit_of(100, 8) is None


def test_a_larger_audit_holds_the_smaller_so_that_little_is_asked_anew():
    dispute = Dispute(frozenset(["x"]), {str(number): 1.0 for number in range(400)}, 1.0, ())
    sizes = [AuditSize(0.05, 0.25), AuditSize(0.05, 0.25).doubled(), AuditSize(0.05, 0.8).doubled()]
    quarter, half, whole = (dispute.questions_of("sha256:0", size) for size in sizes)
    assert [len(questions.audited) for questions in (quarter, half, whole)] == [13, 25, 50]
    assert quarter.asked < half.asked < whole.asked
    assert len({quarter.digest, half.digest, whole.digest}) == 3
    assert dispute.questions_of("sha256:0", AuditSize(1.0, 0.25)) is None, "whoever typed that wants all"


def test_an_overall_is_as_uncertain_as_its_benchmarks_together():
    parts = {"a": Estimate(10, 1.0, 0.25, 0.04), "b": Estimate(20, -2.0, 1.0, 0.01)}
    overall = Estimate.weighted(parts, {"a": 1.0, "b": 2.0, "whole": 1.0})
    assert overall.asked == 30
    assert overall.correction == pytest.approx((1.0 - 2 * 2.0) / 4)
    assert overall.variance == pytest.approx((0.25 + 4 * 1.0) / 16)
    assert overall.unseen == pytest.approx(0.04 / 16)
    assert Estimate.weighted({}, {"a": 1.0}) is None


def test_an_interval_ends_at_0_and_at_100():
    wide = Estimate(10, 0.0, 25.0, 0.0)
    assert wide.interval(99.0) == (pytest.approx(89.2, abs=0.01), 100.0)
    assert wide.interval(1.0) == (0.0, pytest.approx(10.8, abs=0.01))


def test_the_digest_of_a_question_set_does_not_depend_on_the_order_of_questions_or_models():
    points = {str(number): float(number % 3 > 0) for number in range(100)}
    singles = {"a": Score(mean(points), 100, points), "b": Score(mean(points), 100, points)}
    turned = {"b": singles["b"], "a": Score(mean(points), 100, dict(reversed(points.items())))}
    disputes = [Dispute.among(rows, mean) for rows in (singles, turned, dict(reversed(turned.items())))]
    assert len({dispute.questions_of("sha256:0", AuditSize(0.6)).digest for dispute in disputes}) == 1


def test_of_groups_that_are_audited_the_variance_is_that_of_a_draw_without_return():
    agreed = dict.fromkeys(indices(grouped=True), 1.0)
    questions = Dispute(frozenset(), agreed, 100 / COUNT, ()).questions_of("sha256:0", AuditSize(0.5))
    changed = {group[0] for group in questions.audited[:3]}  # one question of four
    answers = {name: float(name not in changed) for name in questions.asked}
    estimate = questions.estimate(Score(mean(answers), len(answers), answers), mean).estimate
    drawn, groups, change = len(questions.audited), COUNT // 4, 100 / COUNT
    assert (drawn, estimate.asked) == (75, 300)
    assert estimate.correction == pytest.approx(-3 * change * (groups - drawn) / drawn)
    assert estimate.variance == pytest.approx(3 * change**2 * groups * (groups - drawn) / drawn**2)
    assert estimate.unseen == pytest.approx(change**2 * groups * (groups - drawn) / drawn**2)


def clean(unseen):
    return Estimate(100, 0.0, 0.0, unseen)


def test_the_audit_of_all_soups_allows_for_the_largest_change_that_one_of_them_may_hide():
    mixed, largest = Audit.of([clean(0.01), clean(0.09)]), Audit.of([clean(0.09), clean(0.09)])
    assert mixed.clean_half_width == pytest.approx(largest.clean_half_width)


def test_audits_that_could_not_be_far_below_the_limit_do_not_pass_even_if_they_are_clean():
    few, many = (Audit.of([clean(0.04)] * count) for count in (4, 100))
    assert few.bound <= LIMIT < 2 * few.bound
    assert (few.passes, many.passes) == (False, True)


def fails(estimates, *, at_end=True):
    try:
        refuse_failed_audit(estimates, at_end=at_end)
    except AuditFailedError:
        return True
    return False


def test_clean_audits_never_fail_however_few_they_are():
    assert Audit.of([clean(0.04)]).bound > LIMIT, "one alone says too little to be sure"
    assert not any(fails([clean(0.04)] * count) for count in (1, 3, 100))
    assert not fails([None, None])


def test_an_audit_fails_when_its_bound_is_beyond_the_limit_and_a_clean_one_would_be_far_below():
    one_change = Estimate(100, 0.2, 0.04, 0.04)
    assert Audit.of([one_change]).bound > LIMIT
    assert not fails([one_change]), "too few to say"
    assert not fails([one_change, *[clean(0.04)] * 9])
    with pytest.raises(AuditFailedError, match=r"off by 0\.\d\d points"):
        refuse_failed_audit([one_change] * 10, at_end=True)


def test_an_audit_that_more_soups_may_still_mend_fails_at_the_end_of_a_search_alone():
    changed = Estimate(100, 0.12, 0.03, 0.04)
    assert fails([changed] * 8)
    assert not fails([changed] * 8, at_end=False)
    assert not fails([changed] * 100)


def test_an_audit_fails_early_when_all_of_its_interval_is_beyond_the_limit():
    many_changes = Estimate(100, 4.0, 0.8, 0.04)
    assert fails([many_changes], at_end=False)
    assert fails([many_changes]), "at the end no less"


@pytest.mark.parametrize(("changes", "part"), [(0, 1.0), (2, 1.0), (8, 1.0), (40, 1.0), (2, 0.25), (40, 0.25)])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_interval_of_all_soups_holds_their_mean_error_in_95_of_100_searches(grouped, changes, part):
    searches, soups = 150, 6
    true, estimated_scores = estimates(grouped, changes, searches * soups, AuditSize(0.1, part))
    held = 0
    for first in range(0, len(estimated_scores), soups):
        scores = estimated_scores[first : first + soups]
        error = true - math.fsum(score.value for score in scores) / soups
        audit = Audit.of([score.estimate for score in scores])
        held += abs(audit.mean - error) <= audit.half_width
    assert held >= 0.93 * searches


def test_estimates_are_corrected_by_what_their_audits_say_on_average_and_scores_are_not():
    plan = QuestionPlan(AuditSize(0.05), {"a"}, lambda entry: {})
    score = Score(60.0, 10, estimate=Estimate(5, 0.3, 0.02, 0.01))
    trials = [{"x": score, "y": Score(1.0)}, {"x": replace(score, estimate=Estimate(5, -0.1, 0.02, 0.01))}]
    assert plan.corrected("x", score) == score, "nothing is known yet"
    assert plan.correct(trials)
    corrected = plan.corrected("x", score)
    assert corrected.value == pytest.approx(60.1)
    assert corrected.estimate.interval(corrected.value) == pytest.approx(score.estimate.interval(score.value))
    assert plan.corrected("y", score) == score
    assert plan.corrected("x", Score(60.0)) == Score(60.0)
    assert plan.corrected("x", replace(score, value=100.0)).value == 100
    assert not plan.correct([{"x": replace(score, estimate=Estimate(5, 0.0, 0.0, 0.01))}])
