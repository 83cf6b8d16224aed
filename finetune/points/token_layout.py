"""Which image tokens the tiles of an image become, in which order, and what marks them in the text.

By default every tile keeps all of its tokens, and they stand tile by tile. Where the margins of overlapping tiles are
dropped, the tokens that are left make one grid of the whole image, read row by row across its tiles; the overview,
before or behind it, stands by itself.

    overview of 2 x 2 tokens, then 2 x 1 tiles of 4 x 4 whose margins are 1 token:  a b   e e e f f f
                                                                                    c d   e e e f f f   (4 rows)

Marks are Molmo's: a token where a grid begins, one behind each of its rows, one where it ends.

Source: Molmo, arXiv 2409.17146, section 2 and appendix; its tokens are called <im_start>, <im_col> and <im_end>, and
vLLM's code of the model has the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from finetune.points.tiling import Grid, TilePlan

__all__ = ["MARKS", "TileLayout", "Tiles", "as_tiles", "grids_of", "layout_of", "token_order", "written"]

GRID_BEGINS, ROW_ENDS, GRID_ENDS = "<|vision_start|>", "<|vision_row_end|>", "<|vision_end|>"
MARKS = (GRID_BEGINS, ROW_ENDS, GRID_ENDS)


class TileLayout(NamedTuple):
    """Tiles of an image that lose their margins: `tiles` in all, a grid of them, and maybe an overview.

    `margin` is what is dropped at each side of a tile that has a neighbour, in pixels.
    """

    tiles: int
    columns: int
    rows: int
    margin: int
    overview_first: bool

    @property
    def has_overview(self) -> bool:
        """Whether one of the tiles shows the whole image."""
        return self.tiles > self.columns * self.rows


Tiles = int | TileLayout
"""What an image's tokens follow from: so many tiles, each by itself, or tiles that make one grid."""


def layout_of(plan: TilePlan) -> Tiles:
    """Give what the tokens of an image follow from, by what is cut of it."""
    if plan.margin is None:
        return len(plan)
    columns, rows = (len({box[axis] for box in plan.boxes}) for axis in (0, 1))
    first = plan.thumbnail is not None and plan.thumbnail.first
    return TileLayout(len(plan), columns, rows, plan.margin, first)


def as_tiles(fields: Sequence[int]) -> Tiles:
    """Give what the image processor told by `layouts` of an image; a video has tiles and no grid."""
    tiles, columns, rows, margin, overview_first = (int(field) for field in fields)
    return TileLayout(tiles, columns, rows, margin, bool(overview_first)) if columns else tiles


def grids_of(tiles: Tiles, side: int, tile: int) -> list[Grid]:
    """Give the grids of tokens (columns, rows) that an image becomes, in the order of the text.

    Args:
        tiles: the image's.
        side: tokens along a tile's side.
        tile: side of a tile, in pixels.
    """
    if isinstance(tiles, int):
        return [(side, side)] * tiles
    margin = tiles.margin * side // tile
    inner = side - 2 * margin
    whole = tiles.columns * inner + 2 * margin, tiles.rows * inner + 2 * margin
    overview = [(side, side)] * tiles.has_overview
    return [*overview, whole] if tiles.overview_first else [whole, *overview]


def token_order(tiles: Tiles, side: int, tile: int) -> np.ndarray:
    """Give the numbers of the tokens that are kept, in the order of the text: those of tile t begin at t side^2.

    Arguments as `grids_of` has them.
    """
    each = side * side
    if isinstance(tiles, int):
        return np.arange(tiles * each)
    first = int(tiles.has_overview and tiles.overview_first)
    margin = tiles.margin * side // tile
    numbers = np.arange(first * each, (first + tiles.columns * tiles.rows) * each)
    grid = numbers.reshape(tiles.rows, tiles.columns, side, side)
    down, across = _kept(tiles.rows, side, margin), _kept(tiles.columns, side, margin)
    joined = grid.transpose(0, 2, 1, 3).reshape(tiles.rows * side, tiles.columns * side)[down][:, across].reshape(-1)
    if not tiles.has_overview:
        return joined
    overview = np.arange(each) + (0 if first else (tiles.tiles - 1) * each)
    return np.concatenate([overview, joined] if first else [joined, overview])


def _kept(tiles: int, side: int, margin: int) -> np.ndarray:
    """Return which rows, or columns, of tokens stay: all but those next to a neighbour."""
    kept = np.ones((tiles, side), bool)
    kept[1:, :margin] = kept[:-1, side - margin :] = False
    return kept.reshape(-1)


def written(grids: list[Grid], image_token: str, *, marks: bool) -> str:
    """Give the text of an image whose tokens make these grids."""
    if not marks:
        return image_token * sum(columns * rows for columns, rows in grids)
    return "".join(GRID_BEGINS + (image_token * columns + ROW_ENDS) * rows + GRID_ENDS for columns, rows in grids)
