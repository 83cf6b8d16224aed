"""From answers to a score, by VLMEvalKit's own matching and metrics.

The predictions go through a file of a fresh directory, as VLMEvalKit's do. Two things differ from a plain call of its
`evaluate`, neither of which alters a score that was right: the file is read with every answer as text (pandas alone
makes 7 of "007" when all of an answer's neighbours look like numbers), and files are named next to it, not by what
the clock or the environment says. As in VLMEvalKit, "", "None" and "NA" read back as "nan" and are judged as that.
"""

from __future__ import annotations

import ast
import csv
import importlib
import io
import os
import tempfile
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluators import vlmeval_light as light
from evaluators.vlmeval_data import Source, questions
from soup.errors import EvaluatorError
from soup.evaluation import Score

__all__ = ["ask_circles", "ask_rows", "score", "strange_categories"]

Ask = Callable[[list[Any]], list[str]]

LOST = "Z"  # VLMEvalKit's letter for "none of the options": stands for rotations of a question that is lost already
NUMBERS = {"index": "int64", "g_index": "int64", "hit": "float64"}


def ask_rows(source: Source, dataset: Any, ask: Ask) -> list[str]:
    """The answers to all rows, in their order."""
    return ask([dataset.build_prompt(row) for row in dataset.data.to_dict("records")])


def ask_circles(source: Source, dataset: Any, ask: Ask) -> list[str]:
    """The answers to all rows, asking no further rotation of a question after its first wrong one.

    A question counts only if all of its rotations are answered right, so that the score is the same for fewer calls.
    """
    rows, circles = dataset.data.to_dict("records"), questions(source, dataset.data)
    answers, lost = [LOST] * len(rows), set[str]()
    for places in _rounds(rows, circles):
        asked = [place for place in places if circles[place] not in lost]
        replies = ask([dataset.build_prompt(rows[place]) for place in asked])
        with _plain_environment():
            for place, reply, read in zip(asked, replies, _as_read(replies), strict=True):
                answers[place] = reply
                if not _is_right(rows[place], read):
                    lost.add(circles[place])
    return answers


def score(source: Source, dataset: Any, answers: list[str], scratch: Path) -> Score:
    """The score of one answer per row of the data set. The predictions stay in a fresh directory below `scratch`.

    Raises:
        EvaluatorError: VLMEvalKit's metric failed, or its total is not the sum of its questions.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    # Fresh even where an earlier attempt left its files: VLMEvalKit takes what it finds for its own results.
    path = Path(tempfile.mkdtemp(prefix=f"{source.name}-", dir=scratch)) / f"{source.dataset}.tsv"
    path.write_text(_table(dataset.data.drop(columns="image"), answers), encoding="utf-8", newline="")
    try:
        value, points = (_circular if source.circular else _counted)(source, dataset, path)
    except Exception as cause:
        tail = "".join(traceback.format_exception(cause)[-3:])
        raise EvaluatorError(f"{source.name}: VLMEvalKit's metric failed on {path}:\n{tail}") from cause
    if abs(value - 100 * sum(points.values()) / len(points)) > 1e-6:
        raise EvaluatorError(
            f"{source.name}: VLMEvalKit's total {value} is not the mean of its {len(points)} questions, "
            f"{100 * sum(points.values()) / len(points)}: this version of it ({light.version()}) counts differently."
        )
    return Score(value, n=len(points), questions=points)


def strange_categories(source: Source, dataset: Any) -> list[str]:
    """Categories of the data that VLMEvalKit's metric does not know, found by letting it judge a right answer of each.

    It would stop at the first right answer of such a category, after all of the asking.
    """
    if source.circular:
        return []
    strange, judge = [], _judge(source)
    for name, rows in dataset.data.groupby("category", dropna=False):
        right = ["\n".join(ast.literal_eval(answer)) for answer in rows["answer"]]
        try:
            judge(None, rows.assign(prediction=right))
        except KeyError:
            strange.append(str(name))
    return strange


def _rounds(rows: list[Any], circles: list[str]) -> Iterator[list[int]]:
    """The places of all first rotations, then of all second ones, and so on."""
    places: dict[str, list[int]] = defaultdict(list)
    for place in sorted(range(len(rows)), key=lambda place: int(rows[place]["index"])):
        places[circles[place]].append(place)
    for turn in range(max(map(len, places.values()))):
        yield [circle[turn] for circle in places.values() if turn < len(circle)]


def _is_right(row: dict[str, Any], reply: str) -> bool:
    """Whether VLMEvalKit's matching finds the right letter in the reply to one rotation."""
    found = light.module("dataset.utils.multiple_choice").prefetch_answer({**row, "prediction": reply})
    return bool(found == row["answer"])


def _circular(source: Source, dataset: Any, path: Path) -> tuple[float, dict[str, float]]:
    """`Overall` x 100, and each question's hit from the file that VLMEvalKit writes."""
    evaluate = light.rewired(source.base().evaluate_heuristic, load=_load, get_intermediate_file_path=_beside)
    with _enclosed(path.parent):
        overall = evaluate(dataset, str(path), model="exact_matching", nproc=1)["Overall"]
    result = _load(_beside(str(path), "_exact_matching_result"))
    return float(overall.item()) * 100, dict(zip(questions(source, result), map(float, result["hit"]), strict=True))


def _counted(source: Source, dataset: Any, path: Path) -> tuple[float, dict[str, float]]:
    """`Final Score` per hundred questions; on the standard 1,000 that is `Final Score` / 10."""
    frame, judge = _load(str(path)), _judge(source)
    total = judge(None, frame)["Final Score"]
    points = [judge(None, frame.iloc[place : place + 1])["Final Score"] for place in range(len(frame))]
    return 100 * total / len(frame), dict(zip(questions(source, frame), map(float, points), strict=True))


def _judge(source: Source) -> Callable[..., Any]:
    """The metric over a table in memory: it tells totals alone, and so is also asked about each row by itself."""
    silent = {"tqdm": lambda rows: rows, "dump": lambda *_: None, "get_intermediate_file_path": lambda *_: ""}
    return light.rewired(source.base().evaluate, load=lambda frame: frame, **silent)


def _table(frame: Any, answers: list[str]) -> str:
    """The predictions as VLMEvalKit's `dump` writes them, which would fall back to a pickle if it can't."""
    told = [answer.encode("utf-8", "replace").decode() for answer in answers]  # half a surrogate pair has no UTF-8
    return str(frame.assign(prediction=told).to_csv(sep="\t", index=False, quoting=csv.QUOTE_ALL, lineterminator="\n"))


def _load(file: Any) -> Any:
    """VLMEvalKit's `load`, with every cell of a table as the text that it is."""
    if isinstance(file, str) and not file.endswith(".tsv"):
        return light.module("smp").load(file)
    types: defaultdict[str, Any] = defaultdict(lambda: str, NUMBERS)
    return importlib.import_module("pandas").read_csv(file, sep="\t", dtype=types)


def _as_read(replies: list[str]) -> list[str]:
    """The replies as the metric will read them back from the file."""
    frame = importlib.import_module("pandas").DataFrame({"index": range(len(replies))})
    return [str(reply) for reply in _load(io.StringIO(_table(frame, replies), newline=""))["prediction"]]


def _beside(file: str, suffix: str, ending: str | None = None) -> str:
    """A name next to the file. VLMEvalKit's own rule replaces every `.tsv` of the whole path."""
    path = Path(file)
    return str(path.with_name(f"{path.stem}{suffix}.{ending or 'tsv'}"))


@contextmanager
def _plain_environment() -> Iterator[None]:
    """VLMEvalKit as it is without settings of the user's: VERBOSE, set to anything, changes how options are matched."""
    wanted = {"PRED_FORMAT": "tsv", "PRINT_VANILLA": "", "VERBOSE": ""}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _enclosed(directory: Path) -> Iterator[None]:
    """Keeps VLMEvalKit's circular evaluation inside of one directory.

    It parks a table as /tmp/<the time in seconds>, where two processes of one second read each other's.
    """
    room = light.module("dataset.utils.multiple_choice")
    clock = room.timestr
    room.timestr = lambda: os.path.relpath(directory.resolve() / "rotations", Path("/tmp").resolve())
    try:
        with _plain_environment(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves the closing of its files to Python
            yield
    finally:
        room.timestr = clock
