"""Points and boxes on an image, as fractions of its width and height, and a text that they stand in.

The whole image is 0 to 1 from its left edge to its right one, and from its top to its bottom: what is said so is right
for any size that the image is resized to, and for any tiles that it is cut into.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Box", "CoordinateError", "Grounding", "Piece", "Point", "Region", "Size", "regions_in"]

Size: TypeAlias = tuple[int, int]  # width, height


class CoordinateError(ValueError):
    """A point or box that can't be read or written as was declared."""


@dataclass(frozen=True)
class Point:
    """A point; `image` counts the images of a prompt from 1."""

    x: float
    y: float
    image: int = 1

    @property
    def values(self) -> tuple[float, ...]:
        """Its numbers in the order in which they are written."""
        return self.x, self.y

    @property
    def center(self) -> Point:
        """The point itself."""
        return self


@dataclass(frozen=True)
class Box:
    """A box from its upper left corner to its lower right one."""

    left: float
    top: float
    right: float
    bottom: float
    image: int = 1

    @property
    def values(self) -> tuple[float, ...]:
        """Its numbers in the order in which they are written."""
        return self.left, self.top, self.right, self.bottom

    @property
    def center(self) -> Point:
        """The point in its middle."""
        return Point((self.left + self.right) / 2, (self.top + self.bottom) / 2, self.image)

    def holds(self, point: Point) -> bool:
        """Whether the point lies in it, edges included."""
        return self.left <= point.x <= self.right and self.top <= point.y <= self.bottom

    def overlap(self, other: Box) -> float:
        """Give the intersection over the union of the areas; 0 where both are empty."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(0.0, width) * max(0.0, height)
        union = self._area + other._area - shared
        return shared / union if union > 0 else 0.0

    @property
    def _area(self) -> float:
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)


Region: TypeAlias = Point | Box


@dataclass(frozen=True)
class Grounding:
    """A phrase and where it is: `label` is what a reader sees, `alt` what Molmo writes beside it (else the label)."""

    regions: tuple[Region, ...]
    label: str = ""
    alt: str = ""


Piece: TypeAlias = str | Grounding
"""Of a text, in its order: words, or a phrase with its points or boxes."""


def region_of(values: tuple[float, ...], image: int = 1) -> Region:
    """Make a point of two numbers, a box of four."""
    if len(values) == 2:
        return Point(values[0], values[1], image)
    left, top, right, bottom = values
    return Box(left, top, right, bottom, image)


def clipped(region: Region) -> Region:
    """Give the part of a region that lies on the image; of a point outside the nearest on its edge."""
    return region_of(tuple(min(1.0, max(0.0, value)) for value in region.values), region.image)


def regions_in(pieces: tuple[Piece, ...]) -> tuple[Region, ...]:
    """Give all points and boxes of a text, in its order."""
    return tuple(region for piece in pieces if isinstance(piece, Grounding) for region in piece.regions)
