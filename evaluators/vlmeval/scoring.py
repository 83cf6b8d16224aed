"""From questions to answers, and from answers to a score, by VLMEvalKit's own prompts, matching and metrics.

The predictions go through a file of a fresh directory, as VLMEvalKit's do, so that they are judged as they read back:
"", "None" and "NA" are "nan". One thing differs from a plain call of its `evaluate`, and alters no score that was
right: the file is read with every answer as text (pandas alone makes 7 of "007" when all of an answer's neighbours look
like numbers).
"""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluators.answering.judge_session import JudgeSession
from evaluators.vlmeval.answer_form import LOST, unparsed_share
from evaluators.vlmeval.benchmarks import VLMEvalBenchmark
from evaluators.vlmeval.data_sets import question_ids
from evaluators.vlmeval.known_results import known_results
from evaluators.vlmeval.library_types import IMAGE_COLUMNS, DataSet, Frame, Row
from evaluators.vlmeval.light_import import python_strings, vlmeval_module
from evaluators.vlmeval.metrics import metric_of
from evaluators.vlmeval.stand_ins import replaced_names
from evaluators.vlmeval_version import version
from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Prompt, Score
from soup.support.text import whole_characters

__all__ = ["ask_circles", "ask_rows", "plain_part", "score", "total_of"]

PLAIN = {"PRED_FORMAT": "tsv", "PRINT_VANILLA": "", "VERBOSE": ""}
_environment: dict[str, str | None] = {}  # what these were before
_inside: list[None] = []

Answer = Callable[[list[Prompt]], list[str]]
"""Gives the answers to prompts, in their order."""


def ask_rows(data_set: DataSet, answer: Answer) -> list[str]:
    """Ask for all rows of the data set, and return the answers in their order."""
    with replaced_names({}):  # prompts of some are made of cells that VLMEvalKit would execute
        prompts = [data_set.build_prompt(row) for row in data_set.data.to_dict("records")]
    return answer([[plain_part(part) for part in prompt] for prompt in prompts])


def plain_part(part: Mapping[str, str]) -> dict[str, str]:
    """Return a part of a prompt without what only VLMEvalKit's own models know."""
    return {name: part[name] for name in ("type", "value", "video") if name in part}


def ask_circles(
    benchmark: VLMEvalBenchmark, data_set: DataSet, answer: Answer, *, has_judge: bool = False
) -> list[str]:
    """Ask for all rows, but for no further rotation of a question after its first wrong one.

    A question counts only if all of its rotations are answered right, so that the score is the same for fewer calls.

    Args:
        benchmark: Whose data set.
        data_set: VLMEvalKit's.
        answer: What answers prompts.
        has_judge: Whether a judge will look at answers that name no option: those are not wrong yet.

    Returns:
        One answer per row, in their order.
    """
    rows, questions = data_set.data.to_dict("records"), question_ids(benchmark, data_set.data)
    answers, lost = [LOST] * len(rows), set[str]()
    letters = known_results(data_set, "letters")
    for round_indices in _rounds(rows, questions):
        indices = [index for index in round_indices if questions[index] not in lost]
        replies = answer([data_set.build_prompt(rows[index]) for index in indices])
        with _plain_environment():
            for index, reply, read in zip(indices, replies, _as_read(replies), strict=True):
                answers[index] = reply
                if _is_lost(rows[index], read, letters, has_judge=has_judge):
                    lost.add(questions[index])
    return answers


def score(
    benchmark: VLMEvalBenchmark, data_set: DataSet, answers: list[str], scratch: Path, judge: JudgeSession | None = None
) -> Score:
    """Score one answer per row of the data set.

    Args:
        benchmark: Whose data set.
        data_set: VLMEvalKit's.
        answers: In the order of its rows.
        scratch: A directory; the predictions stay in a fresh one below it.
        judge: The LLM judge's session, where a judge is asked.

    Raises:
        EvaluatorError: VLMEvalKit's metric failed, its total is not what its questions say, or the judge is silent.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    # Fresh even where an earlier attempt left its files: the file of a failure is worth reading.
    path = Path(tempfile.mkdtemp(prefix=f"{benchmark.name}-", dir=scratch)) / f"{benchmark.data_set}.tsv"
    frame = data_set.data.drop(columns=[*IMAGE_COLUMNS], errors="ignore")
    path.write_text(_table(frame, answers), encoding="utf-8", newline="")
    try:
        with _plain_environment(), python_strings():
            # One block of objects, of which a row is a slice.
            predicted = frame.assign(prediction=_predictions(path)).astype(object).copy()
            unparsed = unparsed_share(benchmark.metric, predicted, known_results(data_set, "parsed"))
            result = metric_of(benchmark).score_rows(data_set, predicted, judge)
    except SoupError:
        raise
    except Exception as cause:
        tail = "".join(traceback.format_exception(cause)[-3:])
        raise EvaluatorError(f"{benchmark.name}: VLMEvalKit's metric failed on {path}:\n{tail}") from cause
    if not len(result.points):
        return Score(result.value, n=len(data_set.data))
    points = dict(zip(question_ids(benchmark, result.rows), result.points, strict=True))
    mean = 100 * sum(points.values()) / len(points)
    if abs(result.mean - mean) > 1e-6:
        raise EvaluatorError(
            f"{benchmark.name}: VLMEvalKit's total {result.mean} is not the mean of its {len(points)} questions, "
            f"{mean}: this version of it ({version()}) counts differently."
        )
    return Score(result.value, n=len(points), questions=points, unparsed=unparsed)


def total_of(benchmark: VLMEvalBenchmark, data_set: DataSet) -> Callable[[Mapping[str, float]], float]:
    """Return what makes a score, 0 to 100, of the points of all questions by their ids.

    Args:
        benchmark: Whose data set.
        data_set: VLMEvalKit's; its rows are looked at once.
    """
    make_sum = metric_of(benchmark).sum_points
    if make_sum is None:
        return lambda points: 100 * math.fsum(points.values()) / len(points)
    questions = question_ids(benchmark, data_set.data)
    with python_strings():
        sum_points = make_sum(data_set.data.drop(columns=[*IMAGE_COLUMNS], errors="ignore"))

    def total(points: Mapping[str, float]) -> float:
        with python_strings():
            return sum_points([points[question] for question in questions])

    return total


def _rounds(rows: list[Row], questions: list[str]) -> Iterator[list[int]]:
    """Yield the indices of all first rotations, then of all second ones, and so on."""
    rotations: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(rows)), key=lambda index: int(rows[index]["index"])):
        rotations[questions[index]].append(index)
    for turn in range(max(map(len, rotations.values()))):
        yield [indices[turn] for indices in rotations.values() if turn < len(indices)]


def _is_lost(row: Row, reply: str, letters: dict[tuple[int, str], Any], *, has_judge: bool) -> bool:
    """Whether VLMEvalKit's matching finds a wrong letter in the reply to one rotation, or none at all."""
    key = row["index"], reply
    if key not in letters:
        letters[key] = vlmeval_module("dataset.utils.multiple_choice").prefetch_answer({**row, "prediction": reply})
    letter = letters[key]
    return bool(letter != row["answer"]) and not (has_judge and not letter)


def _table(frame: Frame, answers: list[str]) -> str:
    """Write the predictions as VLMEvalKit's `dump` writes them, which would fall back to a pickle if it can't."""
    texts = [whole_characters(answer) for answer in answers]
    return str(frame.assign(prediction=texts).to_csv(sep="\t", index=False, quoting=csv.QUOTE_ALL, lineterminator="\n"))


def _predictions(file: Path | io.StringIO) -> list[str]:
    """Return the column of predictions as it reads back, each as text."""
    from pandas import read_csv

    return [str(answer) for answer in read_csv(file, sep="\t", dtype=str, usecols=["prediction"])["prediction"]]


def _as_read(replies: list[str]) -> list[str]:
    """Return the replies as the metric will read them back from the file."""
    from pandas import DataFrame

    frame = DataFrame({"index": range(len(replies))})
    return _predictions(io.StringIO(_table(frame, replies), newline=""))


@contextmanager
def _plain_environment() -> Iterator[None]:
    """Undo a user's settings of VLMEvalKit for a while: VERBOSE, set to anything, changes how options are matched."""
    if not _inside:  # of evaluations that wait for a judge several may be inside: the last one undoes it
        _environment.update({name: os.environ.get(name) for name in PLAIN})
        os.environ.update(PLAIN)
    _inside.append(None)
    try:
        yield
    finally:
        _inside.pop()
        for name, value in _environment.items() if not _inside else ():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
