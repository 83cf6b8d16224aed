"""Rows as they lie in files, read one at a time: JSON (`json_files.py`), or a table of `datasets`.

Every kind of file is a `RowFile`: a length, rows as dictionaries by index, and what errors call a row. It goes to
worker processes as it is. Parquet and Arrow are mapped into memory, so that these share what there is, and no Python
objects are copied into each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from finetune.config import JSON_SUFFIXES, ROW_SUFFIXES, DataSet
from finetune.data.json_files import open_json
from soup.errors import FinetuneError
from soup.support.extras import install_line

__all__ = ["DatasetRows", "RowFile", "open_file"]


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
        return open_json(_existing(path))
    if path.suffix in (".parquet", ".arrow"):
        return _open_tables([_existing(path)], path.parent)
    if path.is_file():
        raise FinetuneError(f"{path}: expected a file whose name ends in {', '.join(ROW_SUFFIXES)}.")
    return _open_hub(data_set)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FinetuneError(f"{path}: expected a data set here, but there is no such file.")
    return path


def _open_directory(path: Path, data_set: DataSet) -> RowFile:
    """`data.json`, what `save_to_disk` wrote, or files of one kind."""
    if (path / "data.json").is_file():
        return open_json(path / "data.json")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _open_saved(path, data_set)
    by_suffix = {suffix: sorted(path.rglob(f"*{suffix}")) for suffix in ROW_SUFFIXES}
    kinds = {suffix: files for suffix, files in by_suffix.items() if files}
    if set(kinds) in ({".parquet"}, {".arrow"}):
        return _open_tables(*_of_split(next(iter(kinds.values())), path, data_set))
    if len(kinds) == 1 and len(files := next(iter(kinds.values()))) == 1:
        return open_file(data_set.model_copy(update={"path": str(files[0])}))
    expected = (
        f"{path}: expected a data set here (data.json, one .json or .jsonl file, Parquet or Arrow files, or what "
        "save_to_disk wrote), but"
    )
    if kinds:
        count = sum(map(len, kinds.values()))
        raise FinetuneError(f"{expected} found {count} files of {', '.join(kinds)}. Name one file as the path.")
    others = sorted({file.suffix for file in path.iterdir() if file.is_file()} - {""})
    found = f", and files of {', '.join(others)} are not read: convert them to JSON lines or Parquet" if others else ""
    raise FinetuneError(f"{expected} there is no data.json{found}.")


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
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
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
