"""Rows of a data set as prompts alone: the first question of each, its pictures and videos. Answers are not needed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from finetune.data.flat_rows import FLAT
from finetune.data.formats import ROLES, TURN_KEYS
from finetune.data.rows import Fault, Picture, RowError
from finetune.data.source_rows import SourceRows
from finetune.media.images import frame_count, frames_of, size_of, video_digest
from finetune.media.sampling import frame_indices
from finetune.media.sources import image_source
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["AskedRow", "asked_rows"]

NO_ANSWER = "-"
BROWSERS_PLAY = {".mp4": re.compile(rb"....ftyp", re.DOTALL), ".webm": re.compile(rb"\x1a\x45\xdf\xa3")}
"""How videos begin that a browser may play; whether it does depends on its codecs, too."""
MOST_VIDEO_BYTES = 200_000_000
"""Of a video that is played: a browser fetches it whole."""
Choose = Callable[[int, int], list[int]]
"""Which frames of a video are shown, of so many, so many at most."""


@dataclass(frozen=True)
class AskedRow:
    """A question.

    Args:
        index: The row's `id`, or its number.
        parts: ("text", words), ("image", a key of `images`) or ("video", a key of `frames`), in their order.
        images: What reads each of its pictures, and each video that a browser may play, by a name made of the content.
        frames: What decodes the frames of each video that are shown, into PNGs, by a name made of content and number.
    """

    index: str
    parts: tuple[tuple[str, str], ...]
    images: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    frames: dict[str, Callable[[], list[bytes]]] = field(default_factory=dict)


def asked_rows(rows: SourceRows, choose: Choose = frame_indices) -> list[AskedRow]:
    """Return the questions of a data set; of several turns the first.

    Args:
        rows: They say how many frames of a video are shown, too.
        choose: Which ones.

    Raises:
        FinetuneError: no rows, rows that can't be read, or ids that stand twice; all are listed.
    """
    questions: dict[str, AskedRow] = {}
    faults = []
    for number in range(len(rows)):
        try:
            row = _read_row(rows, number, choose)
        except FinetuneError as error:
            faults.append(str(error))
            continue
        if row.index in questions:
            faults.append(f"{rows.where(number)}: the id {row.index} stands above, too; expected one for each row")
        questions[row.index] = row
    if faults:
        raise FinetuneError(f"{rows.data_set.path}: rows that can't be asked:\n{bullet_list(faults)}")
    if not questions:
        raise FinetuneError(f"{rows.data_set.path}: no rows in it; expected a question in each.")
    return [*questions.values()]


def _read_row(rows: SourceRows, number: int, choose: Choose) -> AskedRow:
    raw = rows.raw(number)
    if isinstance(raw, Mapping) and not {*raw} & {*TURN_KEYS, *(question for question, _, _ in FLAT.values())}:
        shown = ", ".join(map(str, raw)) or "nothing"
        raise RowError(rows.where(number), [Fault("unreadable", f"expected a `question` or `messages`, found {shown}")])
    sample = rows.sample(number, _with_answer(raw) if isinstance(raw, Mapping) else raw)
    contents = [message["content"] for message in sample["messages"] if message["role"] == "user"]
    if sample["messages"][0]["role"] == "system":
        raise RowError(sample["where"], [Fault("roles", "a system's message, which is not asked here")])
    pictures = iter(sample["images"])
    row = AskedRow(str(raw.get("id", number + 1)), ())
    parts: list[tuple[str, str]] = []
    first = contents[0]
    for part in [{"type": "text", "text": first}] if isinstance(first, str) else first:
        if part["type"] == "image":
            parts.append(_take(row, next(pictures), choose))
        elif text := part["text"].strip():
            parts.append(("text", text))
    if not any(kind == "text" for kind, _ in parts):
        raise RowError(sample["where"], [Fault("unreadable", "a question without words")])
    return replace(row, parts=tuple(parts))


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


def _take(row: AskedRow, picture: Picture, choose: Choose) -> tuple[str, str]:
    """Note how a picture or a video is read, and return it as a part of the question."""
    if not picture.frames:
        name = _name_of(picture)
        row.images[name] = partial(_bytes_of, picture)
        return "image", name
    frame_count(picture.source, picture.frames, name=picture.name)  # what is no video is told by its row's name
    name = f"{video_digest(picture.source, name=picture.name)}-{picture.frames}{_played_as(picture)}"
    row.frames[name] = partial(_frames_of, picture, picture.frames, choose)
    if Path(name).suffix:
        row.images[name] = partial(_bytes_of, picture)
    return "video", name


def _played_as(picture: Picture) -> str:
    """Return the suffix of a video that a browser may play; nothing for others: their frames are shown."""
    if isinstance(picture.source, list):
        return ""
    file = image_source(picture.source, picture.name).file
    if isinstance(file, Path):
        if not file.is_file() or file.stat().st_size > MOST_VIDEO_BYTES:
            return ""
        with file.open("rb") as opened:
            start = opened.read(16)
    else:
        start = file.getvalue()[:16]
    return next((suffix for suffix, begin in BROWSERS_PLAY.items() if begin.match(start)), "")


def _frames_of(picture: Picture, count: int, choose: Choose) -> list[bytes]:
    return [_as_png(frame) for frame in frames_of(picture.source, count, name=picture.name, choose=choose)]


def _as_png(frame: Image.Image) -> bytes:
    data = BytesIO()
    frame.save(data, "PNG")
    return data.getvalue()


def _name_of(picture: Picture) -> str:
    """Return a name made of a picture's bytes and of their format."""
    size_of(picture.source, name=picture.name)  # what is no picture is told by its row's name
    data = _bytes_of(picture)
    with Image.open(BytesIO(data)) as image:
        suffix = (image.format or "").lower()
    return f"{hashlib.sha256(data).hexdigest()}{suffix and f'.{suffix}'}"


def _bytes_of(picture: Picture) -> bytes:
    file = image_source(picture.source, picture.name).file
    return file.getvalue() if isinstance(file, BytesIO) else file.read_bytes()
