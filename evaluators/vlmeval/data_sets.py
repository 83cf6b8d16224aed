"""The test sets: where their files lie, what is checked before anything runs, and VLMEvalKit's data set over them.

Nothing here downloads, overwrites or caches by name: a local file counts as it is, whatever its md5, its digest is
part of every remembered score, and images are named by their own bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluators.vlmeval import light_import as light
from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.data_checks import CIRCLE, refuse, row_faults, table_faults
from soup.errors import EvaluatorError

__all__ = ["Images", "digest", "home", "locate", "open_dataset", "questions"]

ROOT = "LMUData"  # the environment variable that names the folder of test sets, VLMEvalKit's spelling
MAGIC = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}

_digests: dict[tuple[str, int, int], str] = {}


def home() -> Path:
    """Where test sets lie: the folder that `LMUData` names, else `~/LMUData`."""
    named = os.environ.get(ROOT)
    return Path(named) if named else Path.home() / "LMUData"


def locate(benchmark: VLMEvalBenchmark) -> Path:
    """The benchmark's TSV file.

    Raises:
        EvaluatorError: the folder or the file is not there; says where VLMEvalKit downloads it from.
    """
    root = home()
    if os.environ.get(ROOT) and not root.is_dir():
        # VLMEvalKit itself would silently fall back to the home directory.
        raise EvaluatorError(
            f"{benchmark.name}: LMUData names {root}, which is no directory: create it or unset LMUData."
        )
    path = root / f"{benchmark.data_set}.tsv"
    if path.is_file():
        return path
    url = benchmark.data_set_class().DATASET_URL.get(benchmark.data_set) or "a place that it does not tell"
    raise EvaluatorError(
        f"{benchmark.name}: its data ({benchmark.data_set} of VLMEvalKit) are not here. Expected: {path.absolute()}. "
        f"VLMEvalKit downloads that file from {url}: soup list benchmarks --fetch {benchmark.name} does so, "
        "or put it there, or set LMUData to the directory that holds it."
    )


def digest(path: Path) -> str:
    """The file's SHA-256; read once per process for each size and time of change."""
    stat = path.stat()
    key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]


def open_dataset(benchmark: VLMEvalBenchmark, path: Path, images: Images) -> Any:
    """VLMEvalKit's data set over the local file, with its own prompts and metrics.

    Its two hooks for where rows and images come from are ours: the rows are the file's, with no md5 and no download,
    and an image is the cell's own bytes instead of a re-encoded PNG (0.1 ms instead of 90 ms a row).

    Raises:
        EvaluatorError: the file can't be read, or it has cells that can't be right; all are listed.
    """
    base = benchmark.data_set_class()
    with light.plain_texts():
        frame = _read(path)
        refuse(benchmark, path, table_faults(benchmark, frame))
        hooks = {"load_data": lambda self, dataset: frame, "dump_image": lambda self, line: images.of(line)}
        try:
            dataset = type(base.__name__, (base,), hooks)(dataset=benchmark.data_set)
        except Exception as cause:
            refuse(benchmark, path, [f"{type(cause).__name__}: {cause}"])
            raise
    if (
        benchmark.split_value is not None
    ):  # after it was built: a row that counts may borrow the image of one that does not
        dataset.data = dataset.data[dataset.data["split"] == benchmark.split_value]
    refuse(benchmark, path, row_faults(benchmark, dataset, base))
    return dataset


def questions(benchmark: VLMEvalBenchmark, frame: Any) -> list[str]:
    """Each row's question, as the text of its index; the rotations of one question share it.

    Where a metric counts groups of questions, the group stands before a slash, so that a split keeps it together.
    """
    if benchmark.metric == "yes_no":
        sets = zip(frame["l2-category"], frame["index"], strict=True)
        return [f"{kind}_{index.split('_')[3]}/{index}" for kind, index in sets]
    if not benchmark.is_circular:
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
        if cell not in self._paths:  # the cell itself is the key: Python remembers the hash of a text it has seen
            data = base64.b64decode(cell)
            suffix = next((end for start, end in MAGIC.items() if data.startswith(start)), ".png")
            path = self._directory / (hashlib.sha256(data).hexdigest()[:32] + suffix)
            path.write_bytes(data)
            self._paths[cell] = str(path)
        return self._paths[cell]


def _read(path: Path) -> Any:
    load: Callable[[str], Any] = light.module("smp").load
    with warnings.catch_warnings():
        # Pandas reads by blocks, and one that holds nothing but references to images looks like numbers to it.
        warnings.filterwarnings("ignore", "Columns .* have mixed types")
        try:
            return load(str(path))
        except (ValueError, OSError) as cause:
            raise EvaluatorError(f"{path} can't be read as a tab-separated table: {cause}") from cause
