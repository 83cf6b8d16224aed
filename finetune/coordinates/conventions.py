"""A convention says what the numbers of a text mean: it is declared for a data set or a model, and never guessed.

    name         numbers               spelling
    mm1.5        0 to 1000             [x1, y1, x2, y2]; the paper says normalised coordinates as text, not which grid
    ferret-ui    0 to 1000             the same
    seeclick     0 to 1, 2 decimals    (x,y)
    pyautogui    0 to 1, 4 decimals    pyautogui.click(x=, y=), what VLMEvalKit's ScreenSpot asks for
    molmo        percent, 1 decimal    <point x= y= alt=>
    molmo2       000 to 1000           <points coords=>; its own code reads numbers of three digits and more
    qwen-vl      0 to 1000             <ref> and <box>
    qwen2-vl     0 to 1000             <|object_ref_start|> and <|box_start|>
    qwen2.5-vl   pixels                JSON; of the image as its processor resizes it, to multiples of 28
    qwen3-vl     0 to 1000             JSON
    internvl     0 to 1000             <ref> and <box>[[...]]</box>

Besides these, any spelling with any unit: `brackets:fraction`, `json:pixels` (of the image as it is), `points:100`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from finetune.coordinates.regions import (
    Box,
    CoordinateError,
    Grounding,
    Piece,
    Region,
    Size,
    clipped,
    region_of,
    regions_in,
)
from finetune.coordinates.spellings import SPELLINGS, Mark, Numbers, Spelling
from soup.support.text import did_you_mean

__all__ = ["CONVENTIONS", "Convention", "Reading", "convert", "named_convention"]


@dataclass(frozen=True)
class Convention:
    """A unit and a spelling.

    Args:
        spelling: A key of `SPELLINGS`.
        scale: What the whole width or height is: 1, 100, 1000; None: as many as there are pixels.
        decimals: Digits after the point.
        resized: Whether pixels are those of the image as Qwen2.5-VL's processor resizes it.
        digits: A number has so many at least, with zeros before it.
    """

    spelling: str
    scale: int | None
    decimals: int = 0
    resized: bool = False
    digits: int = 1

    @property
    def by(self) -> Spelling:
        """Its spelling."""
        return SPELLINGS[self.spelling]

    def extent(self, size: Size | None) -> tuple[float, float]:
        """Give what the whole width and the whole height are.

        Raises:
            CoordinateError: that is the image's size, and there is none.
        """
        if self.scale is not None:
            return self.scale, self.scale
        if size is None:
            raise CoordinateError("coordinates in pixels need the size of the one image that they are of")
        return qwen_size(*size) if self.resized else size

    def read(self, text: str, size: Size | None = None) -> Reading:
        """Find the points and boxes in a text.

        Args:
            text: Of a prompt or an answer.
            size: Width and height of the image, for pixels.

        Raises:
            CoordinateError: coordinates are pixels, and there is no size.
        """
        extent = self.extent(size)
        pieces: list[Piece] = []
        faults: list[str] = []
        end = 0
        for match in self.by.pattern.finditer(text):
            try:
                groundings = [_grounding(mark, extent) for mark in self.by.read(match)]
            except CoordinateError as error:
                faults.append(str(error))
                continue
            pieces += [text[end : match.start()]] * (match.start() > end)
            pieces += groundings
            faults += [fault for item in groundings for region in item.regions for fault in _faults(region, match[0])]
            end = match.end()
        pieces += [text[end:]] * (end < len(text))
        return Reading(tuple(pieces), tuple(faults))

    def write(self, pieces: Sequence[Piece], size: Size | None = None) -> str:
        """Write a text with its points and boxes; what leaves the image is clipped.

        Raises:
            CoordinateError: this spelling has no boxes, or no number of an image; or a size is missing.
        """
        texts = []
        for is_text, group in groupby(pieces, key=lambda piece: isinstance(piece, str)):
            run = list(group)
            texts += (
                [piece for piece in run if isinstance(piece, str)]
                if is_text
                else [self.by.write([self._mark(piece, size) for piece in run if isinstance(piece, Grounding)])]
            )
        return "".join(texts)

    def _mark(self, grounding: Grounding, size: Size | None) -> Mark:
        extent, by = self.extent(size), self.by
        if not by.boxes and any(isinstance(region, Box) for region in grounding.regions):
            raise CoordinateError(f"the spelling {self.spelling} has points alone, found a box ({grounding.label:.40})")
        if not by.images and any(region.image != 1 for region in grounding.regions):
            raise CoordinateError(f"the spelling {self.spelling} has no numbers of images, found a point on another")
        regions = tuple(Numbers(self._texts(region, extent), region.image) for region in grounding.regions)
        return Mark(regions, grounding.label, grounding.alt)

    def _texts(self, region: Region, extent: tuple[float, float]) -> tuple[str, ...]:
        values = clipped(region).values
        return tuple(f"{value * extent[i % 2]:0{self.digits}.{self.decimals}f}" for i, value in enumerate(values))


@dataclass(frozen=True)
class Reading:
    """A text with its points and boxes as fractions, and what is wrong with them; what can't be read is still text."""

    pieces: tuple[Piece, ...]
    faults: tuple[str, ...]

    @property
    def regions(self) -> tuple[Region, ...]:
        """All points and boxes, in the order of the text."""
        return regions_in(self.pieces)


def _grounding(mark: Mark, extent: tuple[float, float]) -> Grounding:
    regions = (
        region_of(tuple(float(text) / extent[i % 2] for i, text in enumerate(numbers.texts)), numbers.image)
        for numbers in mark.regions
    )
    return Grounding(tuple(regions), mark.label, mark.alt)


def _faults(region: Region, shown: str) -> Iterator[str]:
    if any(not 0 <= value <= 1 for value in region.values):
        yield f"{shown:.80}: leaves the image"
    if isinstance(region, Box) and (region.right < region.left or region.bottom < region.top):
        yield f"{shown:.80}: a box that ends before it begins"


def convert(text: str, source: Convention, target: Convention, size: Size | None = None) -> str:
    """Write a text's points and boxes by another convention.

    Raises:
        CoordinateError: the other has no boxes, or a size is missing.
    """
    return target.write(source.read(text, size).pieces, size)


def qwen_size(width: int, height: int, *, multiple: int = 28, least: int = 3136, most: int = 12_845_056) -> Size:
    """Give the size that Qwen2.5-VL's processor resizes an image to: multiples of 28, with `least` to `most` pixels.

    Source: Qwen2.5-VL's published preprocessor_config.json, and transformers' `smart_resize`.
    """
    wide, high = (max(multiple, round(side / multiple) * multiple) for side in (width, height))
    if wide * high > most:
        shrink = math.sqrt(width * height / most)
        return _at_least(math.floor(width / shrink / multiple), multiple), _at_least(
            math.floor(height / shrink / multiple), multiple
        )
    if wide * high < least:
        grow = math.sqrt(least / (width * height))
        return math.ceil(width * grow / multiple) * multiple, math.ceil(height * grow / multiple) * multiple
    return wide, high


def _at_least(count: int, multiple: int) -> int:
    return max(1, count) * multiple


CONVENTIONS = {
    "mm1.5": Convention("brackets", 1000),
    "ferret-ui": Convention("brackets", 1000),
    "seeclick": Convention("parentheses", 1, 2),
    "pyautogui": Convention("click", 1, 4),
    "molmo": Convention("points", 100, 1),
    "molmo2": Convention("coords", 1000, digits=3),
    "qwen-vl": Convention("ref-box", 1000),
    "qwen2-vl": Convention("ref-box-2", 1000),
    "qwen2.5-vl": Convention("json", None, resized=True),
    "qwen3-vl": Convention("json", 1000),
    "internvl": Convention("box-list", 1000),
}
UNITS = {"fraction": (1, 3), "percent": (100, 1), "pixels": (None, 0)}


def named_convention(name: str) -> Convention:
    """Give the convention of a name, or of SPELLING:UNIT (fraction, percent, pixels, or the number of a grid).

    Raises:
        CoordinateError: there is none.
    """
    if name in CONVENTIONS:
        return CONVENTIONS[name]
    spelling, _, unit = name.partition(":")
    if spelling in SPELLINGS and unit in UNITS:
        return Convention(spelling, *UNITS[unit])
    if spelling in SPELLINGS and re.fullmatch(r"[1-9]\d{0,5}", unit):
        return Convention(spelling, int(unit))
    raise CoordinateError(
        f"there is no convention {name!r}.{did_you_mean(name, CONVENTIONS)} Or "
        f"one of {', '.join(SPELLINGS)} with :fraction, :percent, :pixels or the number of a grid, as brackets:100"
    )
