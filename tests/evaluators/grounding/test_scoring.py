"""Points are matched as a search over all pairings would match them; boxes and clicks hit as their rules say."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluators.grounding.question_files import Question
from evaluators.grounding.scoring import judge, matching
from finetune.coordinates.conventions import named_convention
from finetune.coordinates.regions import Box, Grounding, Point

SIZE = (200, 100)
pixels = st.tuples(st.integers(0, 200), st.integers(0, 100))


def question(**truth):
    return Question("1", Path("a.png"), "Where?", SIZE, **truth)


def at(*places):
    return tuple(Point(x / 200, y / 100) for x, y in places)


def say(*places):
    return " and ".join(f"[{x}, {y}]" for x, y in places)


def points(item, answer, name="brackets:pixels"):
    return judge("points", item, answer, named_convention(name))


def cheapest(costs):
    rows, columns = range(len(costs)), range(len(costs[0]))
    if len(costs) > len(costs[0]):
        return min(
            sum(costs[i][j] for j, i in enumerate(chosen)) for chosen in itertools.permutations(rows, len(columns))
        )
    return min(sum(costs[i][j] for i, j in enumerate(chosen)) for chosen in itertools.permutations(columns, len(rows)))


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.randoms(use_true_random=False))
def test_a_matching_costs_no_more_than_any_other(rows, columns, chance):
    costs = [[chance.randint(0, 20) for _ in range(columns)] for _ in range(rows)]
    pairs = matching(costs)
    assert len(pairs) == min(rows, columns) == len({i for i, _ in pairs}) == len({j for _, j in pairs})
    assert sum(costs[i][j] for i, j in pairs) == cheapest(costs)


@settings(deadline=None)
@given(st.lists(pixels, min_size=1, max_size=4, unique=True), st.lists(pixels, min_size=1, max_size=4, unique=True))
def test_precision_recall_and_f1_are_those_of_the_best_pairing(true, said):
    verdict = points(question(points=at(*true), radius=15), say(*said))
    pairings = (
        [(t, s) for t, s in zip(chosen, said, strict=False)]
        for chosen in itertools.permutations([*true, *[None] * len(said)], len(said))
        if sum(t is not None for t in chosen) == min(len(true), len(said))
    )
    cost_and_hits = [
        (
            sum(math.dist(t, s) for t, s in pairs if t is not None),
            sum(math.dist(t, s) <= 15 for t, s in pairs if t is not None),
        )
        for pairs in pairings
    ]
    least = min(cost for cost, _ in cost_and_hits)
    possible = {hits for cost, hits in cost_and_hits if cost < least + 1e-6}
    hits = round(verdict.precision * len(said))
    assert hits in possible
    assert verdict.recall == pytest.approx(hits / len(true))
    assert verdict.points == pytest.approx(2 * hits / (len(true) + len(said)))


def test_a_point_hits_inside_its_own_mask_alone(tmp_path):
    for name, box in {"left.png": (0, 0, 100, 100), "right.png": (100, 0, 200, 100)}.items():
        mask = Image.new("L", SIZE)
        mask.paste(255, box)
        mask.save(tmp_path / name)
    item = question(points=at((10, 50), (190, 50)), masks=(tmp_path / "left.png", tmp_path / "right.png"))
    assert points(item, say((99, 99), (100, 0))).points == 1
    assert points(item, say((98, 99), (99, 0))).points == 0.5
    assert points(item, say((200, 100))).precision == 1


def test_a_point_at_just_the_radius_hits():
    missed = [
        (x, y)
        for x in range(0, 186, 5)
        for y in range(0, 86, 4)
        for there in [(x + 15, y), (x, y + 15), (x + 9, y + 12)]
        if points(question(points=at((x, y)), radius=15), say(there)).points != 1
    ][:3]
    assert not missed


def test_abstention_is_right_where_nothing_is_there_and_only_there():
    assert points(question(), "There are none.").points == 1
    assert points(question(), say((1, 1))).points == 0
    nothing = points(question(points=at((1, 1)), radius=5), "There are none.")
    assert (nothing.points, nothing.is_parsed) == (0, False)


def test_a_point_outside_of_the_image_does_not_count():
    molmo = '<points x1="5.0" y1="5.0" x2="104.0" y2="5.0" alt="a">a</points>'
    assert points(question(points=at((10, 5)), radius=3), molmo, "molmo").precision == 1


CAT, DOG = Box(0.1, 0.1, 0.5, 0.5), Box(0.6, 0.6, 0.9, 0.9)


def boxes(item, *said, name="internvl"):
    convention = named_convention(name)
    return judge("boxes", item, convention.write(said, SIZE), convention).points


def test_a_box_hits_with_half_of_the_union_in_common():
    item = question(boxes=(("", (Box(0, 0, 0.5, 1),)),))
    for right, hit in ((0.25, 1), (0.24, 0), (1.0, 1)):
        assert boxes(item, Grounding((Box(0, 0, right, 1),))) == hit
    assert boxes(item, Grounding((Box(0, 0, 0.5, 1), DOG))) == 0.5
    assert boxes(item, Grounding((Point(0.2, 0.5),))) == 0


def test_a_box_of_just_half_the_union_hits_in_an_image_of_any_size():
    missed = []
    for width, height in [(333, 77), (1000, 601), (1279, 719)]:
        for left, half in itertools.product(range(0, 60, 7), range(1, 60)):
            truth = Box(left / width, 3 / height, (left + 2 * half) / width, 50 / height)
            item = Question("1", Path("a.png"), "Where?", (width, height), boxes=(("", (truth,)),))
            answer = f"[{left}, 3, {left + half}, 50]"
            if judge("boxes", item, answer, named_convention("brackets:pixels")).points != 1:
                missed.append((width, left, half))
    assert not missed


def test_phrases_are_found_by_their_words_or_else_by_their_order():
    item = question(boxes=(("the cat", (CAT,)), ("a dog", (DOG,))))
    cat, dog = Grounding((CAT,), "The cat"), Grounding((DOG,), "a dog")
    assert boxes(item, dog, " and ", cat) == 1
    assert boxes(item, dog, " and ", cat, name="ferret-ui") == 0
    assert boxes(item, cat, " and ", dog, name="ferret-ui") == 1
    assert boxes(item, cat) == 0.5


def test_a_click_hits_on_the_edge_and_a_box_by_its_middle():
    item = question(boxes=(("", (Box(0.25, 0.25, 0.5, 0.5),)),))

    def hit(answer):
        return judge("interfaces", item, answer, named_convention("brackets:pixels"))

    assert hit("[100, 50]").points == hit("[50, 25]").points == hit("[0, 0, 150, 75]").points == 1
    assert [hit(outside).points for outside in ("[101, 40]", "[49, 40]", "[75, 24]", "[75, 51]")] == [0] * 4
    assert hit("[9, 9] or [100, 50]").points == 0
    assert hit("<think>[9, 9]</think>[100, 50]").points == 1
    assert (hit("the button").points, hit("the button").is_parsed) == (0, False)
