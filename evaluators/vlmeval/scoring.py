"""From questions to answers, and from answers to a score, by VLMEvalKit's own prompts, matching and metrics.

The predictions go through a file of a fresh directory, as VLMEvalKit's do, so that they are judged as they read back:
"", "None" and "NA" are "nan". One thing differs from a plain call of its `evaluate`, and alters no score that was
right: the file is read with every answer as text (pandas alone makes 7 of "007" when all of an answer's neighbours look
like numbers).
"""

from __future__ import annotations

import csv
import importlib
import io
import os
import tempfile
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluators.vlmeval import light_import as light
from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.data_sets import questions
from evaluators.vlmeval.llm_judge import JudgeSession
from evaluators.vlmeval.metrics import METRICS
from evaluators.vlmeval_version import version
from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Score

__all__ = ["ask_circles", "ask_rows", "score"]

Ask = Callable[[list[Any]], list[str]]

LOST = "Z"  # VLMEvalKit's letter for "none of the options": stands for rotations of a question that is lost already


def ask_rows(dataset: Any, ask: Ask) -> list[str]:
    """The answers to all rows, in their order."""
    return ask([dataset.build_prompt(row) for row in dataset.data.to_dict("records")])


def ask_circles(benchmark: VLMEvalBenchmark, dataset: Any, ask: Ask, *, judged: bool = False) -> list[str]:
    """The answers to all rows, asking no further rotation of a question after its first wrong one.

    A question counts only if all of its rotations are answered right, so that the score is the same for fewer calls.
    Where a judge will look at answers that name no option (`judged`), those are not wrong yet.
    """
    rows, circles = dataset.data.to_dict("records"), questions(benchmark, dataset.data)
    answers, lost = [LOST] * len(rows), set[str]()
    for places in _rounds(rows, circles):
        asked = [place for place in places if circles[place] not in lost]
        replies = ask([dataset.build_prompt(rows[place]) for place in asked])
        with _plain_environment():
            for place, reply, read in zip(asked, replies, _as_read(replies), strict=True):
                answers[place] = reply
                if _is_lost(rows[place], read, judged=judged):
                    lost.add(circles[place])
    return answers


def score(
    benchmark: VLMEvalBenchmark, dataset: Any, answers: list[str], scratch: Path, judge: JudgeSession | None = None
) -> Score:
    """The score of one answer per row of the data set. The predictions stay in a fresh directory below `scratch`.

    Raises:
        EvaluatorError: VLMEvalKit's metric failed, its total is not what its questions say, or the judge is silent.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    # Fresh even where an earlier attempt left its files: the file of a failure is worth reading.
    path = Path(tempfile.mkdtemp(prefix=f"{benchmark.name}-", dir=scratch)) / f"{benchmark.data_set}.tsv"
    frame = dataset.data.drop(columns="image")
    path.write_text(_table(frame, answers), encoding="utf-8", newline="")
    try:
        with _plain_environment(), light.plain_texts():
            # One block of objects, of which a row is a slice.
            told = frame.assign(prediction=_predictions(path)).astype(object).copy()
            found = METRICS[benchmark.metric].judge(dataset, told, judge)
    except SoupError:
        raise
    except Exception as cause:
        tail = "".join(traceback.format_exception(cause)[-3:])
        raise EvaluatorError(f"{benchmark.name}: VLMEvalKit's metric failed on {path}:\n{tail}") from cause
    points = dict(zip(questions(benchmark, found.rows), found.points, strict=True))
    mean = 100 * sum(points.values()) / len(points)
    if abs(found.mean - mean) > 1e-6:
        raise EvaluatorError(
            f"{benchmark.name}: VLMEvalKit's total {found.mean} is not the mean of its {len(points)} questions, "
            f"{mean}: this version of it ({version()}) counts differently."
        )
    return Score(found.value, n=len(points), questions=points)


def _rounds(rows: list[Any], circles: list[str]) -> Iterator[list[int]]:
    """The places of all first rotations, then of all second ones, and so on."""
    places: dict[str, list[int]] = defaultdict(list)
    for place in sorted(range(len(rows)), key=lambda place: int(rows[place]["index"])):
        places[circles[place]].append(place)
    for turn in range(max(map(len, places.values()))):
        yield [circle[turn] for circle in places.values() if turn < len(circle)]


def _is_lost(row: dict[str, Any], reply: str, *, judged: bool) -> bool:
    """Whether VLMEvalKit's matching finds a wrong letter in the reply to one rotation, or none at all."""
    found = light.module("dataset.utils.multiple_choice").prefetch_answer({**row, "prediction": reply})
    return bool(found != row["answer"]) and not (judged and not found)


def _table(frame: Any, answers: list[str]) -> str:
    """The predictions as VLMEvalKit's `dump` writes them, which would fall back to a pickle if it can't."""
    told = [answer.encode("utf-8", "replace").decode() for answer in answers]  # half a surrogate pair has no UTF-8
    return str(frame.assign(prediction=told).to_csv(sep="\t", index=False, quoting=csv.QUOTE_ALL, lineterminator="\n"))


def _predictions(file: Any) -> list[str]:
    """The column of predictions as it reads back, each as text."""
    read: Any = importlib.import_module("pandas").read_csv
    return [str(answer) for answer in read(file, sep="\t", dtype=str, usecols=["prediction"])["prediction"]]


def _as_read(replies: list[str]) -> list[str]:
    """The replies as the metric will read them back from the file."""
    frame = importlib.import_module("pandas").DataFrame({"index": range(len(replies))})
    return _predictions(io.StringIO(_table(frame, replies), newline=""))


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
