"""A score from VLMEvalKit's own `evaluate`: called on the predictions, its result read by the class's rule.

What `evaluate` writes is seen as it is written: the table with each question's points is one of those. Where there is
none and the total is a plain mean, `evaluate` is called with each row by itself, too.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.answering.judge_session import JudgeSession
from evaluators.vlmeval.library_types import DataSet, Frame
from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval.rules import Rule
from evaluators.vlmeval.stand_ins import (
    SerialPool,
    SilentBar,
    SilentLogger,
    SteadyDice,
    load_inner_imports,
    replaced_names,
)
from soup.errors import EvaluatorError

__all__ = ["MetricResult", "score_by_evaluate", "total_of"]

ROUNDING = 0.06  # of VLMEvalKit's totals: some are rounded to one decimal


@dataclass(frozen=True)
class MetricResult:
    """What a metric says of a table of predictions.

    Args:
        value: The score, 0 to 100.
        mean: VLMEvalKit's own mean over the questions, 0 to 100.
        points: Each question's points, 0 to 1; empty where only the total is told.
        rows: One row for each question, in the order of the points.
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
    with tempfile.TemporaryDirectory(prefix="soup-vlmeval-") as folder:
        files = _Files(Path(folder), data_set.dataset_name)
        failures: list[EvaluatorError] = []
        names = {**files.names(judge), "build_judge": lambda **settings: _Judge(judge, settings, failures)}
        with replaced_names(names), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files that are left open, and what pandas says of VLMEvalKit's ways
            rows = files.read_back(frame)
            try:
                result = files.evaluate(rule, data_set, rows, judge)
            finally:
                if failures:  # some of VLMEvalKit's functions catch whatever the judge raises, and count it as wrong
                    raise failures[0]
            if judge is not None:
                _refuse_unread(rule, files.tables, judge)
            total = total_of(result, rule) if rule.total else math.nan
            table = next((table for table in reversed(files.tables) if _has_points(rule, table, frame)), None)
            if table is not None:
                if judge is not None:  # VLMEvalKit marks grades that it can't read by numbers below 0
                    unread = ["a grade that can't be read" for cell in table[rule.points] if _number(cell) < 0]
                    judge.refuse_unread(unread, len(table))
                return _with_points(
                    rule, total, [max(_number(cell), 0) / rule.full for cell in table[rule.points]], table
                )
            if rule.is_mean and judge is None and not rule.points:
                alone = (rows.iloc[index : index + 1].reset_index(drop=True) for index in range(len(rows)))
                points = [total_of(files.evaluate(rule, data_set, row, None), rule) / 100 for row in alone]
                return _with_points(rule, total, points, frame)
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
    if rule.caption.endswith("at most 100"):
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
        numbers = [float(_single(cell)) for column in columns for cell in result[column]]
        return sum(numbers) / len(numbers)
    for cell in row.split("&") if row else ():
        result = result[(result.astype(str) == cell).any(axis=1)]
    if not row and len(result) != 1:
        raise KeyError(address)
    return float(result[name].iloc[0])


def _single(cell: Any) -> Any:
    return cell[0] if isinstance(cell, list) else cell


def _refuse_unread(rule: Rule, tables: Sequence[Frame], judge: JudgeSession) -> None:
    column, start = rule.unread
    table = next((table for table in reversed(tables) if column and column in table), None)
    if table is not None:
        judge.refuse_unread([str(cell) for cell in table[column] if str(cell).startswith(start)], len(table))


def _has_points(rule: Rule, table: Frame, frame: Frame) -> bool:
    return bool(rule.points) and rule.points in table and "index" in table and 0 < len(table) <= len(frame)


def _number(cell: object) -> float:
    value = float(cell) if isinstance(cell, int | float | str) or hasattr(cell, "__float__") else 0.0
    return value if math.isfinite(value) else 0.0


def _with_points(rule: Rule, total: float, points: list[float], rows: Frame) -> MetricResult:
    """Return the result with points; a total that is their mean is taken from them, so that it is not rounded."""
    mean = 100 * sum(points) / len(points)
    if not rule.is_mean:
        return MetricResult(total, mean, points, rows)
    if rule.total and abs(mean - total) > max(ROUNDING, ROUNDING / 10 * rule.scale):
        raise EvaluatorError(
            f"VLMEvalKit's total {total} is not the mean of its {len(points)} questions, {mean}: this version of it "
            "counts differently."
        )
    return MetricResult(mean, mean, points, rows)


class _Files:
    """What `evaluate` reads and writes: Excel's files stay in memory, every table is remembered as it was written."""

    def __init__(self, folder: Path, name: str) -> None:
        library = vlmeval_module("smp")
        self._load, self._dump = library.load, library.dump
        self._folder, self._name, self._calls = folder, name, 0
        self._kept: dict[str, Frame] = {}
        self.tables: list[Frame] = []

    def read_back(self, frame: Frame) -> Frame:
        """Return the rows as VLMEvalKit reads them from the file that it writes, but every answer as text."""
        file = str(self._folder / "rows.tsv")
        self._dump(frame, file)
        return self._load(file).assign(prediction=[str(answer) for answer in frame["prediction"]])

    def evaluate(self, rule: Rule, data_set: DataSet, rows: Frame, judge: JudgeSession | None) -> Any:
        """Call the data set's `evaluate` on rows, in a fresh folder: it takes what it finds there for its own."""
        self._calls += 1
        folder = self._folder / str(self._calls)
        folder.mkdir()
        file = str(folder / f"soup_{self._name}.{rule.suffix}")
        Path(file).touch()
        self._kept[file] = rows.set_axis(list(rows["index"])) if rule.by_index else rows
        settings: dict[str, object] = {}
        if judge is not None:
            settings = {"nproc": 4, **({"model": "judge"} if rule.takes_model else {})}
        elif rule.judge == "may":
            settings = {"model": "exact_matching"}
        return data_set.evaluate(file, **settings)

    def names(self, judge: JudgeSession | None) -> dict[str, object]:
        """Return what the names of VLMEvalKit's modules that touch files or run things at once stand for."""
        return {
            "load": self.load,
            "dump": self.dump,
            "track_progress_rich": self._rows_by(judge),
            "tqdm": SilentBar(),
            "mp": SerialPool(),
            "rd": SteadyDice(),
            "logger": SilentLogger(),
            "rotational_eval": lambda *_: None,  # TDBench: it looks for the files of other rotations
        }

    def load(self, file: str, **options: object) -> Any:
        """Read a file of VLMEvalKit's."""
        kept = self._kept.get(str(file))
        return self._load(file, **options) if kept is None else kept.copy()

    def dump(self, data: Any, file: str, **options: object) -> None:
        """Write a file of VLMEvalKit's."""
        if hasattr(data, "columns"):
            self.tables.append(data.copy())
            if str(file).endswith(".xlsx") or str(file) in self._kept:
                self._kept[str(file)] = data.copy()
                Path(file).touch()
                return
        self._dump(data, file, **options)

    def _rows_by(self, judge: JudgeSession | None) -> Callable[..., list[Any]]:
        def track(
            func: Callable[..., Any],
            tasks: Sequence[Any] = (),
            nproc: int | None = 1,
            save: str | None = None,
            keys: Sequence[object] | None = None,
            **_: object,
        ) -> list[Any]:
            def call(index: int) -> Any:
                task = tasks[index]
                if isinstance(task, Mapping):
                    return func(**task)
                return func(*task) if isinstance(task, tuple | list) else func(task)

            values = judge.map(call, range(len(tasks))) if judge else [call(index) for index in range(len(tasks))]
            if save is not None and keys is not None:
                before = self._load(save) if Path(save).exists() else {}
                self._dump({**before, **dict(zip(keys, values, strict=True))}, save)
            return values

        return track


class _Judge:
    """The judge as VLMEvalKit's functions know one."""

    fail_msg = "Failed to obtain answer via API."
    model = "judge"

    def __init__(
        self, session: JudgeSession | None, settings: Mapping[str, Any], failures: list[EvaluatorError]
    ) -> None:
        if session is None:
            raise EvaluatorError("VLMEvalKit asks for a judge where none is expected.")
        self._session, self._failures = session, failures
        self._temperature = settings.get("temperature", 0)
        self.system_prompt: str = settings.get("system_prompt") or ""

    def working(self) -> bool:
        """Whether it answers; where it does not, the session says so."""
        return True

    def generate(self, message: Any, **settings: Any) -> str:
        """Return the judge's reply to a text, or to the texts of a message."""
        parts = [message] if isinstance(message, str | Mapping) else list(message)
        texts = [part if isinstance(part, str) else str(part["value"]) for part in parts]
        if any(not isinstance(part, str) and part.get("type") != "text" for part in parts):
            raise EvaluatorError("Its judge is to look at images, and only texts are sent to a judge here.")
        temperature = settings.get("temperature", self._temperature)
        try:
            return self._session.generate("\n".join(texts), temperature, system=self.system_prompt)
        except EvaluatorError as failure:
            self._failures.append(failure)
            raise
