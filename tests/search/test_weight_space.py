"""Weights as free numbers: what a point stands for, where a search begins and ends, and the top of a parabola."""

from __future__ import annotations

import math

import numpy as np
import pytest

from soup.errors import RecipeError
from soup.hf.places import COMPONENTS
from soup.search.strategies.weight_space import WeightSpace, refuse_components, summit

POOL = ["a", "b", "c"]


def logits(numbers):
    """The logits of three numbers' weights, from Helmert's rows, written out."""
    first, second = numbers
    return [
        first / math.sqrt(2) + second / math.sqrt(6),
        -first / math.sqrt(2) + second / math.sqrt(6),
        -2 * second / math.sqrt(6),
    ]


def softmax(values):
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("numbers", [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-2.0, 0.7]])
def test_numbers_stand_for_a_softmax_in_orthonormal_coordinates_rounded_to_three_decimals(numbers):
    soup = WeightSpace(POOL).soup(numbers)
    shares = soup.chosen if isinstance(soup.chosen, dict) else dict.fromkeys(soup.chosen, 1 / 3)
    rounded = [round(weight, 3) for weight in softmax(logits(numbers))]
    assert shares == pytest.approx({name: w / sum(rounded) for name, w in zip(POOL, rounded, strict=True)}, abs=1e-12)
    assert (soup.method, soup.params) == (None, None)


def test_a_weight_that_rounds_to_nothing_is_left_out():
    assert [*WeightSpace(["a", "b"]).soup([6.0]).chosen] == ["a"]


def test_the_numbers_of_a_soup_stand_for_that_soup_and_the_absent_count_little():
    space = WeightSpace(POOL)
    assert space.first(POOL) == pytest.approx([0.0, 0.0])
    assert logits(space.first(["a", "b"])) == pytest.approx([1.0, 1.0, -2.0])  # 3 apart, and of sum 0
    assert space.soup(space.first(POOL)).chosen == POOL


def test_there_are_as_many_numbers_as_vectors_and_a_scale_have_and_as_many_bounds():
    for components, scale, count in [((), False, 2), (("vision",), False, 4), (("vision", "llm"), True, 7)]:
        space = WeightSpace(POOL, components, scale=scale)
        low, high = space.bounds
        assert (space.dimensions, len(low), len(high), len(space.first(POOL))) == (count,) * 4
        assert {*low[: count - scale]} == {-6.0}
        assert {*high[: count - scale]} == {6.0}
        assert (low[-1], high[-1], space.first(POOL)[-1]) == ((0.0, 1.5, 1.0) if scale else (-6.0, 6.0, 0.0))


def test_a_scale_is_task_arithmetics_and_rounded():
    soup = WeightSpace(POOL, scale=True).soup([0.0, 0.0, 0.75049])
    assert (soup.chosen, soup.method, soup.params) == (POOL, "task-arithmetic", {"scale": 0.75})
    assert str(soup) == "a + b + c, scale 0.75"


def test_components_have_factors_of_their_own_and_the_others_share_the_first():
    numbers = [0.0, 0.0, 1.0, 0.0, 0.5]
    soup = WeightSpace(POOL, ("vision",), scale=True).soup(numbers)
    factors = soup.params["components"]
    vision = [round(3 * round(weight, 3), 3) for weight in softmax(logits([1.0, 0.0]))]
    assert {*factors} == {*COMPONENTS}
    assert factors.pop("vision") == vision
    assert all(values == [0.999] * 3 for values in factors.values())
    assert (soup.chosen, soup.params["scale"]) == (POOL, 0.5)


@pytest.mark.parametrize("wrong", ["vision", 3, ["head"], ["llm", "llm"], [1], {"llm"}])
def test_what_is_no_list_of_components_is_refused(wrong):
    with pytest.raises(RecipeError, match="components must be a list of some of vision, projector"):
        refuse_components(wrong)
    refuse_components(())
    refuse_components(["vision", "llm"])


def scored(top, bend, count=60, seed=0):
    points = np.random.default_rng(seed).uniform(-1, 1, (count, len(top)))
    return [(point, 50.0 - float((point - top) @ bend @ (point - top))) for point in points]


def test_the_top_of_a_parabola_is_found_from_its_better_half():
    top, bend = np.array([0.2, -0.1]), np.array([[30.0, 8.0], [8.0, 20.0]])
    known = scored(top, bend)
    worse = sorted(known, key=lambda pair: pair[1])[:30]
    broken = [(point, 0.0) if any(point is other for other, _ in worse) else (point, value) for point, value in known]
    assert summit(known) == pytest.approx(top, abs=1e-6)
    assert summit(broken) == pytest.approx(top, abs=1e-6)


def test_a_top_beyond_what_the_better_half_spans_is_cut_off_there():
    known = scored(np.array([3.0, 0.0]), np.diag([10.0, 10.0]))
    best = sorted(known, key=lambda pair: -pair[1])[:30]
    assert summit(known)[0] == pytest.approx(max(point[0] for point, _ in best))


def test_there_is_no_top_of_a_valley_a_saddle_or_too_few_scores():
    assert summit(scored(np.zeros(2), np.diag([-10.0, -10.0]))) is None
    assert summit(scored(np.zeros(2), np.diag([10.0, -10.0]))) is None
    assert summit([]) is None
    assert summit(scored(np.zeros(2), np.eye(2), count=7)) is None  # six terms, and two to spare
    assert summit(scored(np.zeros(2), np.eye(2), count=8)) == pytest.approx([0.0, 0.0], abs=1e-6)
