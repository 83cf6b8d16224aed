"""What a tiling is: from the size of an image, which tiles are cut of it. Numbers alone, no pixels.

Each tiling is a frozen dataclass in a file of its own. Its fields are its parameters, which a checkpoint's processor
saves by name; the side of a tile is not among them, because the encoders fix it.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = [
    "LATER",
    "Box",
    "Grid",
    "Single",
    "Size",
    "Thumbnail",
    "TilePlan",
    "Tiling",
    "centred",
    "check_parameters",
    "check_positive",
    "grids",
    "size_within",
]

Size = tuple[int, int]  # width, height
Grid = tuple[int, int]  # columns, rows
LATER = {"later": True}  # of a parameter that was not there at first: a checkpoint's files name it where it is changed
Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are the first pixels outside


@dataclass(frozen=True)
class Thumbnail:
    """The whole image in one tile: resized to `size`, black around it where that is smaller than the tile.

    It goes before or after the tiles (`first`), and is made of the image as it came or of the `resized` one.
    """

    size: Size
    first: bool = False
    of_resized: bool = False


@dataclass(frozen=True)
class TilePlan:
    """What is done to one image, in this order.

    It is resized to each of `sizes` in turn, laid on a black canvas (`canvas`) with its upper left pixel at `corner`,
    and the tiles are cut from the canvas at `boxes`. Without `canvas` they are cut from the resized image itself.

    With `margin` the tokens of so many pixels are dropped at each side at which a tile overlaps another one.
    """

    sizes: tuple[Size, ...]
    boxes: tuple[Box, ...]
    canvas: Size | None = None
    corner: tuple[int, int] = (0, 0)
    thumbnail: Thumbnail | None = None
    margin: int | None = None

    def __len__(self) -> int:
        """Tiles that the image becomes, the thumbnail among them."""
        return len(self.boxes) + (self.thumbnail is not None)


@dataclass(frozen=True)
class Tiling(ABC):
    """Which tiles are cut of an image of a size.

    Whatever the size: every box has sides of `tile`, lies within the canvas, and the boxes go row by row.
    """

    name: ClassVar[str]

    @abstractmethod
    def plan(self, width: int, height: int, tile: int) -> TilePlan:
        """Give what is done to an image.

        Args:
            width: of the image, in pixels.
            height: of the image, in pixels.
            tile: side of a tile, in pixels, as the encoders take it.

        Raises:
            ValueError: a side is not positive.
            FinetuneError: the tiling's parameters don't go with tiles of this size.
        """


@dataclass(frozen=True)
class Single(Tiling):
    """The whole image squashed into one tile, and no thumbnail: it would be the tile again."""

    name: ClassVar[str] = "single"

    def plan(self, width: int, height: int, tile: int) -> TilePlan:
        """Give one box, all of it."""
        check_positive(width, height, tile)
        return TilePlan(sizes=((tile, tile),), boxes=((0, 0, tile, tile),))


def check_positive(*sizes: int) -> None:
    """Raise ValueError unless all are at least 1."""
    if min(sizes) < 1:
        raise ValueError(f"expected positive sizes, found {', '.join(map(str, sizes))}.")


def check_parameters(tiling: Tiling, least: Mapping[str, int]) -> None:
    """Raise FinetuneError for numbers below the `least` of their names, and for flags that are no true or false."""
    values = {name: getattr(tiling, name) for name in least}
    faults = [
        f"{name}: expected a whole number of at least {least[name]}, found {value!r}"
        for name, value in values.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < least[name]
    ]
    flags = {
        field.name: getattr(tiling, field.name)
        for field in dataclasses.fields(tiling)
        if isinstance(field.default, bool)
    }
    faults += [f"{name}: expected true or false, found {v!r}" for name, v in flags.items() if not isinstance(v, bool)]
    if faults:
        raise FinetuneError(f"tiling {tiling.name}:\n{bullet_list(faults)}")


def grids(least: int, most: int) -> list[Grid]:
    """Give all grids (columns, rows) of `least` to `most` tiles: those of few tiles first, then those of few rows."""
    return [(n // rows, rows) for n in range(least, most + 1) for rows in range(1, n + 1) if n % rows == 0]


def size_within(width: int, height: int, canvas: Size, *, up: bool = False) -> Size:
    """Give the largest size of the image's aspect ratio on a canvas.

    One side fills it; the other is rounded down, or `up`, by integers: a product that is whole stays whole.
    """
    wide, high = canvas
    rounding = 1 if up else 0
    if wide * height <= high * width:
        return wide, max(1, min(high, (height * wide + rounding * (width - 1)) // width))
    return max(1, min(wide, (width * high + rounding * (height - 1)) // height)), high


def centred(size: Size, canvas: Size) -> tuple[int, int]:
    """Give left and top of a picture in the middle of a canvas; an odd pixel that is left over goes right and below."""
    return (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
