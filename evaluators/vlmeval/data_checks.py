"""What is checked of a test set before anything runs: all that VLMEvalKit would execute, trip over or leave out.

VLMEvalKit evaluates some cells of its files as Python code. Files come from the internet, so that here those cells
must be plain literals, before VLMEvalKit gets to see them.
"""

from __future__ import annotations

import ast
import base64
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.library_types import IMAGE_COLUMNS, DataSet, Frame, Row
from evaluators.vlmeval.light_import import with_globals
from soup.errors import EvaluatorError
from soup.support.text import bullet_list, pluralize

__all__ = [
    "CIRCLE",
    "IMAGE_FOLDER",
    "column_faults",
    "columns_of_files",
    "index_faults",
    "merged_rows",
    "merged_rows_remark",
    "named_files",
    "refuse_faults",
    "row_faults",
    "table_faults",
]

REFERENCE_CHARACTERS = (
    64  # VLMEvalKit's rule: an image cell of at most so many characters is the index of the row that holds it
)
CIRCLE = 1_000_000  # rotation k of question i has the index i + k * 1e6
NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)  # an index that is no number: evaluated, it is a name and nothing more
INDEXES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "circular": ("a whole number", str.isdecimal),
    "yes_no": ("a plain name like VS_chart_1_0_3_1", lambda row: bool(NAME.fullmatch(row)) and row.count("_") >= 5),
}
"""What an index must be where a metric reads more out of it, by metric: in words, and as a test."""
ANY_INDEX = ("a whole number or a plain name", lambda row: row.isdecimal() or bool(NAME.fullmatch(row)))
TEXT_INDEX = ("a line of text", lambda row: row.isprintable() and bool(row))


IMAGE_FOLDER = "images"
"""Beside the tables, the folder of VLMEvalKit's with one of images for each data set."""

SHOWN_ROWS = 10

BY_TEXT = ("evaluate", "vqa")  # nothing of their files is executed


def refuse_faults(benchmark: VLMEvalBenchmark, path: Path, faults: Iterable[str]) -> None:
    """Refuse a benchmark's file if it has faults.

    Raises:
        EvaluatorError: it has; all are listed.
    """
    lines = list(faults)
    if lines:
        raise EvaluatorError(f"{benchmark.name}: {path} can't be evaluated by VLMEvalKit:\n{bullet_list(lines)}")


def table_faults(benchmark: VLMEvalBenchmark, frame: Frame) -> list[str]:
    """List the faults of the table as it was read: columns first, then cells."""
    if missing := column_faults(benchmark, frame):
        return missing
    return [*_cell_faults(benchmark, frame)] if len(frame) else ["no rows"]


def column_faults(benchmark: VLMEvalBenchmark, frame: Frame) -> list[str]:
    """Say which columns the metric needs and the table lacks; nothing where it has them all."""
    missing = [name for name in benchmark.columns if name not in frame]
    if not missing:
        return []
    fault = f"columns expected: {', '.join(benchmark.columns)}; missing: {', '.join(missing)}"
    if len(frame.columns) == 1:  # another kind of file, whose first line is taken for a name
        fault += f"; found in its place {str(frame.columns[0])[:REFERENCE_CHARACTERS]!r}: tabs separate columns here"
    return [fault]


def merged_rows(frame: Frame) -> dict[str, list[str]]:
    """Return rows of which a cell holds what look like other rows, by the indices of both.

    A quotation mark at a cell's beginning goes on to the next one, over tabs and lines. So the cell has at least the
    tabs of a row, and lines that have an index in its place, which no row has.

    Args:
        frame: A table as it was read.
    """
    columns = [*frame.columns]
    if "index" not in columns:
        return {}
    rows, merged = [str(row) for row in frame["index"]], dict[str, list[str]]()
    known, place = {*rows}, columns.index("index")
    is_index = str.isdecimal if all(map(str.isdecimal, known)) else str.isidentifier
    for name in columns:
        for row, cell in zip(rows, frame[name], strict=True) if name not in IMAGE_COLUMNS else ():
            if isinstance(cell, str) and "\n" in cell and cell.count("\t") >= len(columns) - 1:
                fields = [line.split("\t") for line in cell.split("\n")[1:]]
                indices = [line[place] for line in fields if len(line) > place + 1]
                if others := [index for index in indices if is_index(index) and index not in known]:
                    merged[row] = others
    return merged


def merged_rows_remark(benchmark: VLMEvalBenchmark, merged: Mapping[str, Sequence[str]]) -> str:
    """Say which rows of a benchmark's file are a part of others; nothing where none is."""
    if not merged:
        return ""
    shown = [f"index {row} holds {', '.join(others[:SHOWN_ROWS])}" for row, others in merged.items()]
    return (
        f"{benchmark.name}: a cell of {pluralize(len(merged), 'row')} holds what look like other rows "
        f"({'; '.join(shown[:SHOWN_ROWS])}), which are not asked, as in VLMEvalKit: a quotation mark at a cell's "
        'beginning goes on to the next one, over tabs and lines. Write such a cell as "...", and each mark in it twice.'
    )


def row_faults(benchmark: VLMEvalBenchmark, data_set: DataSet, base: type[DataSet]) -> Iterator[str]:
    """Yield the faults of the data set that VLMEvalKit made of the table: prompts that fail, unknown categories.

    Args:
        benchmark: Whose data set.
        data_set: VLMEvalKit's, over our file.
        base: VLMEvalKit's own class of it.
    """
    if not len(data_set.data):
        where = "" if benchmark.split_value is None else f" whose split is {benchmark.split_value}"
        yield f"no rows with an image{where}"
        return
    yield from _prompt_faults(data_set, base)
    if benchmark.metric == "contained" and (unknown := _unknown_categories(data_set, base)):
        yield f"categories unknown to VLMEvalKit: {', '.join(unknown)}"


def _cell_faults(benchmark: VLMEvalBenchmark, frame: Frame) -> Iterator[str]:
    rows = [str(index) for index in frame["index"]]
    yield from index_faults(benchmark, rows)
    for column in columns_of_files(frame):
        yield from _path_faults(rows, frame[column], f"{IMAGE_FOLDER}/{benchmark.data_set}")
    if "image" in frame:
        yield from _image_faults(rows, frame)
    elif "image_path" not in frame and not any(name in frame for name in IMAGE_COLUMNS[1:]):
        yield "columns expected: image or image_path; missing: both"
    yield from (
        f"row {row}: {name} {str(cell)[:REFERENCE_CHARACTERS]!r} is no base64"
        for name in IMAGE_COLUMNS[1:]
        for row, cell in zip(rows, frame.get(name, ()), strict=False)
        if isinstance(cell, str) and not _is_base64(cell)
    )
    if benchmark.metric in ("choices", "circular") or (benchmark.rule and benchmark.rule.points == "hit"):
        yield from _letter_faults(frame)
    from pandas import isna

    for name in (*(["question"] if "question" in frame else []), *benchmark.filled):
        yield from (f"row {row}: {name} is empty" for row, cell in zip(rows, frame[name], strict=True) if isna(cell))
    for name in benchmark.literals:
        yield from _literal_faults(rows, name, frame)
    if benchmark.is_circular:
        yield from _circle_faults(rows, frame)


def index_faults(benchmark: VLMEvalBenchmark, rows: list[str]) -> Iterator[str]:
    """Yield the rows whose index is not what the metric takes, or is there twice."""
    expected, is_sound = INDEXES.get(benchmark.metric, TEXT_INDEX if benchmark.metric in BY_TEXT else ANY_INDEX)
    for row, times in Counter(rows).items():
        if not is_sound(row):
            yield f"row {row[:REFERENCE_CHARACTERS]!r}: an index is {expected}"
        elif times > 1:
            yield f"row {row}: the index is there {'twice' if times == 2 else f'{times} times'}"


def _image_faults(rows: list[str], frame: Frame) -> Iterator[str]:
    from pandas import isna

    images = frame["image"]
    known = {row for row, image in zip(rows, images, strict=True) if len(str(image)) > REFERENCE_CHARACTERS}
    for row, image in zip(rows, images, strict=True):
        if not isna(image) and not _image_is_sound(str(image), known):
            start = str(image)[:REFERENCE_CHARACTERS]
            yield f"row {row}: image {start!r} is neither base64 nor the index of a row that holds it"
    for row, cell in zip(rows, frame.get("image_path", ()), strict=False):
        if str(cell).startswith("[") and not _is_texts(cell):
            yield f"row {row}: image_path {str(cell)[:REFERENCE_CHARACTERS]!r} is no Python list of texts"


def columns_of_files(frame: Frame) -> list[str]:
    """Return the columns that name files: VLMEvalKit takes those of images where the table has none itself."""
    columns = ("mask_path",) if "image" in frame else ("image_path", "mask_path")
    return [name for name in columns if name in frame]


def _path_faults(rows: list[str], column: Frame, folder: str) -> Iterator[str]:
    """Yield the rows of which a file that they name is not there."""
    kind = column.name.removesuffix("_path")
    for row, cell in zip(rows, column, strict=True):
        if missing := next((path for path in named_files(cell) if not Path(path).is_file()), None):
            yield (
                f"row {row}: its {kind} {missing[:REFERENCE_CHARACTERS]!r} is no file, neither as it stands nor below "
                f"{folder} beside the table, and there is no column {kind}"
            )


def named_files(cell: object) -> list[str]:
    """Return the paths that a cell of `image_path` names: a Python list of them, or one."""
    return [*ast.literal_eval(str(cell))] if str(cell).startswith("[") and _is_texts(cell) else [str(cell)]


def _letter_faults(frame: Frame) -> Iterator[str]:
    """Yield the letters that right answers have and options have not: no model could be right."""
    if "answer" in frame and any(letter in frame for letter in "ABCD"):
        letters = {str(answer) for answer in frame["answer"]}
        absent = sorted(letter for letter in letters & {*string.ascii_uppercase} if letter not in frame)
        if absent:
            yield f"columns expected: the options of all right answers; missing: {', '.join(absent)}"


def _literal_faults(rows: list[str], name: str, frame: Frame) -> Iterator[str]:
    for row, cell, kind in zip(rows, frame[name], frame.get("question_type", rows), strict=True):
        if name == "choices" and kind != "multi_choice":
            continue  # VLMEvalKit does not look at it
        if not _is_texts(cell) and not (name == "skills" and _is_no_python(cell)):
            yield f"row {row}: {name} {str(cell)[:REFERENCE_CHARACTERS]!r} is no Python list of texts"


def _circle_faults(rows: list[str], frame: Frame) -> Iterator[str]:
    # One `Overall` a split: of several, VLMEvalKit's table would not say which is the score.
    parts = sorted({str(part) for part in frame["split"]}) if "split" in frame else []
    if len(parts) > 1 or parts == ["nan"]:
        yield f"column split: expected one value in all rows, found {', '.join(parts)}"
    g_index = frame.get("g_index")
    if g_index is not None and not all(str(index).isdecimal() for index in g_index):
        yield "column g_index: expected whole numbers, the index of each row's question"
    elif all(row.isdecimal() for row in rows):
        known = set(rows)
        circles = [str(int(row) % CIRCLE) for row in rows] if g_index is None else [str(index) for index in g_index]
        for row, question in zip(rows, circles, strict=True):
            if question not in known:
                yield f"row {row}: a rotation of question {question}, which is not there"


def _prompt_faults(data_set: DataSet, base: type[DataSet]) -> Iterator[str]:
    """Rows of which VLMEvalKit can't make a prompt (`<image 3>` of two images), without unpacking a single image."""
    stub: DataSet = type(base.__name__, (base,), {"dump_image": _image_stand_ins})
    probe = stub.__new__(stub)
    probe.__dict__.update(data_set.__dict__)
    for row in data_set.data.to_dict("records"):
        try:
            probe.build_prompt(row)
        except Exception as cause:
            yield f"row {row['index']}: VLMEvalKit can't make its prompt ({type(cause).__name__}: {cause})"


def _image_stand_ins(self: DataSet, line: Row) -> list[str]:
    images = line["image"] if "image" in line else line["image_path"]
    return ["image"] * (len(images) if isinstance(images, list) else 1)


def _unknown_categories(data_set: DataSet, base: type[DataSet]) -> list[str]:
    """Categories of the data that VLMEvalKit's metric does not know, found by letting it judge a right answer of each.

    It would stop at the first right answer of such a category, after all of the asking.
    """
    silent = {"tqdm": lambda rows: rows, "dump": lambda *_: None, "get_intermediate_file_path": lambda *_: ""}
    evaluate = with_globals(base.evaluate, load=lambda frame: frame, **silent)
    unknown = []
    for name, rows in data_set.data.groupby("category", dropna=False):
        right = ["\n".join(ast.literal_eval(answer)) for answer in rows["answer"]]
        try:
            evaluate(None, rows.assign(prediction=right))
        except KeyError:
            unknown.append(str(name))
    return unknown


def _image_is_sound(cell: str, known: set[str]) -> bool:
    if cell.startswith("[") and cell.endswith("]"):
        return _is_texts(cell) and all(map(_is_base64, ast.literal_eval(cell)))
    return _is_base64(cell) if len(cell) > REFERENCE_CHARACTERS else cell in known


def _is_base64(cell: str) -> bool:
    """Whether the cell can be decoded as it will be: once a run stands at its question it is too late."""
    try:
        base64.b64decode(cell)
    except ValueError:
        return False
    return True


def _is_texts(cell: object) -> bool:
    """Whether evaluating the cell as Python can only give texts (or one text: VLMEvalKit then takes its letters)."""
    try:
        value = ast.literal_eval(cell) if isinstance(cell, str) else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(text, str) for text in value))


def _is_no_python(cell: object) -> bool:
    """Whether evaluating the cell is a syntax error, in whose place VLMEvalKit takes the text itself."""
    if not isinstance(cell, str):
        return False
    try:
        ast.parse(cell.lstrip(" \t"), mode="eval")  # eval() strips so too: else code behind a space would pass
    except SyntaxError:
        return True
    except (ValueError, MemoryError, RecursionError):
        return False
    return False
