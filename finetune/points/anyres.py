"""AnyRes: the grid that suits the image best, of all grids of `min_tiles` to `max_tiles` tiles that do not overlap.

    W, H   the image        r   the side of a tile        (c, k)   columns and rows of a grid, n = c k tiles
    s = min(c r / W, k r / H), the scale at which the image just fits into the grid

Three rules, each by its paper, compared as integers (s is in the order of min(c H, k W); with s W x s H the image's
area is r^2 min(c H, k W)^2 / (W H), so that padding is r^2 / (W H) times n W H - min(c H, k W)^2):

- `mm1.5`: of the grids that cover the image (s >= 1) the one with the least padding, n r^2 - (s W)(s H). Where none
  does, the one that shrinks the image least, and of those the one with the least padding.
  Source: MM1.5, arXiv 2409.20566, section 3.5, equation 1; (4, 9) tiles, the overview after the tiles.
- `llava-next`: the most effective pixels, min(s W x s H, W H) with both sides rounded down; then the fewest others.
  Source: LLaVA-NeXT (llava-vl.github.io, 30 January 2024); its code puts the overview first, as
  `thumbnail_first` does.
- `internvl`: the nearest aspect ratio, |W / H - c / k|; of equally near ones the largest of which the image fills more
  than half (2 W H > n r^2), or else the smallest.
  Source: InternVL 1.5, arXiv 2404.16821, section 3.2 "dynamic high resolution"; 1 to 12 tiles; no overview of one tile.

`mm1.5` and `llava-next` keep the aspect ratio: the image fills the grid in one direction, is rounded up in the other,
and lies in the middle of black padding. `internvl` stretches it to the whole grid, without padding. Either way no pixel
of the resized image is lost. The overview is the image squashed into one tile, as LLaVA-NeXT and InternVL do it; MM1.5
leaves it open. Of equals the grid of fewer tiles wins, then the one of fewer rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from finetune.points.tiling import (
    Grid,
    Thumbnail,
    TilePlan,
    Tiling,
    centred,
    check_parameters,
    check_positive,
    grids,
    size_within,
)
from soup.errors import FinetuneError
from soup.support.text import did_you_mean

__all__ = ["AnyRes", "anyres_grid"]


Rank = tuple[int | Fraction, ...]
"""The smallest one wins."""


def _least_padding(grid: Grid, width: int, height: int, tile: int) -> Rank:
    columns, rows = grid
    fit = min(columns * height, rows * width)
    padding = columns * rows * width * height - fit * fit
    covers = columns * tile >= width and rows * tile >= height
    return (0, padding) if covers else (1, -fit, padding)


def _most_effective(grid: Grid, width: int, height: int, tile: int) -> Rank:
    canvas = grid[0] * tile, grid[1] * tile
    wide, high = size_within(width, height, canvas)
    effective = min(wide * high, width * height)
    return -effective, canvas[0] * canvas[1] - effective


def _nearest_ratio(grid: Grid, width: int, height: int, tile: int) -> Rank:
    columns, rows = grid
    tiles = columns * rows
    distance = Fraction(abs(width * rows - columns * height), rows)
    return (distance, 0, -tiles) if 2 * width * height > tiles * tile * tile else (distance, 1, tiles)


RULES: dict[str, Callable[[Grid, int, int, int], Rank]] = {
    "internvl": _nearest_ratio,
    "llava-next": _most_effective,
    "mm1.5": _least_padding,
}


def anyres_grid(
    width: int, height: int, *, tile: int = 336, min_tiles: int = 4, max_tiles: int = 9, rule: str = "mm1.5"
) -> Grid:
    """Choose columns and rows of the grid that suits the image best by one of the rules above.

    Raises:
        ValueError: a size is not positive.
    """
    check_positive(width, height, tile)
    return min(grids(min_tiles, max_tiles), key=lambda grid: RULES[rule](grid, width, height, tile))


@dataclass(frozen=True)
class AnyRes(Tiling):
    """A grid of tiles side by side, and the overview, last unless `thumbnail_first`; see the top of this file."""

    name: ClassVar[str] = "anyres"

    min_tiles: int = 4
    max_tiles: int = 9
    rule: str = "mm1.5"
    single_thumbnail: bool = True
    thumbnail_first: bool = False

    def __post_init__(self) -> None:
        check_parameters(self, {"min_tiles": 1, "max_tiles": 1})
        if self.min_tiles > self.max_tiles:
            raise FinetuneError(f"tiling anyres: min_tiles {self.min_tiles} is more than max_tiles {self.max_tiles}.")
        if self.rule not in RULES:
            raise FinetuneError(f"tiling anyres: there is no rule {self.rule!r}.{did_you_mean(str(self.rule), RULES)}")

    def plan(self, width: int, height: int, tile: int) -> TilePlan:
        """Give a grid without overlap, and the overview."""
        columns, rows = anyres_grid(
            width, height, tile=tile, min_tiles=self.min_tiles, max_tiles=self.max_tiles, rule=self.rule
        )
        canvas = columns * tile, rows * tile
        size = canvas if self.rule == "internvl" else size_within(width, height, canvas, up=True)
        tops, lefts = range(0, canvas[1], tile), range(0, canvas[0], tile)
        boxes = tuple((left, top, left + tile, top + tile) for top in tops for left in lefts)
        whole = Thumbnail((tile, tile), first=self.thumbnail_first)
        shown = len(boxes) > 1 or self.single_thumbnail
        return TilePlan((size,), boxes, canvas, centred(size, canvas), whole if shown else None)
