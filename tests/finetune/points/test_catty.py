"""CATTY's arithmetic, against what its authors' rule gives and against what must hold for every image."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.points.catty import catty_boxes, catty_grid, catty_size, within_ratio

SIDES = st.integers(1, 5000)
TILES = st.integers(1, 12)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((1000, 600), (4, 2)), ((640, 480), (3, 2)), ((800, 800), (2, 2)), ((1920, 1080), (4, 2)), ((336, 336), (1, 1))],
)
def test_grids_of_known_images(size, grid):
    assert catty_grid(*size) == grid


def test_the_paper_image_is_cut_by_hand():
    # 1000 x 600 on 4 x 2 tiles of 336: height 672, width 672 * 1000 / 600 = 1120, strides (1120 - 336) / 3 and 336.
    size, boxes = catty_boxes(1000, 600)
    assert size == (1120, 672)
    assert [box[:2] for box in boxes] == [(x, y) for y in (0, 336) for x in (0, 261, 522, 783)]


@pytest.mark.parametrize(("size", "squeezed"), [((9000, 100), (800, 100)), ((10, 100), (10, 80)), ((50, 60), (50, 60))])
def test_an_image_beyond_the_ratio_is_squeezed_first(size, squeezed):
    assert within_ratio(*size, max_tiles=8) == squeezed


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_image_is_refused(size):
    with pytest.raises(ValueError, match="positive"):
        catty_grid(*size)


def test_of_two_grids_equally_near_in_area_the_smaller_wins():
    # area 2.5 tiles lies halfway between 1 x 1 and 2 x 2
    assert catty_grid(2, 2, tile=2, max_tiles=4) == (1, 1)
    assert catty_grid(4, 4, tile=2, max_tiles=4) == (2, 2)


@given(SIDES, SIDES, TILES)
def test_tiles_are_at_most_as_many_as_allowed(width, height, max_tiles):
    columns, rows = catty_grid(width, height, max_tiles=max_tiles)
    assert 1 <= columns * rows <= max_tiles
    assert len(catty_boxes(width, height, max_tiles=max_tiles)[1]) == columns * rows


@given(SIDES, SIDES, TILES)
def test_a_wide_image_gets_a_grid_at_least_as_wide_and_a_tall_one_at_least_as_tall(width, height, max_tiles):
    columns, rows = catty_grid(width, height, max_tiles=max_tiles)
    width, height = within_ratio(width, height, max_tiles=max_tiles)
    if width > height:
        assert columns * height >= width * rows
    if width < height:
        assert columns * height <= width * rows


@given(SIDES, SIDES, TILES)
def test_tiles_lie_within_the_resized_image_without_gaps(width, height, max_tiles):
    (w, h), boxes = catty_boxes(width, height, tile=336, max_tiles=max_tiles)
    for side, ends in ((w, [(b[0], b[2]) for b in boxes]), (h, [(b[1], b[3]) for b in boxes])):
        spans = sorted(set(ends))
        assert spans[0][0] == 0
        assert all(after[0] <= before[1] for before, after in itertools.pairwise(spans))
        assert side - len(spans) <= spans[-1][1] <= side


@given(st.integers(100, 5000), st.integers(100, 5000))
def test_the_aspect_ratio_is_kept_to_a_pixel(width, height):
    if max(width, height) > 8 * min(width, height):
        return
    w, h = catty_size(width, height, catty_grid(width, height))
    assert abs(w * height - h * width) <= max(width, height)
