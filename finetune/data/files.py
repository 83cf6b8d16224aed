"""Rows as they lie in files, read one at a time: a JSON array, JSON lines, or a table of `datasets`.

Of JSON only the offsets of rows are kept (24 bytes a row). A JSON array is one value, and has to be parsed once from
end to end to find them, its text in memory meanwhile: gigabytes belong into JSON lines or Parquet. Parquet and Arrow
are mapped into memory. So worker processes share what there is, and no Python objects are copied into each of them.

Every kind of file is a `RowFile`: a length, rows as dictionaries by index, and what errors call a row. It goes to
worker processes as it is.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from finetune.config import JSON_SUFFIXES, ROW_SUFFIXES, DataSet
from soup.errors import FinetuneError
from soup.support.extras import install_line
from soup.support.json_text import parse_json

__all__ = ["DatasetRows", "JsonFileRows", "RowFile", "open_file", "read_array", "read_lines"]

BOM = codecs.BOM_UTF8
CHUNK_BYTES = 2**24
BLANKS = re.compile(r"[ \t\n\r]*")


class RowFile(Protocol):
    """Rows of one data set."""

    root: Path
    """Where relative paths of images start."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> dict[str, object]:
        """Give row `i` as it is in the file.

        Raises:
            ValueError: it can't be read.
        """

    def where(self, i: int) -> str:
        """Give row `i` a name for errors."""


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


class DatasetRows:
    """A `datasets` table: Parquet, Arrow, a directory that `save_to_disk` made, or a data set of the Hub."""

    def __init__(self, table: Any, name: str, root: Path):
        self.table, self.name, self.root = _undecoded(table), name, root

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> dict[str, object]:
        return self.table[int(i)]

    def where(self, i: int) -> str:
        """Name the table and the row, counted from 1."""
        return f"{self.name}, row {i + 1}"


def _undecoded(table: Any) -> Any:
    """Return the table with images as bytes and path: they are opened as all other images are, by the same rules."""
    import datasets

    def plain(feature: Any) -> Any:
        if isinstance(feature, datasets.Image):
            return datasets.Image(decode=False)
        if isinstance(feature, datasets.List):
            return datasets.List(plain(feature.feature), length=feature.length)
        if isinstance(feature, datasets.LargeList):
            return datasets.LargeList(plain(feature.feature))
        if isinstance(feature, dict):
            return {key: plain(value) for key, value in feature.items()}
        return feature

    for name, feature in table.features.items():
        undecoded = plain(feature)
        if undecoded != feature:
            table = table.cast_column(name, undecoded)
    return table.with_format(None)


def open_file(data_set: DataSet) -> RowFile:
    """Open the rows of a data set, by what its path is.

    Raises:
        FinetuneError: nothing there, nothing in it that is known, or it can't be read.
    """
    path = Path(data_set.path)
    if path.is_dir():
        return _open_directory(path, data_set)
    if path.suffix in JSON_SUFFIXES:
        return _open_json(_existing(path))
    if path.suffix in (".parquet", ".arrow"):
        return _open_tables([_existing(path)], path.parent)
    if path.is_file():
        raise FinetuneError(f"{path}: expected a file whose name ends in {', '.join(ROW_SUFFIXES)}.")
    return _open_hub(data_set)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FinetuneError(f"{path}: expected a data set here, but there is no such file.")
    return path


def _open_json(path: Path) -> RowFile:
    """One object a line, or a list: many files are called by the suffix of the other kind."""
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


def _open_directory(path: Path, data_set: DataSet) -> RowFile:
    """`data.json`, what `save_to_disk` wrote, or files of one kind."""
    if (path / "data.json").is_file():
        return _open_json(path / "data.json")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _open_saved(path, data_set)
    by_suffix = {suffix: sorted(path.rglob(f"*{suffix}")) for suffix in ROW_SUFFIXES}
    kinds = {suffix: files for suffix, files in by_suffix.items() if files}
    if set(kinds) in ({".parquet"}, {".arrow"}):
        return _open_tables(*_of_split(next(iter(kinds.values())), path, data_set))
    if len(kinds) == 1 and len(files := next(iter(kinds.values()))) == 1:
        return open_file(data_set.model_copy(update={"path": str(files[0])}))
    content = f"found {sum(map(len, kinds.values()))} files of {', '.join(kinds)}" if kinds else "there is no data.json"
    raise FinetuneError(
        f"{path}: expected a data set here (data.json, one .json or .jsonl file, Parquet or Arrow files, or what "
        f"save_to_disk wrote), but {content}. Name one file as the path."
    )


def _of_split(files: Sequence[Path], path: Path, data_set: DataSet) -> tuple[list[Path], Path]:
    """Those files whose name begins with the split's, as `train-00000-of-00004.parquet` does; else all of them."""
    splits = {file.name.split("-")[0] for file in files if "-" in file.name}
    of_split = [file for file in files if file.name.split("-")[0].split(".")[0] == data_set.split]
    if of_split:
        return of_split, path
    if splits & {"train", "test", "validation", "val"}:
        raise FinetuneError(f"{path}: no files of the split {data_set.split}; found {', '.join(sorted(splits))}.")
    return list(files), path


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise FinetuneError(f"Parquet, Arrow and Hub data sets need datasets: {install_line('datasets')}") from error
    return datasets


def _open_tables(files: Sequence[Path], root: Path) -> RowFile:
    datasets = _datasets()
    name = str(files[0]) if len(files) == 1 else f"{root} ({len(files)} files)"
    # Arrow files are mapped; Parquet is turned into Arrow once, in the cache of `datasets`.
    try:
        if files[0].suffix == ".parquet":
            if not sum(_parquet_rows(file) for file in files):
                raise FinetuneError(f"{name}: no row in it.")
            table = datasets.Dataset.from_parquet([str(file) for file in files])
        else:
            table = datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])
    except FinetuneError:
        raise
    except Exception as error:  # pyarrow's and datasets' errors have no common base
        why = "; ".join(str(error.__cause__ or error).split("\n"))  # datasets itself says that there was an error
        raise FinetuneError(f"{name}: can't be read as {files[0].suffix[1:]} ({why:.500}).") from error
    return DatasetRows(table, name, root)


def _parquet_rows(file: Path) -> int:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(file).metadata.num_rows


def _open_saved(path: Path, data_set: DataSet) -> RowFile:
    datasets = _datasets()
    try:
        table = datasets.load_from_disk(str(path))
    except Exception as error:  # as above
        raise FinetuneError(f"{path}: can't be read as what save_to_disk wrote ({error}).") from error
    if isinstance(table, datasets.DatasetDict):
        if data_set.split not in table:
            raise FinetuneError(f"{path}: no split {data_set.split}; found {', '.join(table)}.")
        table = table[data_set.split]
    return DatasetRows(table, str(path), path)


def _open_hub(data_set: DataSet) -> RowFile:
    name = data_set.path
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or not name:
        raise FinetuneError(f"{name}: expected a data set here, but there is no such file or directory (no data.json).")
    datasets = _datasets()
    try:
        table = datasets.load_dataset(name, data_set.name, split=data_set.split)
    except Exception as error:  # as above
        raise FinetuneError(
            f"{name}: no such file or directory (no data.json), and as a data set of the Hub it can't be loaded "
            f"(name {data_set.name}, split {data_set.split}).\n{error}"
        ) from error
    return DatasetRows(table, f"{name}[{data_set.split}]", Path())
