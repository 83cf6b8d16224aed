"""Weights, guards, and what a difference between two soups can tell."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soup.errors import EvaluatorError, RecipeError
from soup.evaluation.api import Score
from soup.evaluation.bootstrap import _bootstrap, benchmark_difference, paired_difference
from soup.evaluation.estimates import Estimate
from soup.evaluation.objective import PLAIN, Guard, Objective
from soup.merging.model_card import model_card
from soup.merging.recipe import Recipe, describe_objective
from soup.search.strategies import greedy, maximum


def scores(**values):
    return {name: Score(value) for name, value in values.items()}


def test_the_plain_overall_is_the_plain_mean():
    assert PLAIN.overall(scores(a=10.0, b=20.0, c=60.0)) == 30.0
    assert PLAIN.as_json() == {}


def test_weights_weigh_and_a_benchmark_without_one_weighs_1():
    objective = Objective.parse(["a=2, b=0.5"], [])
    assert objective.overall(scores(a=10.0, b=20.0, c=60.0)) == pytest.approx((20 + 10 + 60) / 3.5)
    assert objective.as_json() == {"weights": {"a": 2.0, "b": 0.5}}


@pytest.mark.parametrize("text", ["a", "a=", "a=nan", "a=inf", "a=x"])
def test_weights_of_another_form_are_refused(text):
    with pytest.raises(EvaluatorError, match="expected BENCHMARK=NUMBER"):
        Objective.parse([text], [])


@pytest.mark.parametrize("weight", ["0", "-1", "1e-9", "1e308"])
def test_weights_beside_which_nothing_else_counts_or_that_add_up_to_infinity_are_refused(weight):
    with pytest.raises(EvaluatorError, match="weights`: expected a number from 1e-06 to 1e\\+06 for a"):
        Objective.parse([f"a={weight}"], [])


@pytest.mark.parametrize("texts", [(["a=2,b=1", "a=3"], []), ([], ["a>=-1", "b>=0,a>=-2"])])
def test_two_wishes_for_one_benchmark_are_refused_and_not_the_last_one_taken(texts):
    with pytest.raises(EvaluatorError, match="two for a: which one is meant"):
        Objective.parse(*texts)


def test_a_command_with_an_equals_sign_can_be_weighed():
    name = "command:N=3 judge {checkpoint}"
    assert Objective.parse([f"{name}=2"], []).weights == {name: 2.0}


@pytest.mark.parametrize("text", ["a", "a>1", "a>=x", ">=1", "a<=1"])
def test_guards_of_another_form_are_refused(text):
    with pytest.raises(EvaluatorError, match="expected BENCHMARK>=MARGIN"):
        Objective.parse([], [text])


def test_unknown_benchmarks_are_all_named_with_the_nearest():
    with pytest.raises(EvaluatorError, match=r"'mmbnch'.*Did you mean 'mmbench'(.|\n)*'ocr'"):
        Objective.parse(["mmbnch=1"], ["ocr>=-1"]).check(["mmbench", "ocrbench"])


def test_an_objective_is_told_on_the_model_card():
    objective = Objective.parse(["a=2"], ["b>=-1.0"])
    assert describe_objective(objective.as_json()) == "a weighs 2; guards: b>=-1"
    assert describe_objective(PLAIN.as_json()) == ""
    ingredient = {"name": "x", "path": "x", "digest": "xxh3:0"}
    recipe = Recipe(ingredients=(ingredient,), side_digest="sha256:0", objective=objective.as_json())
    assert "Objective: a weighs 2; guards: b>=-1." in model_card(recipe, {"a": {"all": 50.0}}, {})


def test_a_guard_holds_a_soup_against_the_best_single_model_on_that_benchmark():
    objective = Objective(guards=(Guard("b", -1.0),))
    singles = [scores(a=50.0, b=70.0), scores(a=60.0, b=65.0)]
    assert objective.broken(scores(a=90.0, b=69.0), singles) == ()
    (said,) = objective.broken(scores(a=90.0, b=68.9), singles)
    assert said == "b>=-1: 68.90, and the best single model has 70.00"


SHARES = st.integers(250, 750)  # of a thousand


@given(st.sampled_from([3000, 1500, 9510, 11640, 3088]), SHARES, SHARES, st.integers(0, 250), st.integers(1, 3))
def test_soups_with_as_many_right_answers_in_all_have_the_same_overall(size, first, second, moved, weight):
    objective = Objective({"a": weight, "b": weight})
    rights = [(first + shift, second - shift) for shift in (0, moved, -moved)]
    rows = [{name: 100 * right / size for name, right in zip("ab", pair, strict=True)} for pair in rights]
    assert len({objective.overall(scores(**row)) for row in rows}) == 1


@given(st.integers(31, 1000), st.integers(0, 30))
def test_a_soup_that_is_just_as_far_below_as_a_guard_lets_it_keeps_the_guard(tenths, margin):
    objective = Objective.parse([], [f"b>=-{margin / 10}"])
    assert not objective.broken(scores(b=(tenths - margin) / 10), [scores(b=tenths / 10)])
    assert objective.broken(scores(b=(tenths - margin) / 10 - 1e-6), [scores(b=tenths / 10)])


class Trial:
    def __init__(self, overall, allowed=True, better=0.0):
        self.overall, self.allowed, self._better = overall, allowed, better

    def better_than(self, other):
        return self._better


def by_table(table):
    return lambda chosen: table["".join(sorted(chosen))]


def test_greedy_admits_a_soup_with_as_many_right_answers_though_the_sum_of_its_scores_is_rounded_down():
    rights = {"x": (71, 60), "y": (70, 60), "xy": (70, 61)}  # of 150 on each of two benchmarks
    rows = {name: {"a": 100 * a / 150, "b": 100 * b / 150} for name, (a, b) in rights.items()}
    assert math.fsum(rows["xy"].values()) < math.fsum(rows["x"].values())
    assert greedy("xy", by_table({name: Trial(PLAIN.overall(scores(**row))) for name, row in rows.items()})) == [
        "x",
        "y",
    ]


def test_greedy_admits_no_soup_that_breaks_a_guard():
    table = {"a": Trial(60), "b": Trial(50), "c": Trial(40), "ab": Trial(70, allowed=False), "ac": Trial(65)}
    assert greedy(["a", "b", "c"], by_table(table)) == ["a", "c"]


def test_greedy_adds_a_single_model_that_breaks_a_guard_to_a_soup_that_keeps_it():
    table = {"a": Trial(60, allowed=False), "b": Trial(50), "ab": Trial(55)}
    assert greedy(["a", "b"], by_table(table)) == ["b", "a"]


def test_maximum_prefers_a_soup_that_keeps_the_guards():
    table = {"a": Trial(60), "b": Trial(50), "ab": Trial(70, allowed=False)}
    assert maximum(["a", "b"], by_table(table)) == ["a"]


def test_greedy_by_probability_admits_only_what_is_likely_better():
    table = {"a": Trial(60), "b": Trial(50), "c": Trial(40), "ab": Trial(61, better=0.9), "ac": Trial(61, better=0.91)}
    assert greedy(["a", "b", "c"], by_table(table), accept="p>0.9") == ["a", "c"]


@pytest.mark.parametrize("rule", ["ge ", "p>1", "p>0.9.1", "p<0.5", ""])
def test_unknown_rules_are_refused(rule):
    with pytest.raises(RecipeError, match=r"Known: ge, gt, or p>0\.9"):
        greedy(["a"], by_table({"a": Trial(1)}), accept=rule)


def answered(right, count):
    points = {str(i): 1.0 if i in right else 0.0 for i in range(count)}
    return {"bench": Score(100 * sum(points.values()) / count, count, points)}


def test_a_benchmark_of_one_question_adds_what_it_is_to_every_draw():
    dice = random.Random(4)
    varied, other = ([float(dice.random() < 0.5) for _ in range(400)] for _ in range(2))

    def scored(*rows):
        return {
            name: Score(100 * statistics.fmean(row), len(row), {str(index): value for index, value in enumerate(row)})
            for name, row in zip("ab", rows, strict=False)
        }

    alone = paired_difference(scored(varied), scored(other), PLAIN)
    beside = paired_difference(scored(varied, [1.0]), scored(other, [0.0]), PLAIN)
    assert beside.mean == pytest.approx((alone.mean + 100) / 2)
    assert (beside.low, beside.high) == pytest.approx(((alone.low + 100) / 2, (alone.high + 100) / 2), abs=0.3)
    assert paired_difference(scored([1.0]), scored([0.0]), PLAIN).p_better == 1.0


def test_the_interval_of_a_paired_difference_is_that_of_its_normal_approximation():
    draw = random.Random(0)
    right = {i for i in range(2000) if draw.random() < 0.60}
    other = {i for i in right if draw.random() < 0.95} | {
        i for i in range(2000) if i not in right and draw.random() < 0.05
    }
    difference = paired_difference(answered(right, 2000), answered(other, 2000), PLAIN)
    differences = [(i in right) - (i in other) for i in range(2000)]
    mean = sum(differences) / 2000
    spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / 2000 / 2000)
    assert difference.mean == pytest.approx(100 * mean)
    assert difference.low == pytest.approx(100 * (mean - 1.96 * spread), abs=0.12)
    assert difference.high == pytest.approx(100 * (mean + 1.96 * spread), abs=0.12)
    assert difference.p_better == pytest.approx(0.5 * (1 + math.erf(mean / spread / math.sqrt(2))), abs=0.03)


def test_pairing_sees_what_two_separate_intervals_would_not():
    right, other = set(range(1000)), set(range(990))  # the same questions but for ten
    difference = paired_difference(answered(right, 2000), answered(other, 2000), PLAIN)
    assert difference.mean == pytest.approx(0.5)
    assert 0 < difference.low < difference.mean < difference.high
    assert difference.p_better > 0.99


@given(st.sets(st.integers(0, 29)), st.sets(st.integers(0, 29)))
def test_the_two_directions_of_a_difference_are_each_other_s_mirror(first, other):
    there = paired_difference(answered(first, 30), answered(other, 30), PLAIN)
    back = paired_difference(answered(other, 30), answered(first, 30), PLAIN)
    assert there.mean == pytest.approx(-back.mean)
    assert there.low <= there.mean + 1e-9
    assert there.mean <= there.high + 1e-9
    assert there.p_better + back.p_better <= 1 + 1e-9


def test_equal_answers_differ_by_nothing_for_sure():
    difference = paired_difference(answered({1, 2}, 9), answered({1, 2}, 9), PLAIN)
    assert (difference.mean, difference.low, difference.high, difference.p_better) == (0, 0, 0, 0)


def test_a_benchmark_on_which_nothing_changed_leaves_the_doubt_of_the_others():
    same, ours, theirs = (answered(right, 30)["bench"] for right in (set(), {1, 2, 3}, {3, 4}))
    difference = paired_difference({"a": same, "b": ours}, {"a": same, "b": theirs}, PLAIN)
    alone = paired_difference({"b": ours}, {"b": theirs}, PLAIN)
    assert difference.low < difference.mean < difference.high
    assert (difference.mean, difference.p_better) == (
        pytest.approx(alone.mean / 2),
        pytest.approx(alone.p_better, abs=0.02),
    )


def test_a_probability_is_a_share_of_4999_draws_which_are_the_same_each_time():
    arguments = answered({1, 2, 3, 5, 8}, 30), answered({3, 4, 6}, 30), PLAIN
    first = paired_difference(*arguments)
    _bootstrap.cache_clear()
    assert paired_difference(*arguments) == first
    assert first.p_better * 4999 == pytest.approx(round(first.p_better * 4999), abs=1e-6)


def corrected(right, count, points):
    """An estimate of so many questions after a correction by so many points."""
    score = answered(right, count)["bench"]
    return {"bench": replace(score, estimate=Estimate(40, points, 0.01, 0.01)).corrected(points)}


def test_what_was_added_to_an_estimate_counts_as_questions_more_that_changed():
    other = answered({1, 2}, 800)
    for points in (0.05, -0.05, 0.3):
        estimate = corrected({1, 2}, 800, points)
        difference = paired_difference(estimate, other, PLAIN)
        assert difference.mean == pytest.approx(points)
        assert benchmark_difference(estimate["bench"], other["bench"]).mean == pytest.approx(points)
        assert benchmark_difference(estimate["bench"], other["bench"]).low < points, "nobody asked them"
    fraction, several = (paired_difference(corrected({1, 2}, 800, points), other, PLAIN) for points in (0.05, 0.3))
    assert fraction.p_better < 0.7, "which is less than one question's worth"
    assert several.p_better > 0.8
    assert paired_difference(corrected({1, 2}, 800, -0.05), other, PLAIN).p_better == 0


def test_estimates_that_have_the_same_correction_differ_by_what_they_were_asked():
    first, second = corrected({1, 2}, 800, 0.05), corrected({1, 3, 4}, 800, 0.05)
    assert paired_difference(second, first, PLAIN) == paired_difference(
        answered({1, 3, 4}, 800), answered({1, 2}, 800), PLAIN
    )


def in_parts(*rows, count=400):
    """A score of several parts, each the questions of `count` that it asks and got right."""
    points = {f"part {i}": {str(q): float(q in right) for q in questions} for i, (questions, right) in enumerate(rows)}
    values = {name: 100 * statistics.fmean(row.values()) for name, row in points.items()}
    whole = Score(statistics.fmean(values.values()), count, parts=values, part_questions=points)
    return whole.by_name("bench")


def test_parts_about_the_same_questions_are_as_certain_as_one_of_them_and_no_more():
    right, other, every = set(range(0, 400, 2)), set(range(0, 400, 3)), range(400)
    whole = paired_difference(answered(right, 400), answered(other, 400), PLAIN)
    parts = paired_difference(in_parts((every, right), (every, right)), in_parts((every, other), (every, other)), PLAIN)
    assert parts.mean == pytest.approx(whole.mean)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.5)


def test_parts_that_share_the_questions_among_them_count_as_their_means_do():
    first, second = range(100), range(100, 400)
    ours, theirs = (in_parts((first, set(range(low))), (second, set(range(low + 200)))) for low in (60, 50))
    difference = paired_difference(ours, theirs, Objective(weights={"part 0": 3.0}))
    assert difference.mean == pytest.approx((3 * 10 + 100 * 10 / 300) / 4)
    assert 0 < difference.low < difference.mean < difference.high


def test_a_part_without_points_leaves_no_interval():
    silent = Score(50.0, parts={"a": 40.0, "b": 60.0}, part_questions={"a": {"0": 0.4}}).by_name("bench")
    assert (silent["a"].questions, silent["b"].questions) == ({"0": 0.4}, None)
    assert paired_difference(silent, silent, PLAIN) is None
    with pytest.raises(EvaluatorError, match="points of what is no part: c"):
        Score(50.0, parts={"a": 50.0}, part_questions={"c": {}})


def test_weights_count_in_a_difference():
    first = {"a": answered({0, 1}, 4)["bench"], "b": answered(set(), 4)["bench"]}
    other = {"a": answered({0}, 4)["bench"], "b": answered({0}, 4)["bench"]}
    assert paired_difference(first, other, PLAIN).mean == 0
    assert paired_difference(first, other, Objective({"a": 3.0})).mean == pytest.approx(100 * (3 * 0.25 - 0.25) / 4)


def test_a_score_that_is_no_mean_of_its_points_differs_by_as_much_as_the_scores_do():
    ours, theirs = (answered(right, 400)["bench"] for right in (range(210), range(10, 215)))
    plain = paired_difference({"a": ours}, {"a": theirs}, PLAIN)
    assert plain.mean == pytest.approx(1.25)
    lower = replace(ours, value=theirs.value - 3)  # by its categories, say
    difference = paired_difference({"a": lower}, {"a": theirs}, PLAIN)
    assert difference.mean == pytest.approx(-3)
    assert (difference.high - difference.low) == pytest.approx(plain.high - plain.low, abs=0.1)
    assert difference.low <= difference.mean <= difference.high
    assert difference.p_better < 0.01 < 0.8 < plain.p_better


def test_without_each_question_s_points_there_is_no_interval():
    assert paired_difference({"a": Score(50.0)}, {"a": Score(40.0)}, PLAIN) is None
    assert paired_difference(answered({1}, 9), answered({1}, 8), PLAIN) is None, "not the same questions"


def test_a_comma_too_many_is_no_weight_and_no_guard():
    assert Objective.parse(["a=2, ", ""], ["a>=-1,, b>=0", " "]) == Objective.parse(["a=2"], ["a>=-1", "b>=0"])
