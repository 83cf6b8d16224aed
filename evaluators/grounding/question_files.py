"""Files of questions: JSON, JSON lines, or a folder of ScreenSpot's. What a row holds says what is asked.

    boxes       {"image": "a.png", "question": "Where is the cat?", "boxes": [[x1, y1, x2, y2], ...]}, or of several
                phrases {"boxes": {"the cat": [[...]], "a dog": [[...], [...]]}}
    points      {"image": "a.png", "question": "Point to the cats.", "points": [[x, y], ...], "radius": 10}, or instead
                of a radius "masks": ["m1.png", ...], one for each point, white where it hits; no points: nothing there
    interfaces  ScreenSpot's {"img_filename", "bbox": [x, y, width, height], "instruction", "data_type", "data_source"}

All numbers are pixels of the image. Images lie beside the file, or in `screenspot_imgs` there. `id` names a question;
by default that is its number. What stands before a slash in it is a group, which `--split` never divides.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from evaluators.answering.file_digest import file_digest
from finetune.coordinates.regions import Box, Point, Size
from soup.errors import EvaluatorError
from soup.support.json_text import parse_json, read_json
from soup.support.text import bullet_list

__all__ = ["Kind", "Question", "QuestionFile"]

Kind = Literal["boxes", "points", "interfaces"]
KEYS: dict[str, Kind] = {"bbox": "interfaces", "points": "points", "boxes": "boxes"}
INSTRUCTION = (
    'In this UI screenshot, what is the position of the element corresponding to the command "{}" (with point)?'
)
PLATFORMS = {
    **dict.fromkeys(["ios", "android", "mobile"], "mobile"),
    **dict.fromkeys(["windows", "macos", "desktop"], "desktop"),
    **dict.fromkeys(["gitlab", "shop", "forum", "tool", "web"], "web"),
}
ELEMENTS = {"text": "text", "icon": "icon", "widget": "icon"}
"""ScreenSpot counts icons and widgets together."""


@dataclass(frozen=True)
class Question:
    """What is asked of one image, and what is right.

    Args:
        index: Its name.
        image: The file.
        text: The question.
        size: Width and height of the image.
        boxes: By phrase, fractions of the image; of an interface the one element.
        points: Fractions of the image.
        radius: In pixels, within which a point hits where there are no masks.
        masks: Files, one for each point.
        cell: Of an interface: platform and element.
    """

    index: str
    image: Path
    text: str
    size: Size
    boxes: tuple[tuple[str, tuple[Box, ...]], ...] = ()
    points: tuple[Point, ...] = ()
    radius: float = 0.0
    masks: tuple[Path, ...] = ()
    cell: str = ""


class QuestionFile:
    """The questions of a file, all of one kind.

    Raises:
        EvaluatorError: it is not there or can't be read, or rows are wrong; all are listed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = list(_rows(path))
        kinds = {KEYS[key] for _, row in rows for key in row if key in KEYS}
        if len(kinds) != 1:
            shown = f"found {' and '.join(sorted(kinds))} in one file" if kinds else "found none of them"
            raise EvaluatorError(f"{path}: expected rows with boxes, points or ScreenSpot's bbox; {shown}.")
        (self.kind,) = kinds
        self.questions, faults = [], []
        for number, (file, row) in enumerate(rows, 1):
            try:
                self.questions.append(_question(row, str(row.get("id", number)), file.parent, self.kind))
            except (ValueError, TypeError, KeyError, AttributeError, OSError, EvaluatorError) as error:
                faults.append(f"row {number}: {type(error).__name__}: {error}")
        twice = [index for index, count in Counter(q.index for q in self.questions).items() if count > 1]
        faults += [f"the id {index} stands twice" for index in twice]
        if faults or not self.questions:
            raise EvaluatorError(f"{path}: rows that can't be asked:\n{bullet_list(faults or ['there is none'])}")

    @cached_property
    def digest(self) -> str:
        """A digest of all questions, with the bytes of images and masks."""
        whole = hashlib.sha256()
        for q in self.questions:
            files = [file_digest(path) for path in (q.image, *q.masks)]
            whole.update(repr((q.index, q.text, q.size, q.boxes, q.points, q.radius, q.cell, files)).encode())
        return whole.hexdigest()


def _rows(path: Path) -> Iterator[tuple[Path, Mapping[str, object]]]:
    files = sorted(path.glob("screenspot*.json")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise EvaluatorError(f"{path}: expected a file of questions, or a folder with ScreenSpot's screenspot_*.json.")
    for file in files:
        if file.suffix in (".jsonl", ".ndjson"):
            lines = file.read_bytes().splitlines()
            rows: object = [parse_json(line, file, EvaluatorError) for line in lines if line.strip()]
        else:
            rows = read_json(file, EvaluatorError)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise EvaluatorError(f"{file}: expected a list of objects, or one object a line in a .jsonl file.")
        for row in rows:
            # the name of ScreenSpot's file says the platform where a row does not
            platform = re.search("mobile|desktop|web", file.name)
            yield file, {"data_source": platform[0], **row} if platform and "bbox" in row else row


def _question(row: Mapping[str, object], index: str, folder: Path, kind: Kind) -> Question:
    from finetune.media.images import size_of

    name = str(row["img_filename"] if kind == "interfaces" else row["image"])
    image = folder / name
    if not image.is_file():
        image = folder / "screenspot_imgs" / name
    size = size_of(image)
    if kind == "interfaces":
        text = INSTRUCTION.format(_text(row, "instruction"))
        left, top, width, height = _numbers(row["bbox"], 4)
        box = _box([left, top, left + width, top + height], size)
        cell = f"{_known(PLATFORMS, row, 'data_source')} {_known(ELEMENTS, row, 'data_type')}"
        return Question(index, image, text, size, boxes=(("", (box,)),), cell=cell)
    text = _text(row, "question")
    if kind == "boxes":
        return Question(index, image, text, size, boxes=tuple(_phrases(row["boxes"], size)))
    listed = row["points"] if isinstance(row["points"], list) else [row["points"]]
    points = tuple(Point(x / size[0], y / size[1]) for x, y in (_numbers(point, 2) for point in listed))
    return _pointing(Question(index, image, text, size, points=points), row, folder)


def _phrases(boxes: object, size: Size) -> Iterator[tuple[str, tuple[Box, ...]]]:
    named = boxes if isinstance(boxes, dict) else {"": boxes}
    for phrase, of_phrase in named.items():
        if not isinstance(of_phrase, list) or not of_phrase:
            raise ValueError(f"expected at least one box for each phrase, found {of_phrase!r:.80}")
        yield phrase, tuple(_box(box, size) for box in of_phrase)
    if not named:
        raise ValueError("expected at least one phrase with its boxes")


def _known(names: Mapping[str, str], row: Mapping[str, object], key: str) -> str:
    value = str(row[key]).strip().lower()
    if value not in names:
        raise ValueError(f"{key}: expected one of {', '.join(names)}, found {value!r:.80}")
    return names[value]


def _pointing(question: Question, row: Mapping[str, object], folder: Path) -> Question:
    if "masks" not in row:
        (radius,) = _numbers([row["radius"] if question.points else row.get("radius", 1)], 1)
        return replace(question, radius=radius)
    masks = row["masks"]
    if not isinstance(masks, list) or len(masks) != len(question.points):
        raise ValueError(f"expected a mask for each of {len(question.points)} points")
    files = tuple(folder / str(mask) for mask in masks)
    if missing := [str(file) for file in files if not file.is_file()]:
        raise ValueError(f"no such mask: {', '.join(missing[:3])}")
    return replace(question, masks=files)


def _text(row: Mapping[str, object], key: str) -> str:
    if not isinstance(row[key], str) or not str(row[key]).strip():
        raise ValueError(f"expected a text as {key}")
    return str(row[key])


def _numbers(values: object, count: int) -> Sequence[float]:
    if not isinstance(values, list) or len(values) != count or not all(type(v) in (int, float) for v in values):
        raise ValueError(f"expected {count} numbers, found {values!r:.80}")
    return values


def _box(values: object, size: Size) -> Box:
    left, top, right, bottom = _numbers(values, 4)
    if right < left or bottom < top:
        raise ValueError(f"a box that ends before it begins: {values!r:.80}")
    return Box(left / size[0], top / size[1], right / size[0], bottom / size[1])
