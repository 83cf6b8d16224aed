"""Rows of a data set as prompts alone: the first question of each, with its pictures. Answers are not needed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO

from PIL import Image

from finetune.data.flat_rows import FLAT
from finetune.data.formats import ROLES, TURN_KEYS
from finetune.data.rows import Fault, Picture, RowError
from finetune.data.source_rows import SourceRows
from finetune.media.images import size_of
from finetune.media.sources import image_source
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["AskedRow", "asked_rows"]

NO_ANSWER = "-"


@dataclass(frozen=True)
class AskedRow:
    """A question.

    Args:
        index: The row's `id`, or its number.
        parts: ("text", words) or ("image", a key of `images`), in their order.
        images: What reads each of its pictures, by a name made of their content.
    """

    index: str
    parts: tuple[tuple[str, str], ...]
    images: Mapping[str, Callable[[], bytes]]


def asked_rows(rows: SourceRows) -> list[AskedRow]:
    """Return the questions of a data set; of several turns the first.

    Raises:
        FinetuneError: rows that can't be read, or ids that stand twice; all are listed.
    """
    questions, faults = [], []
    for number in range(len(rows)):
        try:
            questions.append(_asked(rows, number))
        except FinetuneError as error:
            faults.append(str(error))
    twice = [index for index, count in Counter(row.index for row in questions).items() if count > 1]
    faults += [f"the id {index} stands twice" for index in twice]
    if faults:
        raise FinetuneError(f"{rows.data_set.path}: rows that can't be asked:\n{bullet_list(faults)}")
    return questions


def _asked(rows: SourceRows, number: int) -> AskedRow:
    raw = rows.raw(number)
    sample = rows.sample(number, _with_answer(raw) if isinstance(raw, Mapping) else raw)
    contents = [message["content"] for message in sample["messages"] if message["role"] == "user"]
    if sample["messages"][0]["role"] == "system":
        raise RowError(sample["where"], [Fault("roles", "a system's message, which is not asked here")])
    pictures = iter(sample["images"])
    images: dict[str, Callable[[], bytes]] = {}
    parts: list[tuple[str, str]] = []
    first = contents[0]
    for part in [{"type": "text", "text": first}] if isinstance(first, str) else first:
        if part["type"] == "image":
            picture = next(pictures)
            name = _name_of(picture)
            images[name] = partial(_bytes_of, picture)
            parts.append(("image", name))
        elif text := part["text"].strip():
            parts.append(("text", text))
    if not any(kind == "text" for kind, _ in parts):
        raise RowError(sample["where"], [Fault("unreadable", "a question without words")])
    return AskedRow(str(raw.get("id", number + 1)), tuple(parts), images)


def _with_answer(raw: Mapping[str, object]) -> dict[str, object]:
    """Fill what formats want after a question: a row of questions alone has no answer."""
    filled = dict(raw)
    for question, _, answer in FLAT.values():
        if question in raw and not raw.get(answer):
            filled[answer] = NO_ANSWER
    for key in TURN_KEYS:
        turns = raw.get(key)
        if isinstance(turns, list) and turns and isinstance(turns[-1], Mapping):
            speaker = "role" if "role" in turns[-1] else "from"
            if ROLES.get(str(turns[-1].get(speaker))) == "user":
                filled[key] = [*turns, {speaker: "assistant", "value" if speaker == "from" else "content": NO_ANSWER}]
    return filled


def _name_of(picture: Picture) -> str:
    """Return a name made of a picture's bytes and of their format."""
    if picture.frames:
        raise RowError(picture.where, [Fault("image_unreadable", "a video, where pictures are expected")])
    size_of(picture.source, name=picture.name)  # what is no picture is told by its row's name
    data = _bytes_of(picture)
    with Image.open(BytesIO(data)) as image:
        suffix = (image.format or "").lower()
    return f"{hashlib.sha256(data).hexdigest()}{suffix and f'.{suffix}'}"


def _bytes_of(picture: Picture) -> bytes:
    file = image_source(picture.source, picture.name).file
    return file.getvalue() if isinstance(file, BytesIO) else file.read_bytes()
