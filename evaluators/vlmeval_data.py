"""The test sets: where their files lie, what is checked before anything runs, and VLMEvalKit's data set over them.

Nothing here downloads, overwrites or caches by name: a local file counts as it is, whatever its md5, its digest is
part of every remembered score, and images are named by their own bytes.
"""

from __future__ import annotations

import ast
import base64
import binascii
import hashlib
import importlib
import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators import vlmeval_light as light
from soup.errors import EvaluatorError, listing

__all__ = ["Images", "Source", "digest", "locate", "open_dataset", "questions"]

ROOT = "LMUData"  # the environment variable that names the folder of test sets, VLMEvalKit's spelling
SHORT = 64  # VLMEvalKit's rule: an image cell of at most so many characters is the index of the row that holds it
CIRCLE = 1_000_000  # rotation k of question i has the index i + k * 1e6
MAGIC = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}

_digests: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class Source:
    """One benchmark in VLMEvalKit: its data set, the class that knows it, and what its file must hold.

    `circular` test sets ask each question once per rotation of its options. `literal` names a column whose cells
    VLMEvalKit evaluates as Python code.
    """

    name: str
    dataset: str
    module: str
    kind: str
    columns: tuple[str, ...]
    circular: bool = False
    literal: str | None = None

    def base(self) -> Any:
        """VLMEvalKit's class."""
        return getattr(light.module(self.module), self.kind)


def locate(source: Source) -> Path:
    """The benchmark's TSV file: in the folder that `LMUData` names, else in `~/LMUData`.

    Raises:
        EvaluatorError: the folder or the file is not there; says where VLMEvalKit downloads it from.
    """
    named = os.environ.get(ROOT)
    root = Path(named) if named else Path.home() / "LMUData"
    if named and not root.is_dir():
        # VLMEvalKit itself would silently fall back to the home directory.
        raise EvaluatorError(f"{source.name}: LMUData names {root}, which is no directory: create it or unset LMUData.")
    path = root / f"{source.dataset}.tsv"
    if path.is_file():
        return path
    url = source.base().DATASET_URL.get(source.dataset) or "a place that it does not tell"
    raise EvaluatorError(
        f"{source.name}: its data ({source.dataset} of VLMEvalKit) are not here. Expected: {path.absolute()}. "
        f"VLMEvalKit downloads that file from {url}: fetch it and put it there, "
        "or set LMUData to the directory that holds it."
    )


def digest(path: Path) -> str:
    """The file's SHA-256; read once per process for each size and time of change."""
    stat = path.stat()
    key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]


def open_dataset(source: Source, path: Path, images: Images) -> Any:
    """VLMEvalKit's data set over the local file, with its own prompts and metrics.

    Its two hooks for where rows and images come from are ours: the rows are the file's, with no md5 and no download,
    and an image is the cell's own bytes instead of a re-encoded PNG (0.1 ms instead of 90 ms a row).

    Raises:
        EvaluatorError: the file can't be read, or it has cells that can't be right; all are listed.
    """
    frame = _read(path)
    faults = [*_missing_columns(source, frame)] or [*_faults(source, frame)]
    if faults:
        raise EvaluatorError(f"{source.name}: {path} can't be judged by VLMEvalKit:\n{listing(faults)}")
    base = source.base()
    hooks = {"load_data": lambda self, dataset: frame, "dump_image": lambda self, line: images.of(line)}
    return type(base.__name__, (base,), hooks)(dataset=source.dataset)


def questions(source: Source, frame: Any) -> list[str]:
    """Each row's question, as the text of its index; the rotations of one question share it."""
    if not source.circular:
        return [str(index) for index in frame["index"]]
    if "g_index" in frame:
        return [str(int(index)) for index in frame["g_index"]]
    return [str(int(index) % CIRCLE) for index in frame["index"]]


class Images:
    """The images of all test sets as files of a temporary directory, gone with this object.

    A file is named by its content, so that it can't be another data set's image of the same index.
    """

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="soup-images-"))
        weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        self._paths: dict[str, str] = {}

    def of(self, line: Any) -> list[str]:
        """The paths of one row's images. `line` is the row; its `image` is base64, or a list of them."""
        cells = line["image"] if isinstance(line["image"], list) else [line["image"]]
        try:
            return [self._path(cell) for cell in cells]
        except (binascii.Error, ValueError) as cause:
            raise EvaluatorError(f"The image of row {line['index']} is no base64 ({cause}).") from cause

    def _path(self, cell: str) -> str:
        key = hashlib.sha256(cell.encode()).hexdigest()
        if key not in self._paths:
            data = base64.b64decode(cell)
            suffix = next((end for start, end in MAGIC.items() if data.startswith(start)), ".png")
            path = self._directory / (key[:32] + suffix)
            path.write_bytes(data)
            self._paths[key] = str(path)
        return self._paths[key]


def _read(path: Path) -> Any:
    load: Callable[[str], Any] = light.module("smp").load
    with warnings.catch_warnings():
        # Pandas reads by blocks, and one that holds nothing but references to images looks like numbers to it.
        warnings.filterwarnings("ignore", "Columns .* have mixed types")
        try:
            return load(str(path))
        except (ValueError, OSError) as cause:
            raise EvaluatorError(f"{path} can't be read as a tab-separated table: {cause}") from cause


def _missing_columns(source: Source, frame: Any) -> Iterator[str]:
    missing = [name for name in source.columns if name not in frame]
    if missing:
        yield f"columns expected: {', '.join(source.columns)}; missing: {', '.join(missing)}"
    elif not len(frame):
        yield "no rows"


def _faults(source: Source, frame: Any) -> Iterator[str]:
    """Everything about the rows that VLMEvalKit would execute as code, trip over or silently leave out."""
    rows = [str(index) for index in frame["index"]]
    yield from _index_faults(rows)
    yield from _image_faults(rows, frame["image"])
    if source.literal:
        for row, cell in zip(rows, frame[source.literal], strict=True):
            if not _is_texts(cell):
                yield f"row {row}: {source.literal} {str(cell)[:SHORT]!r} is no Python list of texts"
    if source.circular:
        yield from _circle_faults(source, rows, frame)


def _index_faults(rows: list[str]) -> Iterator[str]:
    seen: set[str] = set()
    for row in rows:
        if not row.isdecimal():
            yield f"row {row!r}: an index is a whole number"
        elif row in seen:
            yield f"row {row}: the index is there twice"
        seen.add(row)


def _image_faults(rows: list[str], images: Any) -> Iterator[str]:
    isna = importlib.import_module("pandas").isna
    known = {row for row, image in zip(rows, images, strict=True) if len(str(image)) > SHORT}
    for row, image in zip(rows, images, strict=True):
        if not isna(image) and not _image_is_sound(str(image), known):
            yield f"row {row}: image {str(image)[:SHORT]!r} is neither base64 nor the index of a row that holds it"


def _circle_faults(source: Source, rows: list[str], frame: Any) -> Iterator[str]:
    # One `Overall` a split: of several, VLMEvalKit's table would not say which is the score.
    parts = sorted({str(part) for part in frame["split"]}) if "split" in frame else []
    if len(parts) > 1 or parts == ["nan"]:
        yield f"column split: expected one value in all rows, found {', '.join(parts)}"
    if "g_index" in frame and not all(str(index).isdecimal() for index in frame["g_index"]):
        yield "column g_index: expected whole numbers, the index of each row's question"
    elif all(row.isdecimal() for row in rows):
        known = set(rows)
        for row, question in zip(rows, questions(source, frame), strict=True):
            if question not in known:
                yield f"row {row}: a rotation of question {question}, which is not there"


def _image_is_sound(cell: str, known: set[str]) -> bool:
    if cell.startswith("[") and cell.endswith("]"):
        return _is_texts(cell)
    return len(cell) > SHORT or cell in known


def _is_texts(cell: Any) -> bool:
    """Whether evaluating the cell as Python can only give texts (or one text: VLMEvalKit then takes its letters)."""
    try:
        value = ast.literal_eval(cell) if isinstance(cell, str) else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(text, str) for text in value))
