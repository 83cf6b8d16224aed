"""Points and boxes survive from any spelling into any other, as finely as its numbers are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from finetune.coordinates.conventions import CONVENTIONS, convert, named_convention, qwen_size
from finetune.coordinates.regions import Box, CoordinateError, Grounding, Point, regions_in
from finetune.coordinates.spellings import SPELLINGS

BOX, CAT = Box(0.125, 0.25, 0.5, 0.75), Point(0.615, 0.404)
WRITTEN = {  # as the families' own code and papers write them, in an image of 400 x 200
    "mm1.5": (BOX, "the cat [125, 250, 500, 750]"),
    "ferret-ui": (BOX, "the cat [125, 250, 500, 750]"),
    "seeclick": (CAT, "the cat (0.61,0.40)"),
    "pyautogui": (CAT, "pyautogui.click(x=0.6150, y=0.4040)"),
    "molmo": (CAT, '<point x="61.5" y="40.4" alt="the cat">the cat</point>'),
    "molmo2": (CAT, '<points coords="1 1 615 404">the cat</points>'),
    "qwen-vl": (BOX, "<ref>the cat</ref><box>(125,250),(500,750)</box>"),
    "qwen2-vl": (BOX, "<|object_ref_start|>the cat<|object_ref_end|><|box_start|>(125,250),(500,750)<|box_end|>"),
    "qwen2.5-vl": (BOX, '[{"bbox_2d": [49, 49, 196, 147], "label": "the cat"}]'),  # of 392 x 196
    "qwen3-vl": (BOX, '[{"bbox_2d": [125, 250, 500, 750], "label": "the cat"}]'),
    "internvl": (BOX, "<ref>the cat</ref><box>[[125, 250, 500, 750]]</box>"),
    "brackets:pixels": (BOX, "the cat [50, 50, 200, 150]"),
    "brackets:percent": (BOX, "the cat [12.5, 25.0, 50.0, 75.0]"),
    "brackets:fraction": (BOX, "the cat [0.125, 0.250, 0.500, 0.750]"),
    "parentheses:100": (CAT, "the cat (62,40)"),
}
ALL = [*CONVENTIONS, *(f"{spelling}:{unit}" for spelling in SPELLINGS for unit in ("fraction", "pixels", "50"))]
fractions = st.floats(0, 1)
points = st.builds(Point, fractions, fractions)
corners = st.tuples(fractions, fractions).map(sorted)
boxes = st.builds(lambda x, y: Box(x[0], y[0], x[1], y[1]), corners, corners)
labels = st.from_regex(r"[a-z]{1,9}( [a-z&\"<é猫]{1,9})?", fullmatch=True)


@pytest.mark.parametrize("name", WRITTEN)
def test_each_family_is_written_as_its_own_code_writes_it(name):
    region, text = WRITTEN[name]
    assert named_convention(name).write((Grounding((region,), "the cat"),), (400, 200)) == text


def step(convention, size):
    return [10.0**-convention.decimals / extent for extent in convention.extent(size)]


def assert_near(regions, expected, *conventions, size):
    assert [type(region) for region in regions] == [type(region) for region in expected]
    for region, wanted in zip(regions, expected, strict=True):
        for axis, (value, want) in enumerate(zip(region.values, wanted.values, strict=True)):
            least = sum(step(convention, size)[axis % 2] / 2 for convention in conventions)
            assert abs(value - want) <= least + 1e-9


@settings(deadline=None)
@given(
    st.sampled_from(ALL),
    st.sampled_from(ALL),
    st.lists(st.tuples(labels, st.lists(st.one_of(points, boxes), min_size=1, max_size=3)), min_size=1, max_size=3),
    st.tuples(st.integers(50, 3000), st.integers(50, 3000)),
)
def test_any_two_conventions_convert_with_no_more_loss_than_half_a_step_of_each(source, target, phrases, size):
    convention, other = named_convention(source), named_convention(target)
    if not (convention.by.boxes and other.by.boxes):
        phrases = [(label, [region.center for region in regions]) for label, regions in phrases]
    pieces = [piece for label, regions in phrases for piece in ("We see ", Grounding(tuple(regions), label), " here.")]
    written = convention.write(pieces, size)
    there = convert(written, convention, other, size)
    read = other.read(there, size)
    assert not read.faults
    assert_near(read.regions, regions_in(pieces), convention, other, size=size)
    assert convert(there, other, other, size) == there
    if convention.by.marks_phrases and other.by.marks_phrases:
        named = [piece for piece in read.pieces if isinstance(piece, Grounding)]
        assert {piece.label for piece in named} == {label for label, _ in phrases}
    assert re.findall("We see | here.", there) == ["We see ", " here."] * len(phrases)


def test_what_leaves_the_image_is_told_and_clipped():
    ferret, molmo = named_convention("ferret-ui"), named_convention("molmo")
    reading = ferret.read("A cat [-20, 10, 1100, 400] and a dog [300, 300, 200, 400].")
    assert [fault.rpartition(": ")[2] for fault in reading.faults] == [
        "leaves the image",
        "a box that ends before it begins",
    ]
    assert ferret.write(reading.pieces).startswith("A cat [0, 10, 1000, 400] and")
    assert convert('<point x="103.5" y="50.0" alt="a">a</point>', molmo, ferret) == "a [1000, 500]"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ferret-ui", "[1, 2, 3]"),
        ("molmo", '<point x="1,5" y="2" alt="a">a</point>'),
        ("molmo", '<points x1="1" y1="2" x2="3" alt="a">a</points>'),
        ("molmo2", '<points coords="1 1 500">a</points>'),
        ("qwen-vl", "<box>(1,2),(3,four)</box>"),
        ("internvl", "<ref>a</ref><box>[[1, 2, 3]]</box>"),
        ("qwen3-vl", '{"bbox_2d": [1, 2, 3]}'),
        ("qwen3-vl", '{"point_2d": [true, 2]}'),
    ],
)
def test_a_mark_that_is_none_is_told_and_stays_as_it_is(name, text):
    convention = named_convention(name)
    reading = convention.read(f"It is {text} there.")
    assert len(reading.faults) == 1
    assert not reading.regions
    assert convention.write(reading.pieces) == f"It is {text} there."


def test_models_answers_are_read_as_they_come():
    fenced = '```json\n[\n  {"bbox_2d": [1, 2, 3, 4], "label": "a"},\n {"point_2d": [5, 6]}\n]\n```'
    reading = named_convention("json:10").read(fenced)
    assert reading.pieces == (Grounding((Box(0.1, 0.2, 0.3, 0.4),), "a"), Grounding((Point(0.5, 0.6),)))
    several = '<points x1="10.0" y1="20" x2=" 30" y2="40" alt="all cats">cats</points>'
    molmo = named_convention("molmo").read(several)
    assert molmo.pieces == (Grounding((Point(0.1, 0.2), Point(0.3, 0.4)), "cats", "all cats"),)
    as_molmo_writes = '<points x1="10.0" y1="20.0" x2="30.0" y2="40.0" alt="all cats">cats</points>'
    assert named_convention("molmo").write(molmo.pieces) == as_molmo_writes
    images = '<points coords="1 1 100 200 2 300 400\t3 3 500 600">cats</points>'
    molmo2 = named_convention("molmo2")
    assert [point.image for point in molmo2.read(images).regions] == [1, 1, 3]
    assert molmo2.write(molmo2.read(images).pieces) == images


def test_molmo2s_own_way_of_reading_finds_points_at_the_edge():
    text = named_convention("molmo2").write([Grounding((Point(0.004, 1), Point(0.05, 0)), "ants")])
    assert text == '<points coords="1 1 004 1000 2 050 000">ants</points>'
    assert len(re.findall(r"([0-9]+) ([0-9]{3,4}) ([0-9]{3,4})", text)) == 2  # the model card's


def test_what_a_spelling_lacks_is_refused():
    with pytest.raises(CoordinateError, match="points alone, found a box"):
        convert("[1, 2, 3, 4]", named_convention("ferret-ui"), named_convention("molmo"))
    with pytest.raises(CoordinateError, match="no numbers of images"):
        named_convention("molmo").write([Grounding((Point(0, 0, 2),))])
    with pytest.raises(CoordinateError, match="need the size"):
        named_convention("brackets:pixels").read("[1, 2]")
    with pytest.raises(CoordinateError, match=r"'molm'\. Did you mean 'molmo'"):
        named_convention("molm")
    words = r"no convention 'brackets'\.( Did you mean '\S+'\?)? Known: [^:]*\. Or one of brackets, .* brackets:100$"
    with pytest.raises(CoordinateError, match=words):
        named_convention("brackets")


@settings(deadline=None)
@given(st.integers(20, 9000), st.integers(20, 9000))
def test_qwens_pixels_are_those_of_the_resized_image(width, height):
    if max(width, height) < 200 * min(width, height):
        high, wide = smart_resize(height, width, 28, 3136, 12_845_056)
        assert qwen_size(width, height) == (max(28, wide), max(28, high))
