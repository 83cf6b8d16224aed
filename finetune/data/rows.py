"""What a row is, whatever file it came from: messages, pictures, and its name in errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import xxhash

from soup.errors import FinetuneError

__all__ = ["KINDS", "Fault", "Message", "Picture", "RowError", "Sample", "Segments", "TrainingRow", "texts_of"]

Segments = list[tuple[str, bool]]
"""Pieces of a conversation, and whether each is to be learnt."""

KINDS = {
    "unreadable": "rows that can't be read",
    "roles": "roles out of order",
    "placeholders": "placeholders that don't match the images",
    "image_token": "the image token written in the text",
    "end_token": "the end of a turn written in the text",
    "empty_answer": "answers that are empty",
    "coordinates": "points or boxes that can't be right",
    "image_missing": "images missing",
    "image_unreadable": "images unreadable",
    "too_long": "rows over max_length",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a row: a key of `KINDS`, and the message."""

    kind: str
    text: str


class RowError(FinetuneError):
    """A row that nothing can be learnt from, with all that is wrong with it."""

    def __init__(self, where: str, faults: Iterable[Fault]):
        self.where, self.faults = where, tuple(faults)
        super().__init__(where, self.faults)

    def __str__(self) -> str:
        return f"{self.where}: {'; '.join(fault.text for fault in self.faults)}"


@dataclass(frozen=True)
class Picture:
    """An image of a row, or a video of at most `frames` frames: not opened yet.

    `source` is a `Path`, bytes, base64 text, or {"bytes", "path"}; of a video also a directory, or a list of those.
    """

    source: object
    where: str
    frames: int | None = None

    @property
    def name(self) -> str:
        """Its name in errors."""
        source = self.source
        path = source.get("path") if isinstance(source, dict) else source if isinstance(source, Path) else None
        shown = f" ({path})" if path is not None and len(str(path)) < 300 else ""
        return f"{self.where}{shown}"

    @cached_property
    def key(self) -> str:
        """Equal for pictures of the same source."""
        return _key(self.source) + (f" {self.frames} frames" if self.frames else "")


class Message(TypedDict):
    """A turn; `content` is text, or parts {"type": "text", "text": ...} and {"type": "image"}."""

    role: str
    content: str | list[dict[str, str]]


class Sample(TypedDict):
    """A row. `images`: one for each image part, in order; `where`: its name in errors; `format`: how it was read."""

    messages: list[Message]
    images: list[Picture]
    where: str
    format: str


class TrainingRow(TypedDict):
    """A row of a run, ready for the `Collator`; `position`: in the whole run."""

    segments: Segments
    images: list[Picture]
    where: str
    position: int


def _key(source: object) -> str:
    if isinstance(source, str | Path):
        return str(source) if len(str(source)) < 4096 else xxhash.xxh3_128_hexdigest(str(source).encode())
    if isinstance(source, dict):
        return _key(source["path"] if source.get("bytes") is None else source["bytes"])
    if isinstance(source, list | tuple):
        return "\n".join(map(_key, source))
    if isinstance(source, bytes | bytearray | memoryview):
        return xxhash.xxh3_128_hexdigest(source)
    raise TypeError(f"a picture can't be made of a {type(source).__name__}")


def texts_of(sample: Sample) -> list[str]:
    """Give the text of each message, without its pictures."""
    return [
        content
        if isinstance(content := message["content"], str)
        else "".join(part["text"] for part in content if part["type"] == "text")
        for message in sample["messages"]
    ]
