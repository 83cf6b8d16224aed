"""Tables of a run: views of its journal and of the soups that came out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soup.errors import JournalError
from soup.evaluation.api import Score
from soup.evaluation.bootstrap import paired_difference
from soup.evaluation.journal import Entry, Journal
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.trial import Trial
from soup.merging.recipe import describe_objective
from soup.search.result import Soup
from soup.support.options import option_name

__all__ = ["ScoreRow", "ScoreTable", "run_table", "trials_table"]


PARTS = ("all", "selection", "report")


@dataclass(frozen=True)
class ScoreRow:
    """A line of a table: a label, values by column (None where there is none), and a remark."""

    label: str
    values: tuple[float | None, ...]
    remark: str = ""


@dataclass(frozen=True)
class ScoreTable:
    """Scores to be shown: the columns' names, and rows."""

    columns: tuple[str, ...]
    rows: tuple[ScoreRow, ...]

    def as_json(self) -> dict[str, object]:
        """The same as JSON: one object a row."""
        shown = [
            {"name": row.label, "values": dict(zip(self.columns, row.values, strict=True)), "remark": row.remark}
            for row in self.rows
        ]
        return {"schema": 1, "columns": list(self.columns), "rows": shown}

    def by_part(self) -> dict[str, ScoreTable]:
        """A table for each part of the questions: narrower than all of them side by side, which no terminal holds."""
        parts = dict.fromkeys(map(_part, self.columns))
        return {part: self._only(part) for part in parts}

    def _only(self, part: str) -> ScoreTable:
        indices = [index for index, column in enumerate(self.columns) if _part(column) == part]
        names = tuple(self.columns[index].removesuffix(_suffix(part)) for index in indices)
        rows = [ScoreRow(row.label, tuple(row.values[index] for index in indices), row.remark) for row in self.rows]
        return ScoreTable(names, tuple(rows))


def trials_table(trials: Sequence[Trial], soup: Soup | None = None) -> ScoreTable:
    """Trials in the order in which they were made.

    Args:
        trials: At least one.
        soup: The result that they led to, whose acceptances and differences are remarked upon.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.scores))
    reported = any(trial.report for trial in trials)
    columns = (*names, "overall", *(["report overall"] if reported else []))
    rows = []
    for trial in trials:
        values = [trial.scores[name].value if name in trial.scores else None for name in names]
        overalls = [trial.overall, *([trial.report_overall] if reported else [])]
        rows.append(ScoreRow(" + ".join(trial.names), (*values, *overalls), _remark(trial, soup) if soup else ""))
    return ScoreTable(columns, tuple(rows))


def _remark(trial: Trial, soup: Soup) -> str:
    """Whether it was accepted, and how sure the difference to the best before it is (95 %, paired bootstrap)."""
    remarks = ["accepted"] if soup.accepted(trial) else []
    rival = soup.best_before(trial)
    if rival and (difference := paired_difference(trial.scores, rival.scores, trial.objective)):
        remarks.append(f"{difference} against {' + '.join(rival.names)}")
    if trial.broken:
        remarks.append(f"breaks {'; '.join(trial.broken)}")
    return ", ".join(remarks)


def run_table(run: Path) -> ScoreTable:
    """Everything a run has evaluated: single checkpoints, then each strategy's soup, on each part of the questions.

    The overall is the one that the run chose by: its objective, over the benchmarks of its search.

    Raises:
        JournalError: there is no journal, or it is damaged.
    """
    directory = RunDirectory(run)
    if not directory.journal.is_file():
        raise JournalError(
            f"{directory.journal}: no journal. A run directory is what {option_name('run_dir')} names, or stands "
            "beside the pool."
        )
    with Journal(directory.journal, write=False) as journal:
        entries = list(journal)
    results = _read_results(directory)
    models = [_Model(digest, name, "") for digest, name in _singles(entries).items()]
    models += [_Model(result.digest, result.strategy, result.remark) for result in results]
    parts = [part for part in PARTS if any(entry.split.part == part for entry in entries)]
    names = list(dict.fromkeys(name for entry in entries for name in _scores_of(entry)))
    overalls = _overalls(results)
    columns = tuple(f"{name}{_suffix(part)}" for part in parts for name in [*names, *overalls])
    rows = [ScoreRow(model.label, _values(entries, model, names, overalls, parts), model.remark) for model in models]
    return ScoreTable(columns, tuple(rows))


@dataclass(frozen=True)
class _Result:
    """What a strategy came to, as far as a table needs it."""

    strategy: str
    digest: str
    remark: str
    objective: Objective
    benchmarks: tuple[str, ...]


@dataclass(frozen=True)
class _Model:
    """A model of the table: the digest of its recipe, its label, and a remark."""

    digest: str
    label: str
    remark: str


def _read_results(run: RunDirectory) -> list[_Result]:
    """What strategies came to, by the files that they left."""
    results = []
    for path in sorted(run.results.glob("[!.]*.json")):
        try:
            results.append(_read_result(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise JournalError(f"{path}: damaged ({error}). Remove it; the same search writes it anew.") from error
    return results


def _read_result(document: dict[str, Any]) -> _Result:
    objective = document.get("objective", {})
    text = describe_objective(objective)
    remark = " + ".join(document["chosen"]) + (f" ({text})" if text else "")
    weights = Objective(objective.get("weights", {}))
    return _Result(
        document["strategy"], document["recipe"]["digest"], remark, weights, (*document["trials"][0]["scores"],)
    )


def _overalls(results: Sequence[_Result]) -> dict[str, _Result | None]:
    """The overall's columns: one, or one for each way in which strategies of this run chose.

    Without a strategy it is the plain mean, over the benchmarks that all models were scored on.
    """
    ways: dict[tuple[object, ...], list[_Result]] = {}
    for result in results:
        ways.setdefault((tuple(sorted(result.objective.weights.items())), result.benchmarks), []).append(result)
    if len(ways) < 2:
        return {"overall": results[0] if results else None}
    return {f"overall ({', '.join(result.strategy for result in way)})": way[0] for way in ways.values()}


def _singles(entries: Sequence[Entry]) -> dict[str, str]:
    """The names of single models by their recipes' digests, in the order in which they were scored."""
    return {entry.recipe: entry.names[0] for entry in entries if len(entry.names) == 1}


def _scores_of(entry: Entry) -> Mapping[str, float]:
    """An entry's score by its benchmark, or each of its parts, as a search counts them."""
    return entry.score.parts or {entry.benchmark: entry.score.value}


def _suffix(part: str) -> str:
    return "" if part == "all" else f" ({part})"


def _part(column: str) -> str:
    """Which part of the questions a column of a run's table is about."""
    return next((part for part in PARTS if part != "all" and column.endswith(_suffix(part))), "all")


def _values(
    entries: Sequence[Entry],
    model: _Model,
    names: Sequence[str],
    overalls: Mapping[str, _Result | None],
    parts: Sequence[str],
) -> tuple[float | None, ...]:
    values: list[float | None] = []
    for part in parts:
        scores = _scores(entries, part)
        own = scores.get(model.digest, {})
        shared = [name for name in names if all(name in other for other in scores.values())]
        values += [own.get(name) for name in names]
        values += [_overall(own, result, shared) for result in overalls.values()]
    return tuple(values)


def _scores(entries: Sequence[Entry], part: str) -> dict[str, dict[str, float]]:
    """Scores over a part of the questions: by recipe digest, then by benchmark; of several the last."""
    scores: dict[str, dict[str, float]] = {}
    for entry in entries:
        if entry.split.part == part:
            scores.setdefault(entry.recipe, {}).update(_scores_of(entry))
    return scores


def _overall(scores: Mapping[str, float], result: _Result | None, shared: Sequence[str]) -> float | None:
    objective, names = (result.objective, result.benchmarks) if result else (PLAIN, shared)
    if not names or any(name not in scores for name in names):
        return None
    return objective.overall({name: Score(scores[name]) for name in names})
