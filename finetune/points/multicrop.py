"""Overlapping multi-crop: every tile shows some of its neighbours, so that no letter is cut in two at a border.

    tile = 336, patch = 14, margin = 4 patches: m = 2 x 4 x 14 = 112 pixels, and a window of 336 - 112 = 224

A grid of c x k tiles is cut from a canvas of (224 c + 112) x (224 k + 112) pixels, tiles starting every 224 pixels. So
the last 112 columns of a tile are the first 112 of the tile to its right, and rows likewise; nothing else overlaps.
Each of the two adds 4 patches of context (56 pixels) to the part between the middles of its overlaps, which is its
own: those parts cover the canvas without a gap.

The grid is chosen as if image and tiles were without margins, W' = W - m, H' = H - m, w = tile - m: with the scale
s = min(c w / W', k w / H'), the smallest s >= 1 (least enlarged); where there is none, the largest (least shrunk). Of
equals the grid of fewer tiles wins, then the one of fewer rows. A side of at most m needs nothing in its direction
(Molmo's code divides by what remains there, and takes one tile where that is negative).

The image keeps its aspect ratio, fills the canvas in one direction, is rounded down in the other, and lies in the
middle of black padding. The overview is made the same way in one tile, and goes first, as in Molmo's code, unless
`thumbnail_first` is false.

With `drop_margins` the language model reads each part of the image once: the tokens of the margins are dropped where a
tile has a neighbour, and the rest go row by row over the whole image (`finetune.points.token_layout`), as in Molmo.
Without, a tile keeps all of its tokens.

Source: Molmo, arXiv 2409.17146, section 2 "multi-crop" and appendix; at most 12 crops, 4 patches of margin.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

from finetune.points.tiling import (
    LATER,
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

__all__ = ["MultiCrop", "multicrop_grid"]


def multicrop_grid(width: int, height: int, *, window: int = 224, overlap: int = 112, max_tiles: int = 12) -> Grid:
    """Choose columns and rows of the grid that needs the least enlarging, or else the least shrinking.

    Args:
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        window: Pixels by which neighbouring tiles lie apart.
        overlap: Pixels that neighbouring tiles share.
        max_tiles: The most tiles of a grid.

    Raises:
        ValueError: a size is not positive.
    """
    check_positive(width, height, window)

    def rank(grid: Grid) -> tuple[int, Fraction]:
        scale = min(_scale(grid[0] * window, width - overlap), _scale(grid[1] * window, height - overlap))
        return (0, scale) if scale >= 1 else (1, -scale)

    return min(grids(1, max_tiles), key=rank)


def _scale(canvas: int, side: int) -> Fraction:
    """How much larger the canvas is than the image's side; without bound where nothing is left of that side."""
    return Fraction(canvas, side) if side > 0 else Fraction(10**9)


@dataclass(frozen=True)
class MultiCrop(Tiling):
    """Tiles that overlap, and an overview.

    Args:
        max_tiles: The most tiles beside the overview.
        margin: Neighbouring tiles overlap by twice so many patches.
        patch: The side of a patch, in pixels.
        single_thumbnail: Whether an image of one tile has an overview, too.
        drop_margins: Whether the tokens of margins are dropped where a tile has a neighbour.
        thumbnail_first: Whether the overview comes before the tiles.
    """

    name: ClassVar[str] = "multicrop"

    max_tiles: int = 12
    margin: int = 4
    patch: int = 14
    single_thumbnail: bool = True
    drop_margins: bool = field(default=False, metadata=LATER)
    thumbnail_first: bool = field(default=True, metadata=LATER)

    def __post_init__(self) -> None:
        check_parameters(self, {"max_tiles": 1, "margin": 0, "patch": 1})

    def plan(self, width: int, height: int, tile: int) -> TilePlan:
        """Give a grid whose tiles overlap, and the overview.

        Raises:
            FinetuneError: the margins leave nothing of a tile.
        """
        overlap = 2 * self.margin * self.patch
        window = tile - overlap
        if window < 1:
            raise FinetuneError(
                f"tiling multicrop: two margins of {self.margin} patches of {self.patch} pixels leave nothing of a "
                f"tile of {tile}; give a smaller margin, or the patch of the encoders."
            )
        columns, rows = multicrop_grid(width, height, window=window, overlap=overlap, max_tiles=self.max_tiles)
        canvas = columns * window + overlap, rows * window + overlap
        size = size_within(width, height, canvas)
        starts = [(column * window, row * window) for row in range(rows) for column in range(columns)]
        boxes = tuple((left, top, left + tile, top + tile) for left, top in starts)
        whole = Thumbnail(size_within(width, height, (tile, tile)), first=self.thumbnail_first)
        shown = len(boxes) > 1 or self.single_thumbnail
        margin = self.margin * self.patch if self.drop_margins else None
        return TilePlan((size,), boxes, canvas, centred(size, canvas), whole if shown else None, margin)
