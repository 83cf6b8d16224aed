"""CATTY, consistent aspect ratio tiling: the arithmetic, apart from any pixel.

An image of `width` x `height` is resized with its aspect ratio kept, until a grid of `columns` x `rows` square tiles
covers it; neighbouring tiles overlap where the image is smaller than the grid.

Source: POINTS, arXiv 2409.04828, section 3.2, in the form that its authors coded: the printed formula has the
inequality the wrong way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from finetune.points.tiling import Box, Grid, Size, Thumbnail, TilePlan, Tiling, check_parameters

__all__ = ["Catty", "catty_boxes", "catty_grid", "catty_size", "within_ratio"]


def within_ratio(width: int, height: int, *, max_tiles: int = 8) -> Size:
    """Give the size to which an image is squeezed first: its longer side at most `max_tiles` times the other."""
    if width > max_tiles * height:
        return max_tiles * height, height
    if height > max_tiles * width:
        return width, max_tiles * width
    return width, height


def catty_grid(width: int, height: int, *, tile: int = 336, max_tiles: int = 8) -> Grid:
    """Choose columns and rows of the grid whose aspect ratio is nearest to the image's.

    Only grids at least as elongated as the image are candidates, so that the resized image never exceeds its grid.
    Of the grids of the nearest ratio the one nearest in area to the image wins, and of two equally near the smaller.
    Ratios are compared as integer products: no rounding decides.

    Raises:
        ValueError: a side, the tile or the number of tiles is not positive.
    """
    if min(width, height, tile, max_tiles) < 1:
        raise ValueError(f"expected positive sizes, found {width} x {height}, tile {tile}, at most {max_tiles} tiles.")
    width, height = within_ratio(width, height, max_tiles=max_tiles)
    grids = [(a, n // a) for n in range(1, max_tiles + 1) for a in range(1, n + 1) if n % a == 0]
    fitting = [grid for grid in grids if _at_least_as_elongated(grid, width, height)]
    return min(fitting, key=lambda grid: _distance(grid, width, height, tile))


def catty_size(width: int, height: int, grid: Grid, *, tile: int = 336) -> Size:
    """Give width and height to which the image is resized, its aspect ratio kept: one side fills the grid exactly.

    The other is rounded down, as the authors' `int()` does, but by integers: a product that is whole stays whole.
    """
    columns, rows = grid
    if width < height:
        return tile * columns, max(tile, height * tile * columns // width)
    return max(tile, width * tile * rows // height), tile * rows


def catty_boxes(width: int, height: int, *, tile: int = 336, max_tiles: int = 8) -> tuple[Size, list[Box]]:
    """Give the size of the resized image, and its tiles (left, top, right, bottom), row by row.

    A window of `tile` x `tile` slides with stride (side - tile) // (n - 1) along a side of n tiles. Rounding loses at
    most n - 2 pixels at the right or bottom edge.
    """
    width, height = within_ratio(width, height, max_tiles=max_tiles)
    columns, rows = catty_grid(width, height, tile=tile, max_tiles=max_tiles)
    size = catty_size(width, height, (columns, rows), tile=tile)
    lefts, tops = _starts(size[0], columns, tile), _starts(size[1], rows, tile)
    return size, [(left, top, left + tile, top + tile) for top in tops for left in lefts]


def _at_least_as_elongated(grid: Grid, width: int, height: int) -> bool:
    columns, rows = grid
    if width > height:
        return columns * height >= width * rows
    if width < height:
        return columns * height <= width * rows
    return True


def _distance(grid: Grid, width: int, height: int, tile: int) -> tuple[float, int]:
    """How far a grid is from the image: first in aspect ratio, then in area (in units of pixels, to stay whole)."""
    columns, rows = grid
    # |a/b - W/H| times b*H, then divided by b: the common factor 1/H does not change the order.
    ratio = abs(columns * height - width * rows) / rows
    return ratio, abs(columns * rows * tile * tile - width * height)


def _starts(side: int, n: int, tile: int) -> list[int]:
    stride = (side - tile) // (n - 1) if n > 1 else 0
    return [i * stride for i in range(n)]


@dataclass(frozen=True)
class Catty(Tiling):
    """At most `max_tiles` tiles, and the thumbnail last: the resized image squashed into one tile.

    Without `single_thumbnail` an image of one tile gets no thumbnail: it would be the tile again (POINTS adds it all
    the same).
    """

    name: ClassVar[str] = "catty"

    max_tiles: int = 8
    single_thumbnail: bool = True

    def __post_init__(self) -> None:
        check_parameters(self, {"max_tiles": 1})

    def plan(self, width: int, height: int, tile: int) -> TilePlan:
        """Give CATTY's boxes, and the thumbnail."""
        size, boxes = catty_boxes(width, height, tile=tile, max_tiles=self.max_tiles)
        squeezed = within_ratio(width, height, max_tiles=self.max_tiles)
        whole = Thumbnail((tile, tile), of_resized=True)
        shown = len(boxes) > 1 or self.single_thumbnail
        return TilePlan((squeezed, size), tuple(boxes), thumbnail=whole if shown else None)
