"""How families of models write points and boxes into texts: each a pattern that finds them, and a function that writes.

    brackets     the cat [10, 20, 300, 400]                      boxes and points; the phrase is not marked
    parentheses  the cat (0.01,0.02,0.30,0.40)                   likewise
    points       <point x="61.5" y="40.4" alt="A">L</point>, <points x1= y1= x2= y2= ...>L</points>     points alone
    coords       <points coords="1 1 615 404 2 ...">L</points>: the image's number, then number, x, y of each point;
                 of several images separated by tabs
    ref-box      <ref>L</ref><box>(x1,y1),(x2,y2)</box>, a point as (x,y) alone
    ref-box-2    <|object_ref_start|>L<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>
    box-list     <ref>L</ref><box>[[x1, y1, x2, y2], ...]</box>
    click        pyautogui.click(x=0.62, y=0.40)                 points alone; the phrase is not marked
    json         [{"bbox_2d": [x1, y1, x2, y2], "label": "L"}, ...], or point_2d; with or without a fence of ```json

Numbers are passed on as they are written: what they mean is the convention's business (`conventions.py`).

Source: Ferret-UI (arXiv 2404.05719), SeeClick (2401.10935), Molmo (2409.17146), Qwen-VL (2308.12966), Qwen2-VL
(2409.12191), Qwen2.5-VL (2502.13923), InternVL 1.5 (2404.16821), and the public code of each and of Molmo2.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from finetune.coordinates.regions import CoordinateError
from soup.errors import FinetuneError
from soup.support.json_text import parse_json

__all__ = ["SPELLINGS", "Mark", "Numbers", "Spelling"]

NUMBER = r"-?\d{1,9}(?:\.\d{1,12})?"
_NUMBERS = re.compile(NUMBER)


@dataclass(frozen=True)
class Numbers:
    """A point (two numbers) or a box (four), as texts, and the number of its image."""

    texts: tuple[str, ...]
    image: int = 1


@dataclass(frozen=True)
class Mark:
    """A phrase with its points or boxes, as they are written."""

    regions: tuple[Numbers, ...]
    label: str = ""
    alt: str = ""


@dataclass(frozen=True)
class Spelling:
    """One way to write points and boxes.

    Args:
        pattern: Finds what looks like a mark or several, right or wrong.
        read: Makes marks of what the pattern found; raises CoordinateError.
        write: Makes the text of marks that follow each other.
        boxes: Whether boxes can be written.
        images: Whether the number of an image is written.
        marks_phrases: Whether a text says which words a point or box is of.
    """

    pattern: re.Pattern[str]
    read: Callable[[re.Match[str]], Sequence[Mark]]
    write: Callable[[Sequence[Mark]], str]
    boxes: bool = True
    images: bool = False
    marks_phrases: bool = True


def _bare(opening: str, closing: str, comma: str) -> Spelling:
    """Make the spelling of numbers between brackets, after a phrase that nothing marks."""
    inside = rf"\s*{NUMBER}(?:\s*,\s*{NUMBER})+\s*"

    def read(match: re.Match[str]) -> list[Mark]:
        return [Mark((_point_or_box(_NUMBERS.findall(match[0]), match[0]),))]

    def write(marks: Sequence[Mark]) -> str:
        return ", ".join(
            " ".join([mark.label] * bool(mark.label) + [", ".join(map(shown, mark.regions))]) for mark in marks
        )

    def shown(region: Numbers) -> str:
        return opening + comma.join(region.texts) + closing

    return Spelling(re.compile(re.escape(opening) + inside + re.escape(closing)), read, write, marks_phrases=False)


def _point_or_box(numbers: Sequence[str], shown: str, image: int = 1) -> Numbers:
    if len(numbers) not in (2, 4):
        raise CoordinateError(f"{shown:.80}: expected 2 numbers (a point) or 4 (a box), found {len(numbers)}")
    return Numbers(tuple(numbers), image)


_ATTRIBUTE = re.compile(r'(\w+)\s*=\s*"([^"]*)"')


def _read_points(match: re.Match[str]) -> list[Mark]:
    attributes = dict(_ATTRIBUTE.findall(match["attributes"]))
    names = ["", *map(str, range(1, len(attributes)))]
    pairs = [(attributes[f"x{n}"], attributes[f"y{n}"]) for n in names if {f"x{n}", f"y{n}"} <= attributes.keys()]
    wrong = [text for pair in pairs for text in pair if not re.fullmatch(NUMBER, text.strip())]
    coordinates = sum(re.fullmatch(r"[xy]\d*", name) is not None for name in attributes)
    if not pairs or wrong or coordinates != 2 * len(pairs):
        raise CoordinateError(f'{match[0]:.80}: expected x="..." and y="...", or x1, y1, x2, y2 and so on, all numbers')
    regions = tuple(Numbers((x.strip(), y.strip())) for x, y in pairs)
    return [Mark(regions, html.unescape(match["label"]), html.unescape(attributes.get("alt", "")))]


def _write_points(marks: Sequence[Mark]) -> str:
    return "".join(map(_points_tag, marks))


def _points_tag(mark: Mark) -> str:
    several = len(mark.regions) > 1
    numbered = [(region.texts, str(n) if several else "") for n, region in enumerate(mark.regions, 1)]
    attributes = " ".join(f'x{n}="{texts[0]}" y{n}="{texts[1]}"' for texts, n in numbered)
    name = "points" if several else "point"
    alt = html.escape(mark.alt or mark.label)
    return f'<{name} {attributes} alt="{alt}">{html.escape(mark.label, quote=False)}</{name}>'


_NUMBERED = re.compile(rf"\d+(?: \d+ {NUMBER} {NUMBER})+")


def _read_coords(match: re.Match[str]) -> list[Mark]:
    attributes = dict(_ATTRIBUTE.findall(match["attributes"]))
    groups = [" ".join(group.split()) for group in re.split(r"[\t:;,]", attributes.get("coords", ""))]
    if not all(map(_NUMBERED.fullmatch, groups)):
        raise CoordinateError(
            f'{match[0]:.80}: expected coords="IMAGE NUMBER X Y NUMBER X Y ...", a tab before each further image'
        )
    regions = []
    for image, *numbers in map(str.split, groups):
        regions += [Numbers((x, y), int(image)) for x, y in zip(numbers[1::3], numbers[2::3], strict=True)]
    return [Mark(tuple(regions), html.unescape(match["label"] or ""))]


def _write_coords(marks: Sequence[Mark]) -> str:
    return "".join(map(_coords_tag, marks))


def _coords_tag(mark: Mark) -> str:
    groups, number = [], 0
    for image, regions in groupby(mark.regions, key=lambda region: region.image):
        points = []
        for region in regions:
            number += 1
            points.append(f"{number} {' '.join(region.texts)}")
        groups.append(f"{image} {' '.join(points)}")
    coords = "\t".join(groups)
    return f'<points coords="{coords}">{html.escape(mark.label, quote=False)}</points>'


def _tagged(ref: tuple[str, str], box: tuple[str, str], *, as_list: bool = False) -> Spelling:
    """Make the spelling of a phrase between tags, and boxes between tags after it."""
    (ref_begin, ref_end), (box_begin, box_end) = ref, box
    label = rf"(?:{re.escape(ref_begin)}(?P<label>(?:(?!{re.escape(ref_end)}).)*){re.escape(ref_end)}\s*)?"
    one_box = rf"{re.escape(box_begin)}.*?{re.escape(box_end)}"
    inside = re.compile(rf"{re.escape(box_begin)}(.*?){re.escape(box_end)}", re.DOTALL)
    bracketed = re.compile(rf"\[\s*{NUMBER}(?:\s*,\s*{NUMBER})*\s*\]")

    def read(match: re.Match[str]) -> list[Mark]:
        texts = inside.findall(match[0])
        pieces = [piece for text in texts for piece in (bracketed.findall(text) if as_list else [text])]
        if not pieces or any(re.sub(rf"{NUMBER}|[\s,()\[\]]", "", text) for text in texts):
            raise CoordinateError(f"{match[0]:.80}: expected numbers between {box_begin} and {box_end}")
        regions = tuple(_point_or_box(_NUMBERS.findall(piece), match[0]) for piece in pieces)
        return [Mark(regions, match["label"] or "")]

    def write(marks: Sequence[Mark]) -> str:
        return "".join(map(tag, marks))

    def tag(mark: Mark) -> str:
        if ref_end in mark.label or ref_begin in mark.label:
            raise CoordinateError(f"{mark.label:.80}: a phrase can't hold {ref_begin} or {ref_end}")
        phrase = f"{ref_begin}{mark.label}{ref_end}" if mark.label else ""
        if as_list:
            boxes = ", ".join(f"[{', '.join(region.texts)}]" for region in mark.regions)
            return f"{phrase}{box_begin}[{boxes}]{box_end}"
        return phrase + "".join(f"{box_begin}{corners(region.texts)}{box_end}" for region in mark.regions)

    def corners(texts: Sequence[str]) -> str:
        return ",".join(f"({x},{y})" for x, y in zip(texts[::2], texts[1::2], strict=True))

    return Spelling(re.compile(rf"{label}{one_box}(?:{one_box})*", re.DOTALL), read, write)


_CLICK = re.compile(rf"(?:pyautogui\.)?(?:click|moveTo|doubleClick|rightClick)\(x=({NUMBER}),\s*y=({NUMBER})[^()]*\)")


def _read_click(match: re.Match[str]) -> list[Mark]:
    return [Mark((Numbers((match[1], match[2])),))]


def _write_click(marks: Sequence[Mark]) -> str:
    regions = [region.texts for mark in marks for region in mark.regions]
    return "\n".join(f"pyautogui.click(x={x}, y={y})" for x, y in regions)


_OBJECT = r'\{[^{}]*"(?:bbox_2d|point_2d)"[^{}]*\}'
_JSON = re.compile(
    rf"```(?:json)?\s*\[?\s*{_OBJECT}(?:\s*,\s*{_OBJECT})*\s*\]?\s*```|\[\s*{_OBJECT}(?:\s*,\s*{_OBJECT})*\s*\]|{_OBJECT}"
)


def _read_json(match: re.Match[str]) -> list[Mark]:
    return [_mark_of(text) for text in re.findall(_OBJECT, match[0])]


def _mark_of(text: str) -> Mark:
    try:
        entry = parse_json(text, "", FinetuneError)
    except FinetuneError as error:
        raise CoordinateError(f"{text:.80}: no JSON") from error
    assert isinstance(entry, dict)
    values = entry.get("bbox_2d", entry.get("point_2d"))
    numbers = [value for value in values if type(value) in (int, float)] if isinstance(values, list) else []
    if numbers != values or len(numbers) != (4 if "bbox_2d" in entry else 2):
        raise CoordinateError(f"{text:.80}: expected bbox_2d of 4 numbers, or point_2d of 2")
    return Mark((Numbers(tuple(map(repr, numbers))),), str(entry.get("label", "")))


def _write_json(marks: Sequence[Mark]) -> str:
    return f"[{', '.join(text for mark in marks for text in _objects(mark))}]"


def _objects(mark: Mark) -> Iterator[str]:
    for region in mark.regions:
        kind = "bbox_2d" if len(region.texts) == 4 else "point_2d"
        label = f', "label": {json.dumps(mark.label, ensure_ascii=False)}' if mark.label else ""
        yield f'{{"{kind}": [{", ".join(region.texts)}]{label}}}'


SPELLINGS = {
    "brackets": _bare("[", "]", ", "),
    "parentheses": _bare("(", ")", ","),
    "points": Spelling(
        re.compile(r"<points?\b(?P<attributes>[^<>]*)>(?P<label>[^<]*)</points?>"),
        _read_points,
        _write_points,
        boxes=False,
    ),
    "coords": Spelling(
        re.compile(r"<(points?|tracks)\b(?P<attributes>[^<>]*?)(?:/>|>(?P<label>[^<]*)</\1>)"),
        _read_coords,
        _write_coords,
        boxes=False,
        images=True,
    ),
    "click": Spelling(_CLICK, _read_click, _write_click, boxes=False, marks_phrases=False),
    "ref-box": _tagged(("<ref>", "</ref>"), ("<box>", "</box>")),
    "ref-box-2": _tagged(("<|object_ref_start|>", "<|object_ref_end|>"), ("<|box_start|>", "<|box_end|>")),
    "box-list": _tagged(("<ref>", "</ref>"), ("<box>", "</box>"), as_list=True),
    "json": Spelling(_JSON, _read_json, _write_json),
}
