"""Tilings against their formulas, written out here a second time, and against what must hold for every image."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from transformers.image_processing_utils import select_best_resolution
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from finetune.media.sampling import frame_indices
from finetune.points.anyres import AnyRes, anyres_grid
from finetune.points.catty import Catty
from finetune.points.multicrop import MultiCrop, multicrop_grid
from finetune.points.named_tilings import TILINGS, named_tiling, settings_of
from finetune.points.tile_pixels import cut_tiles
from finetune.points.tiling import Single, Thumbnail, TilePlan, size_within
from finetune.points.video import UniformFrames, Video
from soup.errors import FinetuneError

# Twenty sizes: small and large, square, wide, tall, extreme, odd, and multiples of the tile.
SIZES = [
    (1, 1),
    (10, 2000),
    (2000, 10),
    (64, 48),
    (224, 224),
    (336, 336),
    (337, 336),
    (336, 672),
    (640, 480),
    (480, 640),
    (800, 800),
    (1000, 600),
    (999, 601),
    (1008, 1008),
    (1280, 720),
    (1920, 1080),
    (1080, 2340),
    (2480, 3508),
    (6000, 4000),
    (12000, 900),
]
ALL = [
    Catty(),
    Catty(max_tiles=12, single_thumbnail=False),
    AnyRes(),
    AnyRes(min_tiles=1, max_tiles=12, single_thumbnail=False, thumbnail_first=True),
    AnyRes(min_tiles=1, max_tiles=6, rule="llava-next"),
    AnyRes(min_tiles=1, max_tiles=12, rule="internvl"),
    MultiCrop(),
    MultiCrop(max_tiles=5, margin=2, single_thumbnail=False),
    Single(),
    UniformFrames(),
]
named = pytest.mark.parametrize("tiling", ALL, ids=repr)
sized = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


def side_by_side(columns, rows, tile):
    return [(x * tile, y * tile, x * tile + tile, y * tile + tile) for y in range(rows) for x in range(columns)]


def all_grids(least, most):
    """(columns, rows), in no particular order."""
    sides = range(1, most + 1)
    return {(c, k) for c, k in itertools.product(sides, sides) if least <= c * k <= most}


@sized
def test_catty_is_its_formula(size):
    W, H = size
    if max(size) > 8 * min(size):
        W, H = (8 * H, H) if W > H else (W, 8 * W)
    grids = [(a, b) for a, b in all_grids(1, 8) if (W <= H or Fraction(a, b) >= Fraction(W, H))]
    grids = [(a, b) for a, b in grids if (W >= H or Fraction(a, b) <= Fraction(W, H))]
    nearest = min(abs(Fraction(a, b) - Fraction(W, H)) for a, b in grids)
    tied = [(a, b) for a, b in grids if abs(Fraction(a, b) - Fraction(W, H)) == nearest]
    a, b = min(sorted(tied, key=lambda g: g[0] * g[1]), key=lambda g: abs(g[0] * g[1] - Fraction(W * H, 336 * 336)))
    w, h = (336 * a, math.floor(Fraction(H, W) * 336 * a)) if W < H else (math.floor(Fraction(W, H) * 336 * b), 336 * b)
    dx = (w - 336) // (a - 1) if a > 1 else 0
    dy = (h - 336) // (b - 1) if b > 1 else 0
    boxes = tuple((i * dx, j * dy, i * dx + 336, j * dy + 336) for j in range(b) for i in range(a))
    expected = TilePlan(((W, H), (w, h)), boxes, thumbnail=Thumbnail((336, 336), of_resized=True))
    assert Catty().plan(*size, 336) == expected


@sized
def test_anyres_is_equation_1_of_mm1_5(size):
    W, H, r = *size, 336
    rows_of_table = []
    for c, k in all_grids(4, 9):
        s = min(Fraction(c * r, W), Fraction(k * r, H))
        padding = c * k * r * r - (s * W) * (s * H)
        rows_of_table.append((s, padding, c * k, k, c))
    covering = [row for row in rows_of_table if row[0] >= 1]
    if covering:
        *_, k, c = min(covering, key=lambda row: (row[1], row[2], row[3]))
    else:
        *_, k, c = min(rows_of_table, key=lambda row: (-row[0], row[1], row[2], row[3]))
    s = min(Fraction(c * r, W), Fraction(k * r, H))
    w, h = math.ceil(s * W), math.ceil(s * H)
    corner = ((c * r - w) // 2, (k * r - h) // 2)
    plan = AnyRes().plan(*size, r)
    assert plan == TilePlan(((w, h),), tuple(side_by_side(c, k, r)), (c * r, k * r), corner, Thumbnail((r, r)))


@sized
def test_anyres_by_llava_next_is_what_transformers_chooses(size):
    W, H = size
    ordered = sorted(all_grids(1, 6), key=lambda g: (g[0] * g[1], g[1]))  # of equals transformers takes the first
    height, width = select_best_resolution((H, W), [(k * 336, c * 336) for c, k in ordered])
    assert anyres_grid(W, H, min_tiles=1, max_tiles=6, rule="llava-next") == (width // 336, height // 336)


@sized
def test_anyres_by_internvl_is_what_transformers_chooses_and_is_stretched(size):
    W, H = size
    columns, rows = get_optimal_tiled_canvas((H, W), (336, 336), 1, 12)
    plan = AnyRes(min_tiles=1, max_tiles=12, rule="internvl").plan(W, H, 336)
    assert plan.boxes == tuple(side_by_side(columns, rows, 336))
    assert plan.sizes == (plan.canvas,) == ((columns * 336, rows * 336),)


@sized
def test_multicrop_is_molmos_rule(size):
    W, H = size
    table = []
    for c, k in all_grids(1, 12):
        # W - 112 and H - 112 are what the margins leave of the image; a grid of windows of 224 is to hold that
        scales = [Fraction(n * 224, side - 112) for n, side in ((c, W), (k, H)) if side > 112]
        table.append((min(scales, default=Fraction(10**9)), c * k, k, c))
    large = [row for row in table if row[0] >= 1]
    if large:
        *_, k, c = min(large)
    else:
        *_, k, c = min(table, key=lambda row: (-row[0], row[1], row[2]))
    room = (c * 224 + 112, k * 224 + 112)
    s = min(Fraction(room[0], W), Fraction(room[1], H))
    w, h = max(1, math.floor(s * W)), max(1, math.floor(s * H))
    boxes = tuple((x, y, x + 336, y + 336) for y in range(0, k * 224, 224) for x in range(0, c * 224, 224))
    t = min(Fraction(336, W), Fraction(336, H))
    small = (max(1, math.floor(t * W)), max(1, math.floor(t * H)))
    corner = ((room[0] - w) // 2, (room[1] - h) // 2)
    assert MultiCrop().plan(W, H, 336) == TilePlan(((w, h),), boxes, room, corner, Thumbnail(small, first=True))


def test_known_grids():
    assert anyres_grid(1000, 600) == (3, 2)  # 1008 x 672 covers it; padding of 1008 x 605 is the least of 4 to 9 tiles
    assert anyres_grid(300, 300) == (2, 2)  # at least four tiles, and of 2 x 2 and 3 x 3, both without padding, fewer
    assert anyres_grid(1008, 1008) == (3, 3)
    assert anyres_grid(9000, 1000) == (9, 1)  # too large for all: shrunk least
    assert multicrop_grid(336, 336) == (1, 1)
    assert multicrop_grid(784, 560) == (3, 2)  # (784 - 112) / 224 and (560 - 112) / 224
    assert multicrop_grid(5000, 5000) == (3, 3)
    assert multicrop_grid(5000, 100) == (12, 1)  # nothing is left of 100 between the margins


def test_neighbours_of_multicrop_share_eight_patches_and_their_own_parts_cover_the_canvas_once():
    plan = MultiCrop().plan(900, 700, 336)
    columns, rows = multicrop_grid(900, 700)
    assert (columns, rows) == (4, 3)
    for (left, _, right, _), after in itertools.pairwise(plan.boxes[:columns]):
        assert right - after[0] == 8 * 14
        assert after[0] - left == 224
    counts = np.zeros(plan.canvas, dtype=int)
    for i, (left, top, right, bottom) in enumerate(plan.boxes):
        at_left, at_right = i % columns == 0, i % columns == columns - 1
        at_top, at_bottom = i // columns == 0, i // columns == rows - 1
        margins = [0 if edge else 56 for edge in (at_left, at_top, at_right, at_bottom)]
        counts[left + margins[0] : right - margins[2], top + margins[1] : bottom - margins[3]] += 1
    assert (counts == 1).all()


def sizes_at_random(seed, n=10_000):
    """Sides of 1 to 20,000, spread evenly over the orders of magnitude, and some as elongated as can be."""
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(0, math.log(20_000), (n, 2))).astype(int)
    sides[: n // 50, 0], sides[n // 50 : n // 25, 1] = 1, 1
    return sides.tolist()


def gaps(spans, side):
    """Pixels of a side that no span covers."""
    covered, missing = 0, 0
    for start, end in sorted(spans):
        missing += max(0, start - covered)
        covered = max(covered, end)
    return missing + side - covered


@named
def test_what_must_hold_for_every_size(tiling):
    tile = 336
    most = {"video": 1, "single": 1}.get(tiling.name) or tiling.max_tiles
    for width, height in sizes_at_random(seed=len(repr(tiling))):
        plan = tiling.plan(width, height, tile)
        wide, high = plan.canvas or plan.sizes[-1]
        lefts, tops = sorted({box[0] for box in plan.boxes}), sorted({box[1] for box in plan.boxes})
        assert list(plan.boxes) == [(x, y, x + tile, y + tile) for y in tops for x in lefts], "row by row"
        assert 1 <= len(plan.boxes) <= most
        assert lefts[0] == tops[0] == 0
        assert lefts[-1] + tile <= wide
        assert tops[-1] + tile <= high
        # CATTY's stride is rounded down: up to n - 2 pixels are lost at the end of a side. The others lose none.
        losses = [len(starts) - 2 if tiling.name == "catty" else 0 for starts in (lefts, tops)]
        assert gaps([(x, x + tile) for x in lefts], wide) <= max(0, losses[0])
        assert gaps([(y, y + tile) for y in tops], high) <= max(0, losses[1])
        # the resized image lies on the canvas, and touches all of it in one direction at least
        (w, h), (left, top) = plan.sizes[-1], plan.corner
        assert min(w, h) >= 1
        assert 0 <= left <= left + w <= wide
        assert 0 <= top <= top + h <= high
        assert w == wide or h == high
        assert len(plan) == len(plan.boxes) + (plan.thumbnail is not None)
        if plan.thumbnail:
            assert max(plan.thumbnail.size) == tile


@pytest.mark.parametrize("tiling", [AnyRes(), MultiCrop()], ids=repr)
def test_the_aspect_ratio_is_kept_to_a_pixel(tiling):
    for width, height in sizes_at_random(seed=3, n=2000):
        w, h = tiling.plan(width, height, 336).sizes[0]
        # each side is less than a pixel away from the scale of the other
        assert abs(w * height - h * width) < max(width, height) or min(w, h) == 1


def test_anyres_has_at_least_as_many_tiles_as_asked_for():
    assert all(len(AnyRes().plan(w, h, 336).boxes) >= 4 for w, h in sizes_at_random(seed=4, n=2000))


@pytest.mark.parametrize("rule", ["llava-next", "internvl"])
def test_the_rules_of_others_agree_with_transformers_on_many_sizes(rule):
    ordered = sorted(all_grids(1, 12), key=lambda g: (g[0] * g[1], g[1]))
    different = 0
    for width, height in sizes_at_random(seed=5, n=2000):
        ours = anyres_grid(width, height, min_tiles=1, max_tiles=12, rule=rule)
        if rule == "internvl":
            theirs = get_optimal_tiled_canvas((height, width), (336, 336), 1, 12)
        elif max(width, height) > 336 * min(width, height):
            continue  # theirs rounds the shorter side to no pixel at all, and then knows no grid that is better
        else:
            high, wide = select_best_resolution((height, width), [(k * 336, c * 336) for c, k in ordered])
            theirs = wide // 336, high // 336
        different += ours != tuple(theirs)
    assert different <= 2  # where their floats round a tie


def test_a_side_of_a_room_is_filled_and_the_other_rounded_as_told():
    assert size_within(1000, 600, (672, 672)) == (672, 403)
    assert size_within(1000, 600, (672, 672), up=True) == (672, 404)
    assert size_within(600, 1000, (672, 672)) == (403, 672)
    assert size_within(500, 1000, (672, 672), up=True) == (336, 672)
    assert size_within(20_000, 1, (672, 672)) == (672, 1)


@named
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-3, 5)])
def test_an_image_without_pixels_is_refused(tiling, size):
    with pytest.raises(ValueError, match="positive"):
        tiling.plan(*size, 336)


@named
def test_a_tiling_is_made_again_of_its_settings(tiling):
    assert named_tiling(settings_of(tiling)) == tiling
    assert tiling.name in TILINGS


def test_a_tiling_may_be_said_in_one_text():
    assert named_tiling("anyres") == AnyRes()
    said = named_tiling("anyres: min_tiles=1, max_tiles=12, rule=internvl, single_thumbnail=false")
    assert said == AnyRes(1, 12, "internvl", single_thumbnail=False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("anyres:max_tile=3", "'max_tile'. Did you mean 'max_tiles'"),
        ("anyres:max_tiles=many", "found 'many'"),
        ("anyres:max_tiles", "found 'max_tiles'"),
        ("anyres:max_tiles=3,max_tiles=4", "each once"),
        ("catty:name=anyres", "each once"),
        ({"name": "catty", "single_thumbnail": "no"}, "single_thumbnail: expected true or false, found 'no'"),
        ("cattty", "none named 'cattty'. Did you mean 'catty'"),
        ({}, "none named None"),
        ({"name": "anyres", "max_tile": 9, "minimal": 2}, "'max_tile'. Did you mean 'max_tiles'"),
        ({"name": "anyres", "max_tile": 9, "minimal": 2}, "'minimal'"),
        ({"name": "anyres", "rule": "mm15"}, "no rule 'mm15'. Did you mean 'mm1.5'"),
        ({"name": "anyres", "min_tiles": 5, "max_tiles": 4}, "min_tiles 5 is more than max_tiles 4"),
        ({"name": "catty", "max_tiles": 0}, "max_tiles: expected a whole number of at least 1, found 0"),
        ({"name": "multicrop", "max_tiles": "12", "margin": -1}, "found '12'"),
        ({"name": "multicrop", "max_tiles": "12", "margin": -1}, "found -1"),
        ({"name": "video", "frames": True}, "found True"),
        ({"name": "single", "max_tiles": 4}, "unknown parameters"),
    ],
)
def test_unknown_tilings_and_parameters_are_told(setting, message):
    with pytest.raises(FinetuneError) as error:
        named_tiling(setting)
    assert message in str(error.value)


def test_margins_that_leave_nothing_of_a_tile_are_told():
    with pytest.raises(FinetuneError, match="leave nothing of a tile of 96"):
        MultiCrop().plan(500, 500, 96)


# Pixels


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(100, 60), (32, 32), (31, 200), (400, 9)], ids=str)
@pytest.mark.parametrize("tiling", [AnyRes(), MultiCrop(margin=1, patch=4), AnyRes(1, 12, "internvl")], ids=repr)
def test_tiles_are_the_pixels_of_the_padded_resized_image(tiling, size):
    picture = noise(*size)
    plan = tiling.plan(*size, 32)
    resized = np.asarray(picture.resize(plan.sizes[0], Image.Resampling.BILINEAR))
    canvas = np.zeros((plan.canvas[1], plan.canvas[0], 3), dtype=np.uint8)
    left, top = plan.corner
    canvas[top : top + resized.shape[0], left : left + resized.shape[1]] = resized
    tiles = [tile.transpose(1, 2, 0) for tile in cut_tiles(picture, plan, 32).numpy()]
    whole = tiles.pop(0 if plan.thumbnail.first else -1)
    assert all(np.array_equal(t, canvas[y:b, x:r]) for t, (x, y, r, b) in zip(tiles, plan.boxes, strict=True))
    small = np.asarray(picture.resize(plan.thumbnail.size, Image.Resampling.BILINEAR))
    frame = np.zeros((32, 32, 3), dtype=np.uint8)
    x, y = (32 - small.shape[1]) // 2, (32 - small.shape[0]) // 2
    frame[y : y + small.shape[0], x : x + small.shape[1]] = small
    assert np.array_equal(whole, frame)


@pytest.mark.parametrize("size", [(100, 60), (700, 300), (3, 3), (64, 900)], ids=str)
def test_torch_resizes_as_pillow_does_to_within_a_step_of_rounding(size):
    picture = noise(*size)
    plan = Catty().plan(*size, 48)
    ours, pillows = (cut_tiles(picture, plan, 48, by).numpy().astype(int) for by in ("torch", "pillow"))
    # by 1 the first time; what is resized again, and so the thumbnail, by 2
    assert np.abs(ours[:-1] - pillows[:-1]).max() <= 1 + (plan.sizes[0] != size)
    assert np.abs(ours - pillows).max() <= 2


# Video


@pytest.mark.parametrize(
    ("total", "frames", "indices"),
    [
        (48, 24, list(range(1, 48, 2))),
        (24, 24, list(range(24))),
        (5, 24, [0, 1, 2, 3, 4]),
        (1, 24, [0]),
        (100, 4, [12, 37, 62, 87]),
        (10, 3, [1, 5, 8]),
        (25, 24, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24]),
    ],
)
def test_frames_are_the_middles_of_equal_stretches(total, frames, indices):
    assert frame_indices(total, frames) == indices


def test_frames_are_uniform_and_none_comes_twice():
    rng = np.random.default_rng(0)
    for total, frames in rng.integers(1, 3000, (2000, 2)).tolist():
        indices = frame_indices(total, frames)
        assert len(indices) == min(total, frames)
        assert indices == sorted(set(indices))
        assert 0 <= indices[0] <= indices[-1] < total
        steps = {b - a for a, b in itertools.pairwise(indices)}
        assert max(steps, default=1) - min(steps, default=1) <= 1
        # as far from the start as from the end, to within a frame
        assert abs(indices[0] - (total - 1 - indices[-1])) <= 1


@pytest.mark.parametrize(("total", "frames"), [(0, 24), (5, 0)])
def test_no_frames_are_refused(total, frames):
    with pytest.raises(ValueError, match="at least one frame"):
        frame_indices(total, frames)
    with pytest.raises(FinetuneError, match="without frames"):
        Video([])


@named
def test_a_point_of_the_image_is_seen_where_its_fractions_say(tiling):
    """What is said of the whole image is right for its tiles: each point is in its place, or not there at all."""
    for (width, height), (x, y) in itertools.product([(640, 480), (300, 900), (1920, 1080)], [(0.2, 0.7), (0.9, 0.1)]):
        picture = Image.new("L", (width, height))
        left, top = round(x * width) - 20, round(y * height) - 20
        picture.paste(255, (left, top, left + 40, top + 40))
        plan = tiling.plan(width, height, 336)
        tiles = cut_tiles(picture.convert("RGB"), plan, 336)
        first = plan.thumbnail is not None and plan.thumbnail.first
        (wide, high), (corner_x, corner_y) = plan.sizes[-1], plan.corner
        at_x, at_y = corner_x + x * wide, corner_y + y * high
        hits = [
            tiles[i + first, 0, int(at_y) - box[1], int(at_x) - box[0]] > 127
            for i, box in enumerate(plan.boxes)
            if box[0] <= int(at_x) < box[2] and box[1] <= int(at_y) < box[3]
        ]
        assert hits
        assert all(hits)
        assert (tiles[first : first + len(plan.boxes)] > 127).any(dim=(1, 2, 3)).sum() >= len(hits)


def test_each_region_of_an_image_is_the_own_part_of_one_crop_of_ten_thousand_sizes():
    """A crop's own part is what lies between the middles of its overlaps, up to the canvas's edge where it has none."""
    chance, tiling = random.Random(13), MultiCrop()
    margin = tiling.margin * tiling.patch
    for _ in range(10_000):
        plan = tiling.plan(chance.randint(1, 4000), chance.randint(1, 4000), 336)
        for axis in (0, 1):
            end = plan.canvas[axis]
            spans = sorted({(box[axis], box[axis + 2]) for box in plan.boxes})
            owned = [(a + margin * (a > 0), b - margin * (b < end)) for a, b in spans]
            assert owned[0][0] == 0
            assert owned[-1][1] == end
            assert all(before[1] == after[0] for before, after in itertools.pairwise(owned))
        columns, rows = (len({box[axis] for box in plan.boxes}) for axis in (0, 1))
        assert len(set(plan.boxes)) == columns * rows == len(plan.boxes) <= 12
