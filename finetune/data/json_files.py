"""Rows of JSON in a file: a list of objects, or an object a line.

Only the offsets of rows are kept (24 bytes a row). A JSON array is one value, and has to be parsed once from end to end
to find them, its text in memory meanwhile: gigabytes belong into JSON lines or Parquet.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from soup.errors import FinetuneError
from soup.support.json_text import parse_json

__all__ = ["JsonFileRows", "open_json", "read_array", "read_lines"]

BOM = codecs.BOM_UTF8
CHUNK_BYTES = 2**24
BLANKS = re.compile(r"[ \t\n\r]*")


class JsonFileRows:
    """A file of objects, read one at a time from where each begins and ends, in bytes."""

    def __init__(self, path: Path, begins: np.ndarray, ends: np.ndarray, names: np.ndarray, kind: str):
        self.path, self.root = path, path.parent
        self.begins, self.ends, self.names, self.kind = begins, ends, names, kind
        self.handle: int | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "handle": None}

    def __del__(self) -> None:
        if self.handle is not None:
            os.close(self.handle)

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, i: int) -> dict[str, object]:
        begin, size = int(self.begins[i]), int(self.ends[i] - self.begins[i])
        try:
            row: Any = parse_json(self._read(begin, size), self.path, FinetuneError)
        except FinetuneError as error:  # whoever asked names the file, and the line
            raise ValueError(str(error).removeprefix(f"{self.path}: ").rstrip(".")) from error
        return row

    def _read(self, begin: int, size: int) -> bytes:
        if not hasattr(os, "pread"):
            with self.path.open("rb") as file:
                file.seek(begin)
                return file.read(size)
        if self.handle is None:
            self.handle = os.open(self.path, os.O_RDONLY)
        # Processes that were forked share the handle, but no position in the file.
        return os.pread(self.handle, size, begin)

    def where(self, i: int) -> str:
        """Name the file and the row or line, counted from 1."""
        return f"{self.path}, {self.kind} {int(self.names[i]) + 1}"


def read_array(path: Path) -> JsonFileRows:
    """Open a file with one list of objects.

    Raises:
        FinetuneError: it can't be read, or is something else.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        begins, ends = _elements(text)
    except (OSError, ValueError, RecursionError) as error:
        raise FinetuneError(f"{path}: expected a list of rows in JSON ({error}).") from error
    if not text.isascii():
        begins, ends = _in_bytes(text, begins, ends)
    return JsonFileRows(path, np.array(begins, np.int64), np.array(ends, np.int64), np.arange(len(begins)), "row")


def _elements(text: str) -> tuple[list[int], list[int]]:
    """Where each element of a JSON list begins and ends, in characters; none is kept.

    Raises:
        ValueError: not a list, or not JSON.
    """
    decoder = json.JSONDecoder()
    begins: list[int] = []
    ends: list[int] = []
    at = _after_blanks(text, 1 if text.startswith("\ufeff") else 0)
    if text[at : at + 1] != "[":
        raise ValueError(f"found {type(json.loads(text)).__name__}")
    at = _after_blanks(text, at + 1)
    while text[at : at + 1] != "]" or begins:
        begins.append(at)
        ends.append(decoder.raw_decode(text, at)[1])
        at = _after_blanks(text, ends[-1])
        if text[at : at + 1] != ",":
            break
        at = _after_blanks(text, at + 1)
    if text[at : at + 1] != "]" or _after_blanks(text, at + 1) != len(text):
        raise json.JSONDecodeError("expected , or the end of the list", text, at)
    return begins, ends


def _after_blanks(text: str, at: int) -> int:
    blanks = BLANKS.match(text, at)
    return blanks.end() if blanks else at


def _in_bytes(text: str, begins: list[int], ends: list[int]) -> tuple[list[int], list[int]]:
    """Offsets in characters as offsets in bytes."""
    offsets = [offset for pair in zip(begins, ends, strict=True) for offset in pair]
    gaps = (len(text[a:b].encode()) for a, b in zip([0, *offsets], offsets, strict=False))
    in_bytes = list(accumulate(gaps))
    return in_bytes[::2], in_bytes[1::2]


def read_lines(path: Path) -> JsonFileRows:
    """Open a file with one object a line; empty lines are no rows.

    Raises:
        FinetuneError: it can't be read.
    """
    try:
        return JsonFileRows(path, *_lines(path), "line")
    except OSError as error:
        raise FinetuneError(f"{path}: can't be read ({error.strerror}).") from error


def _lines(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each line that is not blank begins and ends, in bytes, and its number."""
    breaks, offset, short = [], 0, []
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            breaks.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + offset)
            offset += len(chunk)
    ends = np.append(np.concatenate(breaks), offset) if breaks else np.zeros(0, np.int64)
    begins = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1] + 1])
    lines = np.arange(len(ends))
    if len(begins) and _beginning(path).startswith(BOM):
        begins[0] += len(BOM)
    # A row has more characters than these: only shorter lines may be blank.
    with path.open("rb") as file:
        for i in np.flatnonzero(ends - begins < 16):
            file.seek(int(begins[i]))
            short.append((i, file.read(int(ends[i] - begins[i]))))
    full = np.ones(len(ends), bool)
    full[[i for i, text in short if not text.strip()]] = False
    return begins[full], ends[full], lines[full]


def open_json(path: Path) -> JsonFileRows:
    """Open a file of JSON, one object a line or a list: many files are called by the suffix of the other kind.

    Raises:
        FinetuneError: it can't be read, or is neither.
    """
    beginning = _beginning(path)
    if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FinetuneError(f"{path}: expected text in UTF-8, found UTF-16. Save it as UTF-8.")
    text = beginning.removeprefix(BOM).lstrip()
    if re.match(rb"\{\s*\n", text):
        raise FinetuneError(
            f"{path}: expected a list of rows, or one row a line, found an object over several lines. Write each row "
            "into a line of its own; of rows under a key write the list alone."
        )
    is_list = text.startswith(b"[") or (text[:1] not in (b"", b"{") and path.suffix == ".json")
    return read_array(path) if is_list else read_lines(path)


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise FinetuneError(f"{path}: can't be read ({error.strerror}).") from error
