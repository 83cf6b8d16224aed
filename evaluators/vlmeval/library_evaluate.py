"""A score from VLMEvalKit's own `evaluate`: called on the predictions, its result read by the class's rule.

What `evaluate` writes is seen as it is written: the table with each question's points is one of those. Where there is
none and the total is a plain mean, `evaluate` is called with each row by itself, too.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
import tempfile
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from evaluators.answering.judge_session import JudgeSession
from evaluators.vlmeval.library_files import LibraryFiles, LibraryImages
from evaluators.vlmeval.library_judge import LibraryClient, LibraryJudge
from evaluators.vlmeval.library_types import DataSet, Frame
from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval.limited_calls import LimitedCalls
from evaluators.vlmeval.question_groups import grouped_ids, mean_of_parts, with_companions
from evaluators.vlmeval.rule import Rule
from evaluators.vlmeval.stand_ins import load_inner_imports, replaced_names
from soup.errors import EvaluatorError

__all__ = ["MetricResult", "score_by_evaluate", "total_of"]

AT_MOST = "at most 100"
"""How the caption of a rule ends whose total, and each question's points, VLMEvalKit would let go above 100."""

ROUNDING = 0.06  # of VLMEvalKit's totals: some are rounded to one decimal


@dataclass(frozen=True)
class MetricResult:
    """What a metric says of a table of predictions.

    Args:
        value: The score, 0 to 100.
        mean: VLMEvalKit's own mean over the questions, 0 to 100.
        points: The points of each row's question, 0 to 1; empty where only the total is told.
        rows: One row or more for each question, in the order of the points.
    """

    value: float
    mean: float
    points: Sequence[float]
    rows: Frame


def score_by_evaluate(rule: Rule, data_set: DataSet, frame: Frame, judge: JudgeSession | None) -> MetricResult:
    """Score predictions by VLMEvalKit's own `evaluate` and a rule.

    Args:
        rule: Where its result has the total and the points.
        data_set: VLMEvalKit's.
        frame: Its rows with a column of predictions, each a text.
        judge: The LLM judge's session, where a judge is asked.

    Raises:
        EvaluatorError: there is no total where the rule expects it, or it is not what the points say.
    """
    load_inner_imports(type(data_set))
    with tempfile.TemporaryDirectory(prefix="soup-vlmeval-") as folder, LimitedCalls(Path(folder)) as limited:
        files = LibraryFiles(Path(folder), data_set.dataset_name)
        library_judge = LibraryJudge(judge, rule.replies, Path(folder))
        names = {**files.names(judge), **files.listeners(rule.points_from), **_mended(rule), **_completed(rule)}
        names |= {"build_judge": library_judge, "OpenAI": lambda **_: LibraryClient(library_judge)}
        names["Image"] = LibraryImages(data_set)
        names |= limited.functions(rule.call.limited)
        if rule.call.is_exact:
            names["round"] = lambda number, *_: number
        if rule.call.reads_itself:
            names[next(base.__name__ for base in type(data_set).__mro__[1:])] = lambda *_: data_set
        with (
            replaced_names(names),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # files that are left open, and what pandas says of VLMEvalKit's ways
            read = files.read_back(with_companions(data_set, rule, frame), data_set.whole)
            data_set, rows = _evaluated_rows(rule, data_set, read)
            result = _result(rule, data_set, rows, files, library_judge)
            if judge is not None:
                judge.refuse_unread(
                    library_judge.unread(by_prompt=bool(rule.spread))[:: rule.replies.tries], len(frame)
                )
                _refuse_unread(rule, files.tables, judge)
            has_total = rule.total and result is not None and len(rows) == len(frame)
            total = total_of(result, rule) if has_total else math.nan
            return _with_any_points(rule, data_set, rows, frame, total, files, judge)


def _mended(rule: Rule) -> dict[str, Callable[..., Any]]:
    """Return functions of VLMEvalKit's, by name, with results such as it can go on with."""

    def with_result(name: str, mend: Callable[[Any], Any]) -> Callable[..., Any]:
        module, _, attribute = name.rpartition(".")
        function = getattr(vlmeval_module(module), attribute)
        return lambda *values, **settings: mend(function(*values, **settings))

    return {name.rpartition(".")[2]: with_result(name, mend) for name, mend in rule.call.mended.items()}


def _completed(rule: Rule) -> dict[str, type]:
    """Return classes of VLMEvalKit's, by name, with what they lack."""
    completed = {}
    for name, lacking in rule.call.completed.items():
        module, _, attribute = name.rpartition(".")
        completed[attribute] = type(attribute, (getattr(vlmeval_module(module), attribute),), dict(lacking))
    return completed


def _evaluated_rows(rule: Rule, data_set: DataSet, rows: Frame) -> tuple[DataSet, Frame]:
    """Return what `evaluate` is called with: the data set, and its rows with those that it stops without."""
    if len(rows) > len(data_set.data):  # some look their rows up
        data_set = copy.copy(data_set)
        data_set.data = data_set.whole
    rows = rows.fillna({name: 0 for name in rule.call.zeros.split() if name in rows})
    rows = rows.astype(dict.fromkeys(rule.call.plain.split(), object))
    if rule.spread and rule.points:
        rows = _with_each_value(data_set, rows)
    if len(rows) < rule.call.rows:
        rows = _with_copies(rows, rule.call.rows)
        data_set = copy.copy(data_set)
        data_set.data = rows
    return data_set, rows


def _result(rule: Rule, data_set: DataSet, rows: Frame, files: LibraryFiles, library_judge: LibraryJudge) -> Any:
    """Return what `evaluate` says of all rows; None where questions are scored alone, or it can't sum up their points.

    Raises:
        EvaluatorError: a judge failed: some functions catch whatever it raises, and count it as wrong.
        Exception: whatever VLMEvalKit raises before all points are told.
    """
    if rule.spread and not rule.points:
        return None
    try:
        return files.evaluate(rule, data_set, rows, library_judge.session)
    except Exception:  # some divide by what is 0 for poor answers, or for a part of the questions
        if not rule.stops and not {*rows["index"]} <= {*files.points}:
            raise
        return None
    finally:
        if library_judge.failures:
            raise library_judge.failures[0]


def _with_any_points(
    rule: Rule,
    data_set: DataSet,
    rows: Frame,
    frame: Frame,
    total: float,
    files: LibraryFiles,
    judge: JudgeSession | None,
) -> MetricResult:
    """Return the result with the points that were told or written, or else those of questions evaluated alone."""
    if rule.points_from:
        points = [files.points[index] / rule.full for index in rows["index"]][: len(frame)]
        return _with_points(rule, total, _whole(rule, frame, points), frame)
    table = next((table for table in reversed(files.tables) if _has_points(rule, table, rows)), None)
    if table is not None:
        table = table[table["index"].isin([*rows["index"]][: len(frame)])] if len(rows) > len(frame) else table
        if judge is not None:  # VLMEvalKit marks grades that it can't read by numbers below 0
            unread = ["a grade that can't be read" for cell in table[rule.points] if _number(cell) < 0]
            judge.refuse_unread(unread, len(table))
        return _with_points(rule, total, _whole(rule, table, _table_points(rule, table)), table)
    if rule.stops or ((rule.is_mean or rule.parts) and rule.total and not rule.points):
        try:
            return _by_question(rule, data_set, rows, total, partial(_alone_points, rule, files, judge))
        except Exception:  # its metric takes no part of the rows: the total alone is told
            if judge is None or rule.leaves_out:
                raise
    if math.isnan(total):
        raise EvaluatorError(f"VLMEvalKit wrote no table with a column '{rule.points}'.")
    return MetricResult(total, total, (), frame)


def total_of(result: Any, rule: Rule) -> float:
    """Read the total that a rule names out of VLMEvalKit's result, as a percentage.

    Raises:
        EvaluatorError: it is not there, or no number from 0 to 100.
    """
    try:
        parts = [_cell(result, part) for part in rule.total.split("+")]
        value = rule.scale * sum(parts) / len(parts)
    except (KeyError, IndexError, TypeError, ValueError) as cause:
        raise EvaluatorError(
            f"VLMEvalKit's result has no '{rule.total}' where it is expected: {str(result)[:400]}"
        ) from cause
    if rule.caption.endswith(AT_MOST):
        value = min(value, 100.0)
    if not math.isfinite(value) or not -1e-9 <= value <= 100 + 1e-9:
        raise EvaluatorError(f"VLMEvalKit's total is {value}, not within 0 to 100.")
    return min(max(value, 0.0), 100.0)


def _cell(result: Any, address: str) -> float:
    row, _, name = address.rpartition("/")
    if isinstance(result, Mapping):
        result = result[row][name] if row else result[name]
        return float(result[0] if isinstance(result, list) else result)
    result = result.rename(columns=str)
    if address.startswith("*"):
        columns = [address[1:]] if address[1:] else list(result.columns)
        cells = [_single(cell) for column in columns for cell in result[column]]
        numbers = [float(cell) for cell in cells if cell is not None]  # None: of a kind there is no question
        return sum(numbers) / len(numbers)
    for cell in row.split("&") if row else ():
        result = result[(result.astype(str) == cell).any(axis=1)]
    if not row and len(result) != 1:
        raise KeyError(address)
    return float(str(result[name].iloc[0]).removesuffix("%"))


def _single(cell: Any) -> Any:
    return cell[0] if isinstance(cell, list) else cell


def _refuse_unread(rule: Rule, tables: Sequence[Frame], judge: JudgeSession) -> None:
    column, start = rule.replies.unread
    table = next((table for table in reversed(tables) if column in table), None)
    if table is not None:
        judge.refuse_unread([str(cell) for cell in table[column] if str(cell).startswith(start)], len(table))


def _has_points(rule: Rule, table: Frame, frame: Frame) -> bool:
    return bool(rule.points) and rule.points in table and "index" in table and 0 < len(table) <= len(frame)


def _number(cell: object) -> float:
    value = float(cell) if isinstance(cell, int | float | str) or hasattr(cell, "__float__") else 0.0
    return value if math.isfinite(value) else 0.0


def _with_points(rule: Rule, total: float, points: list[float], rows: Frame) -> MetricResult:
    """Return the result with points; a total that is their mean is taken from them, so that it is not rounded."""
    mean = mean_of_parts(replace(rule, parts=None, weight=None), rows, points)
    if not rule.is_mean and rule.parts is None:
        return MetricResult(total, mean, points, rows)
    value = mean_of_parts(rule, rows, points)
    is_off = abs(value - total) > max(ROUNDING, ROUNDING / 10 * rule.scale)
    may_be_more = rule.leaves_out or rule.caption.endswith(AT_MOST)
    if rule.total and is_off and not (may_be_more and total > value):
        raise EvaluatorError(
            f"VLMEvalKit's total {total} is not what the points of its {len(points)} rows come to, {value}: this "
            "version of it counts differently."
        )
    return MetricResult(value, mean, points, rows)


def _by_question(
    rule: Rule, data_set: DataSet, rows: Frame, total: float, evaluate: Callable[[DataSet, Frame], float]
) -> MetricResult:
    """Return the result with points, for which each question is evaluated alone; a judge's replies are kept by now."""
    questions = grouped_ids(rule, rows) if rule.is_whole else [*range(len(rows))]
    points = {}
    for question, positions in _positions(questions).items():
        part = copy.copy(data_set)
        if rule.call.pairs_rows:
            part.data = data_set.data.iloc[positions]
        alone = _alone(data_set, rows, positions)
        try:
            points[question] = evaluate(part, alone)
        except Exception as cause:
            if rule.stops:
                evaluate(part, alone.assign(prediction=alone["answer"]))  # at the answer alone, and at no other
            elif not (rule.leaves_out and isinstance(cause, EvaluatorError)):  # it has no total
                raise
            points[question] = 0.0
    return _with_points(rule, total, [points[question] for question in questions], rows)


def _alone_points(rule: Rule, files: LibraryFiles, judge: JudgeSession | None, data_set: DataSet, rows: Frame) -> float:
    """Return the points of one question, by the total that VLMEvalKit tells of it or by a table that it writes.

    Raises:
        EvaluatorError: it has no total.
        Exception: whatever VLMEvalKit raises.
    """
    result = files.evaluate(rule, data_set, rows, judge)
    if rule.total:
        return total_of(result, rule) / 100
    table = next(table for table in reversed(files.tables) if _has_points(rule, table, rows))
    return min(_table_points(rule, table))


def _table_points(rule: Rule, table: Frame) -> list[float]:
    return [max(_number(cell), 0) / rule.full for cell in table[rule.points]]


def _alone(data_set: DataSet, rows: Frame, positions: list[int]) -> Frame:
    """Return the rows of one question, once for each value of the columns that its rule spreads."""
    return _once_for_each(rows, positions, data_set.spread)


def _once_for_each(rows: Frame, positions: list[int], values: Mapping[str, Sequence[object]]) -> Frame:
    times = max(map(len, values.values()), default=1)
    alone = rows.iloc[positions * times].reset_index(drop=True)
    return alone.assign(**{name: [each[i % len(each)] for i in range(len(alone))] for name, each in values.items()})


def _with_each_value(data_set: DataSet, rows: Frame) -> Frame:
    """Return the rows, and copies of the first that have the values that they lack in columns that the rule spreads."""
    from pandas import concat

    present = {name: {*rows[name]} for name in data_set.spread}
    lacking = {name: [each for each in values if each not in present[name]] for name, values in data_set.spread.items()}
    if not any(lacking.values()):
        return rows
    copies = _once_for_each(rows, [0], {name: values for name, values in lacking.items() if values})
    return concat([rows, copies.assign(index=[f"copy {i}" for i in range(len(copies))])], ignore_index=True)


def _with_copies(rows: Frame, count: int) -> Frame:
    """Return the rows, and copies of them behind those, so many in all; their indices are numbers."""
    from pandas import concat

    copies = rows.iloc[[i % len(rows) for i in range(count - len(rows))]]
    first = 1 + max(rows["index"])
    return concat([rows, copies.assign(index=range(first, first + len(copies)))], ignore_index=True)


def _whole(rule: Rule, rows: Frame, points: list[float]) -> list[float]:
    """Return the points of each row's question: of a group that is one, what the rule says of them, or the lowest."""
    if not rule.is_whole:
        return points
    questions, records = grouped_ids(rule, rows), rows.to_dict("records")
    of_group = rule.whole or (lambda _, its_points: min(its_points))
    whole = {
        question: of_group([records[i] for i in each], [points[i] for i in each])
        for question, each in _positions(questions).items()
    }
    return [whole[question] for question in questions]


def _positions(questions: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    positions: dict[Hashable, list[int]] = {}
    for position, question in enumerate(questions):
        positions.setdefault(question, []).append(position)
    return positions
