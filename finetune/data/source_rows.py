"""Rows of one data set for tools that choose or rewrite them: as in the file, by identity, as question and answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import xxhash

from finetune.config import DataSet
from finetune.data.files import open_file
from finetune.data.formats import read_row
from finetune.data.rows import Fault, Picture, RowError, Sample, texts_of
from finetune.media.images import size_of
from finetune.media.sources import image_source

__all__ = ["Exchange", "SourceRows", "exchange_of", "picture_files", "plain_json", "row_id"]


class SourceRows:
    """The rows of a data set, each read when it is asked for.

    Raises:
        FinetuneError: it can't be opened.
    """

    def __init__(self, data_set: DataSet):
        self.data_set = data_set
        self.file = open_file(data_set)
        self.root = Path(data_set.images) if data_set.images else self.file.root

    def __len__(self) -> int:
        return len(self.file)

    @property
    def facts(self) -> dict[str, object]:
        """What rows mean besides what is in them, as far as it was said."""
        its = self.data_set
        said = its.model_dump(include={"format", "columns"}, exclude_none=True)
        return said | ({"images_from": str(self.root.resolve())} if its.images else {})

    def where(self, i: int) -> str:
        """Name row `i` in errors."""
        return self.file.where(i)

    def reason(self, i: int, error: Exception) -> str:
        """Give what an error says of row `i`, without the row's name."""
        return str(error).removeprefix(self.where(i)).lstrip(":, ")

    def raw(self, i: int) -> dict[str, object]:
        """Give row `i` as it is in the file.

        Raises:
            RowError: it can't be read.
        """
        try:
            return self.file[i]
        except (ValueError, OSError) as error:
            raise RowError(self.where(i), [Fault("unreadable", f"not a row in JSON ({error})")]) from error

    def sample(self, i: int, raw: dict[str, object] | None = None) -> Sample:
        """Give row `i` as a sample; `raw`: what was read of it already.

        Raises:
            RowError: it can't be read.
        """
        raw = self.raw(i) if raw is None else raw
        its = self.data_set
        return read_row(raw, self.where(i), self.root, its.format, its.frames, its.columns)


def row_id(raw: object) -> str:
    """Digest a row's content, wherever it stands."""
    return xxhash.xxh3_128_hexdigest(json.dumps(plain_json(raw), sort_keys=True).encode())


def plain_json(value: object) -> object:
    """Give a value of a table as JSON has it: bytes as base64, NaN as null, other things as text."""
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return str(value)


@dataclass(frozen=True)
class Exchange:
    """A question, its pictures, and the answer to it. `parts`: the question's, a text or None for the next picture."""

    parts: tuple[str | None, ...]
    pictures: tuple[Picture, ...]
    answer: str

    @property
    def question(self) -> str:
        """The question's text."""
        return "".join(part for part in self.parts if part is not None).strip()


def exchange_of(sample: Sample) -> Exchange:
    """Give the one question and answer of a row.

    Raises:
        RowError: several turns, a system's message, or a video.
    """
    messages = sample["messages"]
    faults = []
    if [message["role"] for message in messages] != ["user", "assistant"]:
        roles = ", ".join(message["role"] for message in messages)
        faults.append(Fault("roles", f"expected one question and one answer, found {roles}"))
    if any(picture.frames for picture in sample["images"]):
        faults.append(Fault("image_unreadable", "a video, where pictures are expected"))
    if faults:
        raise RowError(sample["where"], faults)
    content = messages[0]["content"]
    texts = [content] if isinstance(content, str) else [part.get("text") for part in content]
    parts = [text.strip() if text is not None else None for text in texts]
    return Exchange(tuple(part for part in parts if part != ""), tuple(sample["images"]), texts_of(sample)[1].strip())


@contextmanager
def picture_files(pictures: tuple[Picture, ...], folder: Path, name: str) -> Iterator[list[str]]:
    """Give the path of a file for each picture, for the time of a `with`; those of bytes are written to `folder`.

    Raises:
        FinetuneError: there is no such file, or no whole picture in it.
    """
    written = []
    try:
        paths = []
        for k, picture in enumerate(pictures):
            size_of(picture.source, name=picture.name)  # what is no picture is told by its row's name
            file = image_source(picture.source, picture.name).file
            if not isinstance(file, Path):
                path = folder / f"{name}-{k}"
                path.write_bytes(file.getvalue())
                written.append(path)
                file = path
            paths.append(str(file))
        yield paths
    finally:
        for path in written:
            path.unlink(missing_ok=True)
