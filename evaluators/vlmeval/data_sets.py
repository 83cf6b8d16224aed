"""The test sets: where their files lie, what is checked before anything runs, and VLMEvalKit's data set over them.

Nothing here downloads, overwrites or caches by name: a local file counts as it is, whatever its md5, its digest is
part of every remembered score, and images are named by their own bytes.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import inspect
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.data_checks import (
    CIRCLE,
    IMAGE_FOLDER,
    column_faults,
    index_faults,
    merged_rows,
    merged_rows_remark,
    refuse_faults,
    row_faults,
    table_faults,
)
from evaluators.vlmeval.image_files import IMAGE_IN_TEXT, ImageFiles, digest_of_sizes, with_image_files
from evaluators.vlmeval.library_source import missing_requirements
from evaluators.vlmeval.library_types import DataSet, Frame, Row
from evaluators.vlmeval.light_import import python_strings, vlmeval_module, with_globals
from evaluators.vlmeval.question_groups import grouped_ids
from evaluators.vlmeval.right_options import (
    lost_rows_fault,
    lost_rows_remark,
    mend_right_options,
    mended_rows_remark,
    rows_without_a_right_answer,
)
from evaluators.vlmeval.rule import Rule
from evaluators.vlmeval.stand_ins import SilentLogger, load_inner_imports, replaced_names
from evaluators.vlmeval.videos import (
    VideoFolder,
    video_hooks,
    videos_column,
)
from soup.errors import EvaluatorError
from soup.evaluation.api import Prompt

__all__ = ["data_file", "data_folder", "open_data_set", "question_ids"]

FOLDER_VARIABLE = "LMUData"  # the environment variable that names the folder of test sets, VLMEvalKit's spelling
IMAGE_CELL = "line['image']"
"""What stands in the source of a prompt that takes an image's cell itself for a path."""
IMAGE_ADDRESS = "data:{mime}"
"""What stands in the source of a prompt that reads its images from files, and shows them as text."""
IMAGE_WRITER = "decode_base64_to_image_file"
"""What stands in the source of a prompt that writes its images itself, into the user's folder, by index."""
OF_LISTS = {"SGI-Experimental-Reasoning": "options"}
"""A column that has lists in the table that a class makes of its download, and their texts in our file."""
DOWNLOADS = ("download", "load_dataset(", "LMUDataRoot")
"""Where one of these is in a class's `load_data`, the table that it makes of its downloads is expected as our file."""
FOLDER_OF_TABLE = "self.prepare_dataset("
"""What stands in the source of a `load_data` that reads a table of a folder that it downloads."""
DOWNLOAD = "download_"
"""How a class's function is called that downloads images, to which `prepare_tsv` then adds the path."""
LOADED_AS_IS = ("MME-RealWorld-Lite", "RefCOCO")
"""Data sets for which such a `load_data` reads one table all the same, and makes something of it."""


def data_folder() -> Path:
    """Return the folder of test sets: the one that `LMUData` names, else `~/LMUData`."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder else Path.home() / "LMUData"


def data_file(benchmark: VLMEvalBenchmark) -> Path:
    """Return the path of the benchmark's TSV file.

    Raises:
        EvaluatorError: the folder or the file is not there; says where VLMEvalKit downloads it from.
    """
    folder = data_folder()
    if os.environ.get(FOLDER_VARIABLE) and not folder.is_dir():
        # VLMEvalKit itself would silently fall back to the home directory.
        raise EvaluatorError(
            f"{benchmark.name}: LMUData names {folder}, which is no directory: create it or unset LMUData."
        )
    path = folder / f"{benchmark.data_set}.tsv"
    if benchmark.frames:
        path = folder / benchmark.data_set / path.name
    if path.is_file():
        return path
    if benchmark.frames:
        raise EvaluatorError(
            f"{benchmark.name}: its table is not here. Expected: {path.absolute()}, with the videos anywhere below "
            "that folder: what VLMEvalKit makes of its download."
        )
    url = benchmark.address() or "a place that it does not tell"
    raise EvaluatorError(
        f"{benchmark.name}: its data ({benchmark.data_set} of VLMEvalKit) are not here. Expected: {path.absolute()}. "
        f"VLMEvalKit downloads that file from {url}: soup list benchmarks --fetch {benchmark.name} does so, "
        "or put it there, or set LMUData to the directory that holds it."
    )


def open_data_set(benchmark: VLMEvalBenchmark, path: Path, images: ImageFiles) -> DataSet:
    """Build VLMEvalKit's data set over the local file, with its own prompts and metrics.

    Its two hooks for where rows and images come from are ours: the rows are the file's, with no md5 and no download,
    and an image is the cell's own bytes instead of a re-encoded PNG (0.1 ms instead of 90 ms a row).

    Its `mended_rows` are the indices of rows whose right option pandas would lose, see `right_options`; `remarks` say
    what of the file a user should know; `whole` are all of its rows, where `data` may come to be a part of them;
    `image_sizes` is a digest of the sizes of the files that the table names, images or masks, empty where it holds all
    itself.

    Args:
        benchmark: Whose data set.
        path: Its file.
        images: Where the images of its rows are kept as files.

    Raises:
        EvaluatorError: the file can't be read, or it has cells that can't be right; all are listed.
    """
    base = benchmark.data_set_class()
    if benchmark.rule is not None:  # what is missing is told before anything is asked
        _check_metric(benchmark, benchmark.rule, base)
    if benchmark.frames:
        return _open_videos(benchmark, path, images, base)
    with python_strings():
        frame = with_image_files(_read(path), path.parent / IMAGE_FOLDER / benchmark.data_set)
        if "index" not in frame and "index" not in benchmark.columns:
            frame["index"] = range(1, len(frame) + 1)
        refuse_faults(benchmark, path, table_faults(benchmark, frame))
        merged = merged_rows(frame)
        sizes = digest_of_sizes(frame)
        frame, mended = mend_right_options(benchmark, frame, path)
        indices = [str(index) for index in frame["index"]]
        try:
            with replaced_names({}), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some say what they recommend
                data_set = _class_over(benchmark.data_set, base, frame, images)(dataset=benchmark.data_set)
        except Exception as cause:
            refuse_faults(benchmark, path, [f"{type(cause).__name__}: {cause}"])
            raise
    data_set.mended_rows, data_set.image_sizes = mended, sizes
    _set_rows(benchmark, data_set, indices)
    lost = rows_without_a_right_answer(benchmark, data_set.data)
    if len(data_set.data) and len(lost) == len(data_set.data):
        refuse_faults(benchmark, path, [lost_rows_fault(benchmark, data_set.data)])
    remarks = (
        merged_rows_remark(benchmark, merged),
        mended_rows_remark(benchmark, mended),
        lost_rows_remark(benchmark, lost),
    )
    data_set.remarks = tuple(filter(None, remarks))
    with replaced_names({IMAGE_WRITER: lambda *_: None}):
        refuse_faults(benchmark, path, row_faults(benchmark, data_set, base))
    return data_set


def _check_metric(benchmark: VLMEvalBenchmark, rule: Rule, base: type[DataSet]) -> None:
    """Look for what the metric needs, and import what it imports only once answers are there.

    Raises:
        EvaluatorError: packages are missing, or a variable of the environment asks for what is not scored.
    """
    rule.questions.values_of_variables()
    if missing := missing_requirements(rule.call.packages):
        raise EvaluatorError(
            f"{benchmark.name}: its metric needs packages that are not here: pip install {' '.join(missing)}"
        )
    load_inner_imports(base)


def _set_rows(benchmark: VLMEvalBenchmark, data_set: DataSet, indices: Sequence[str]) -> None:
    """Leave a data set the rows that count.

    Args:
        benchmark: Whose data set.
        data_set: It was built over all rows of its file.
        indices: Theirs, as they stand in the file.
    """
    if benchmark.rule is not None and isinstance(benchmark.rule.group, str):  # VLMEvalKit takes 12_0 for the number 120
        data_set.data["index"] = [indices[position] for position in data_set.data.index]
    spread = benchmark.rule.spread if benchmark.rule else {}
    data_set.spread = {name: values or [*dict.fromkeys(data_set.data[name])] for name, values in spread.items()}
    # Only after it was built: a row that counts may borrow the image of one that does not.
    if benchmark.split_value is not None:
        data_set.data = data_set.data[data_set.data["split"] == benchmark.split_value]
    data_set.data = _asked(benchmark, data_set.data)
    data_set.whole = data_set.data


def _asked(benchmark: VLMEvalBenchmark, frame: Frame) -> Frame:
    """Return the rows that count."""
    is_asked = benchmark.rule.questions.is_asked if benchmark.rule else None
    return frame if is_asked is None else frame[[is_asked(row) for row in frame.to_dict("records")]]


def _open_videos(benchmark: VLMEvalBenchmark, path: Path, images: ImageFiles, base: type[DataSet]) -> DataSet:
    folder = VideoFolder(path.parent)
    choice = benchmark.rule.questions.frames if benchmark.rule else ""
    hooks = video_hooks(
        base, folder, path, lambda video: images.frame_paths(video, benchmark.frames, choice), images.link
    )
    frame = _read(path)
    refuse_faults(
        benchmark, path, column_faults(benchmark, frame) or folder.faults(frame, getattr(base, "_vid_str", str))
    )
    remark = merged_rows_remark(benchmark, merged_rows(frame))
    frame = _asked(benchmark, frame)
    if "video" not in frame:  # two classes ask for a column that their own tables lack
        frame["video"] = frame[videos_column(frame)]
    rows = [str(index) for index in frame.get("index", range(len(frame)))]
    refuse_faults(benchmark, path, index_faults(benchmark, rows))
    # Its folder of frames and its complaint about a library that reads videos are not wanted.
    names = {"LMUDataRoot": lambda: str(images.directory), "logger": SilentLogger(), "load": lambda *_: frame.copy()}
    with python_strings(), replaced_names(names):
        settings = dict(benchmark.rule.questions.built_with) if benchmark.rule else {}
        data_set = type(base.__name__, (base,), hooks)(dataset=benchmark.data_set, nframe=benchmark.frames, **settings)
        data_set.mended_rows, data_set.spread, data_set.whole = (), {}, data_set.data
        data_set.remarks = (remark,) if remark else ()
        pictures: list[str] = []
        for row in data_set.data.to_dict("records"):
            try:
                prompt = data_set.build_prompt(row)
            except Exception as cause:
                fault = f"row {row['index']}: VLMEvalKit can't make its prompt ({type(cause).__name__}: {cause})"
                refuse_faults(benchmark, path, [fault])
            pictures += [Path(part["value"]).name for part in prompt if part["type"] == "image" and "video" not in part]
    # Beside videos a question may show images, which are named by their content.
    data_set.image_sizes = hashlib.sha256("\n".join(pictures).encode()).hexdigest() if pictures else ""
    return data_set


def _hooks(name: str, base: type[DataSet], frame: Frame, images: ImageFiles) -> dict[str, Callable[..., Any]]:
    """Return what stands for a class's ways to rows and images. It may change the rows that it gets: once is enough."""
    tables = [frame]

    def prepare_tsv(self: DataSet, url: str, file_md5: str | None = None) -> Frame:
        if not tables:
            raise EvaluatorError("VLMEvalKit reads several files for it, and one of its name is expected here")
        return tables.pop()

    def dump_image(self: DataSet, line: Row) -> list[str]:
        paths: list[str] = images.paths(line) if "image" in line else base.dump_image(self, line)
        return paths

    hooks: dict[str, Callable[..., Any]] = {"prepare_tsv": prepare_tsv, "dump_image": dump_image}
    if name not in LOADED_AS_IS and any(word in inspect.getsource(base.load_data) for word in DOWNLOADS):
        hooks["load_data"] = lambda self, dataset: _with_lists(name, prepare_tsv(self, ""))
    elif FOLDER_OF_TABLE in inspect.getsource(base.load_data):
        hooks["prepare_dataset"] = lambda self, _: {"root": "", "data_file": str(data_folder() / f"{name}.tsv")}
        hooks["load_data"] = lambda self, dataset: with_globals(base.load_data, load=lambda _: prepare_tsv(self, ""))(
            self, dataset
        )
    if hasattr(base, "_ensure_metadata_ready"):  # it removes a file whose digest is another, and downloads it
        hooks["_ensure_metadata_ready"] = lambda self: None
    if any(text in inspect.getsource(base.build_prompt) for text in (IMAGE_IN_TEXT, IMAGE_CELL, IMAGE_ADDRESS)):
        hooks["build_prompt"] = lambda self, line: [images.part(part) for part in base.build_prompt(self, line)]
    if "image" not in frame:
        shown = hooks.get("build_prompt", base.build_prompt)
        hooks["build_prompt"] = lambda self, line: [images.link(part) for part in shown(self, line)]
    if IMAGE_WRITER in inspect.getsource(base.build_prompt):
        hooks["build_prompt"] = lambda self, line: _prompt_without_writing(self, line, base, images)
    return hooks


def _class_over(name: str, base: type[DataSet], frame: Frame, images: ImageFiles) -> type[DataSet]:
    """Return VLMEvalKit's class with our hooks.

    One that downloads a folder of images by a function of that name makes its rows of our table itself.
    """
    hooks = _hooks(name, base, frame, images)
    bases: tuple[type, ...] = (base,)
    if downloads := [each for each in dir(base) if each.startswith(DOWNLOAD)]:
        root = vlmeval_module("dataset.image_base").ImageBaseDataset
        bases += (type("Table", (root,), {"prepare_tsv": hooks.pop("prepare_tsv")}),)
        hooks |= dict.fromkeys(downloads, lambda *_, **__: "")  # no folder: the images were found already
    return type(base.__name__, bases, hooks)


def _with_lists(name: str, table: Frame) -> Frame:
    if column := OF_LISTS.get(name):
        table[column] = [ast.literal_eval(cell) for cell in table[column]]
    return table


def _prompt_without_writing(self: DataSet, line: Row, base: type[DataSet], images: ImageFiles) -> Prompt:
    """Return a prompt whose class writes its images itself, with them under the names of their content."""
    written: dict[str, str] = {}
    build = with_globals(base.build_prompt, **{IMAGE_WRITER: lambda cell, path: written.update({path: cell})})
    view = copy.copy(self)
    view.img_root = str(images.directory / "unwritten")  # what lies in the user's folder is not looked at
    return [
        images.part({**part, "value": written[part["value"]]}) if part["type"] == "image" else part
        for part in build(view, line)
    ]


def question_ids(benchmark: VLMEvalBenchmark, frame: Frame) -> list[str]:
    """Return the question of each row, as the text of its index; the rotations of a question share it.

    Where a metric counts groups of questions, the group stands before a slash, so that a split keeps it together.
    """
    if benchmark.rule is not None and benchmark.rule.group:
        return grouped_ids(benchmark.rule, frame)
    if benchmark.data_set == "MME":
        return [f"{picture}/{index}" for picture, index in zip(frame["image_path"], frame["index"], strict=True)]
    if benchmark.metric == "yes_no":
        sets = zip(frame["l2-category"], frame["index"], strict=True)
        return [f"{category}_{index.split('_')[3]}/{index}" for category, index in sets]
    if not benchmark.is_circular:
        return [str(index) for index in frame["index"]]
    if "g_index" in frame:
        return [str(int(index)) for index in frame["g_index"]]
    return [str(int(index) % CIRCLE) for index in frame["index"]]


def _read(path: Path) -> Frame:
    load: Callable[[str], Frame] = vlmeval_module("smp").load
    with warnings.catch_warnings():
        # Pandas reads by blocks, and one that holds nothing but references to images looks like numbers to it.
        warnings.filterwarnings("ignore", "Columns .* have mixed types")
        try:
            return load(str(path))
        except (ValueError, OSError) as cause:
            raise EvaluatorError(f"{path} can't be read as a tab-separated table: {cause}") from cause
