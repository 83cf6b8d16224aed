"""What tools write about rows: a journal that a killed run goes on from, and data sets in JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO

from finetune.config import Columns
from finetune.data.source_rows import plain_json
from soup.errors import FinetuneError, OutputError
from soup.support.atomic_files import atomic_file, make_folders
from soup.support.file_lock import FileLock
from soup.support.json_text import parse_json_object

__all__ = ["RowJournal", "check_out", "first_reasons", "moved_row", "write_lines"]

LONGEST_SHOWN = 60  # characters of a fact
PICTURE_KEYS = ("image", "images", "video", "videos", "image_url", "url", "path")


class RowJournal:
    """What is known of rows by their identity, in JSON lines; the first tells what all of it depends on.

    A line that a kill tore is a row that is done again. It is a context manager around what adds to it and around what
    is made of it, which one run at a time does.

    Args:
        path: The file.
        facts: What every line depends on.

    Raises:
        FinetuneError: the file is of other facts, or something else.
    """

    def __init__(self, path: Path, facts: Mapping[str, object]):
        self.path, self.facts = path, {"schema": 1, **facts}
        self.rows: dict[str, dict[str, object]] = {}
        self._file: IO[str] | None = None
        self._is_begun = self._is_torn = False
        if path.exists() and not path.is_file():
            raise FinetuneError(f"{path}: expected a file, or nothing.")
        self._version: tuple[int, ...] = ()
        self._lock: FileLock | None = None
        if path.exists():
            self._read()

    def __enter__(self) -> RowJournal:
        make_folders(self.path.parent)
        self._lock = FileLock.take(self.path.with_name(f".{self.path.name}.lock"), temporary=True)
        if self._lock is None:
            raise OutputError(f"{self.path}: another run is writing it just now. Wait for it, or name another output.")
        try:
            if self.path.exists() and _version(self.path) != self._version:  # another run wrote since
                self._read()
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def _open(self) -> None:
        with _named_errors(self.path):
            self._file = self.path.open("a" if self._is_begun else "w", encoding="utf-8")
            self._file.write("\n" * self._is_torn if self._is_begun else _line(self.facts))
            self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        assert self._lock is not None
        try:
            if self._file is not None:
                with suppress(OSError):  # of the line that could not be written, which is told already
                    self._file.close()
        finally:
            self._lock.release()

    def replace(self, lines: Iterable[object]) -> None:
        """Write the whole file anew: its facts, and these lines."""
        assert self._file is not None
        self._file.close()
        write_lines(self.path, chain([self.facts], lines))

    def add(self, identity: str, values: Mapping[str, object]) -> None:
        """Append what is now known of a row. Not synced: it outlives the process, if not the machine."""
        assert self._file is not None
        row = {"id": identity, **values}
        with _named_errors(self.path):
            self._file.write(_line(row))
            self._file.flush()
        self.rows[identity] = row

    def _read(self) -> None:
        self._version, self._is_begun, self._is_torn = _version(self.path), False, False
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                self._is_torn = not line.endswith(b"\n")
                if number == 0 and self._is_torn:
                    return  # nothing but a part of the facts
                try:
                    row = parse_json_object(line, self.path, FinetuneError)
                except FinetuneError:
                    row = {}
                if number == 0:
                    self._refuse_other(row)
                    self._is_begun = True
                elif isinstance(identity := row.get("id"), str):
                    self.rows[identity] = row

    def _refuse_other(self, facts: Mapping[str, object]) -> None:
        if facts == self.facts:
            return
        known = {**facts, **self.facts}
        differ = [
            f"{key} was {_shown(facts.get(key))}, is {_shown(self.facts.get(key))}"
            for key in known
            if facts.get(key) != self.facts.get(key)
        ]
        raise FinetuneError(
            f"{self.path}: was made otherwise ({'; '.join(differ)}); remove it, or name another output."
        )


def _version(path: Path) -> tuple[int, ...]:
    """Differ between two states of a file."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _shown(value: object) -> str:
    return "not set" if value is None else f"{value}"[:LONGEST_SHOWN]


def first_reasons(failures: Mapping[int, str]) -> str:
    """Give the first few reasons why rows failed, each once."""
    return "; ".join(reason.rstrip(".") for reason in list(dict.fromkeys(failures.values()))[:3])


def check_out(out: Path, journal: Path) -> None:
    """Refuse an output that is of no known form, or that another command made.

    Raises:
        OutputError: of another suffix, a directory, or a file without a journal beside it.
    """
    if out.suffix not in (".jsonl", ".ndjson"):
        raise OutputError(f"{out}: expected a name that ends in .jsonl: rows are written as JSON lines.")
    if out.exists() and not journal.exists():
        raise OutputError(f"{out}: exists, and no earlier run of this command made it. Name another output.")


def write_lines(path: Path, rows: Iterable[object]) -> None:
    """Write JSON lines; the file has its name when it is whole, and on the disk."""
    with atomic_file(path) as file:
        for row in rows:
            file.write(_line(row).encode())


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Let errors of writing say where: the system names no file then."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def moved_row(raw: Mapping[str, object], root: Path, folder: Path, columns: Columns | None = None) -> dict[str, object]:
    """Give a row for a file in another folder: relative paths of its pictures lead to the same files from there.

    Args:
        raw: the row.
        root: where its relative paths start.
        folder: of the new file.
        columns: its own names of what formats have.
    """
    named = columns.model_dump(exclude_none=True) if columns else {}
    pictures = {*PICTURE_KEYS, *(theirs for ours, theirs in named.items() if ours in PICTURE_KEYS)}
    return {key: _moved(value, key in pictures, root, folder) for key, value in raw.items()}


def _moved(value: object, is_picture: bool, root: Path, folder: Path) -> object:
    if isinstance(value, Mapping):
        return {key: _moved(item, key in PICTURE_KEYS, root, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(item, is_picture, root, folder) for item in value]
    # os.path's is False, not an error, for a name that no file can have
    if is_picture and isinstance(value, str) and value and os.path.exists(root / value):  # noqa: PTH110  # see sources.py
        return value if os.path.isabs(value) else _from_folder(root / value, folder)  # noqa: PTH117  # as above
    return plain_json(value)


def _from_folder(path: Path, folder: Path) -> str:
    """Give the way from a folder to a file; `..` leads out of what a linked folder links to, not to where it lies."""
    return os.path.relpath(path.parent.resolve() / path.name, folder.resolve())  # pathlib has no ..


def _line(row: object) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
