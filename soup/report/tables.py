"""Tables of a run: views of its journal and of the soups that came out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from soup.errors import JournalError, SoupError
from soup.evaluation.api import LIKELIHOOD, Score
from soup.evaluation.bootstrap import paired_difference
from soup.evaluation.journal import Journal
from soup.evaluation.journal_entry import Entry
from soup.evaluation.objective import Objective
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.trial import Trial
from soup.merging.recipe import describe_objective
from soup.search.result import Soup, search_titles, single_digests
from soup.support.json_text import check_kinds, read_json_object
from soup.support.options import option_name
from soup.support.text import reason_of

__all__ = ["ScoreRow", "ShownTable", "read_run", "run_table", "trials_table"]


PARTS = ("all", "selection", "report")


@dataclass(frozen=True)
class ScoreRow:
    """A line of a table: a label, values by column (None where there is none), and a remark.

    `estimated` holds the indices of values that are estimates.
    """

    label: str
    values: tuple[float | None, ...]
    remark: str = ""
    estimated: frozenset[int] = frozenset()

    @property
    def texts(self) -> list[str]:
        """The values as a person reads them: an estimate after a tilde."""
        marks = ["~" if index in self.estimated else "" for index in range(len(self.values))]
        return ["" if value is None else f"{mark}{value:.2f}" for mark, value in zip(marks, self.values, strict=True)]


@dataclass(frozen=True)
class ShownTable:
    """Scores to be shown: the columns' names, and rows."""

    columns: tuple[str, ...]
    rows: tuple[ScoreRow, ...]

    def as_json(self) -> dict[str, object]:
        """Return the same as JSON: one object a row."""
        shown = [
            {
                "name": row.label,
                "values": dict(zip(self.columns, row.values, strict=True)),
                "remark": row.remark,
                **({"estimated": [self.columns[index] for index in sorted(row.estimated)]} if row.estimated else {}),
            }
            for row in self.rows
        ]
        return {"schema": 1, "columns": list(self.columns), "rows": shown}

    def by_part(self) -> dict[str, ShownTable]:
        """Return a table for each part of the questions: all of them side by side are wider than a terminal."""
        parts = dict.fromkeys(map(_part, self.columns))
        return {part: self._only(part) for part in parts}

    def _only(self, part: str) -> ShownTable:
        indices = [index for index, column in enumerate(self.columns) if _part(column) == part]
        names = tuple(self.columns[index].removesuffix(_suffix(part)) for index in indices)
        rows = [ScoreRow(row.label, tuple(row.values[index] for index in indices), row.remark) for row in self.rows]
        return ShownTable(names, tuple(rows))


def trials_table(trials: Sequence[Trial], soup: Soup | None = None) -> ShownTable:
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
        marks = [name in trial.scores and trial.scores[name].estimate is not None for name in names]
        marks.append(trial.is_estimated)
        estimated = frozenset(index for index, mark in enumerate(marks) if mark)
        rows.append(ScoreRow(trial.label, (*values, *overalls), _remark(trial, soup) if soup else "", estimated))
    return ShownTable(columns, tuple(rows))


def _remark(trial: Trial, soup: Soup) -> str:
    """Say whether it was accepted or why not, and how sure the difference to the best before it is."""
    accepted = soup.accepted(trial)
    remarks = ["accepted" if accepted else soup.why(trial)]
    rival = soup.best_before(trial)
    if rival and (difference := paired_difference(trial.scores, rival.scores, trial.objective)):
        remarks.append(f"{difference} against {rival.label}")
    if trial.broken and accepted:
        remarks.append(f"breaks {'; '.join(trial.broken)}")
    if trial.interval:
        remarks.append("estimated: {:z.2f} to {:z.2f}".format(*trial.interval))
    return ", ".join(remarks)


def run_table(run: Path) -> ShownTable:
    """Everything a run has evaluated: single checkpoints, then each strategy's soup, on each part of the questions.

    The overall is the one that the run chose by: its objective, over the benchmarks of its search. Where strategies
    chose by different ones, each soup has its own, and all models are shown by each besides.

    Raises:
        JournalError: there is no journal, or a file is damaged.
    """
    entries, results = read_run(run)
    parts = [part for part in PARTS if any(entry.split.part == part for entry in entries)]
    if "all" in parts and len(parts) > 1:  # searches of both kinds: a verdict's numbers stand in one of the tables
        results = [result.of_part() for result in results]
    ways = _ways(results)
    common = max(ways, key=lambda way: len(ways[way]), default=None)
    singles = _singles(entries, results)
    models = [_Model(digest, name, _refusals(digest, name, results), common) for digest, name in singles.items()]
    models += [_Model(result.digest, result.title, result.remark, result.way) for result in results]
    names = list(dict.fromkeys(name for entry in entries for name in _scores_of(entry)))
    titles = {f"overall ({', '.join(strategies)})": way for way, strategies in ways.items()} if len(ways) > 1 else {}
    columns = tuple(f"{name}{_suffix(part)}" for part in parts for name in [*names, "overall", *titles])
    values: dict[_Model, list[float | None]] = {model: [] for model in models}
    for part in parts:
        scores = _scores(entries, part)
        for model in models:
            model_scores = scores.get(model.digest, {})
            overalls = [_overall(model_scores, way, scores.values()) for way in (model.way, *titles.values())]
            values[model] += [*(model_scores.get(name) for name in names), *overalls]
    return ShownTable(columns, tuple(ScoreRow(model.label, tuple(values[model]), model.remark) for model in models))


def read_run(run: Path) -> tuple[list[Entry], list[_Result]]:
    """Return the journal of a run and what strategies came to, each file read once and checked.

    Raises:
        JournalError: there is no journal, or a file is damaged.
    """
    directory = RunDirectory(run)
    if not directory.journal.is_file():
        near = [run.parent / f"{run.name}.soup", *sorted(run.glob("*.soup"))]
        meant = next((f" Did you mean {path}?" for path in near if RunDirectory(path).journal.is_file()), "")
        raise JournalError(
            f"{directory.journal}: no journal. A run directory is what {option_name('run_dir')} names, or stands "
            f"beside the pool.{meant}"
        )
    with Journal(directory.journal, write=False) as journal:
        return list(journal), _read_results(directory)


@dataclass(frozen=True)
class _Way:
    """How a search sums scores up: benchmarks, each with its weight."""

    weights: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class _Result:
    """What a strategy came to, as far as a table needs it.

    `refusals` is why by the ingredient that was refused, `varied` the digests of soups of one that are no single model,
    `singles` those of the single models that it scored, by name, `part` the questions that it chose by.
    """

    title: str
    digest: str
    remark: str
    way: _Way
    refusals: Mapping[str, str]
    varied: frozenset[str]
    singles: Mapping[str, str]
    part: str

    def of_part(self) -> _Result:
        """Return the same with the part of the questions in each verdict."""
        return replace(self, refusals={name: f"{why} ({self.part} questions)" for name, why in self.refusals.items()})


@dataclass(frozen=True)
class _Model:
    """A model of the table: the digest of its recipe, its label, a remark, and how its scores are summed up."""

    digest: str
    label: str
    remark: str
    way: _Way | None


def _read_results(run: RunDirectory) -> list[_Result]:
    """Return what strategies came to, by the files that they left."""
    documents, results = [], []
    for path in run.result_files:
        try:
            documents.append(cast("dict[str, Any]", read_json_object(path, JournalError)))
            results.append(_read_result(documents[-1]))
        except (SoupError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            reason = reason_of(error, path)
            raise JournalError(f"{path}: damaged ({reason}). Remove it; the same search writes it anew.") from error
    return [replace(result, title=title) for result, title in zip(results, search_titles(documents), strict=True)]


def _read_result(document: dict[str, Any]) -> _Result:
    check_kinds(document, {"strategy": str, "chosen": list, "recipe": dict, "trials": list}, {"trials": dict})
    objective = document.get("objective", {})
    check_kinds(objective, {}, {"weights": int | float, "guards": str})
    check_kinds(document["recipe"], {"digest": str})
    text = describe_objective(objective)
    remark = document.get("label", " + ".join(document["chosen"])) + (f" ({text})" if text else "")
    weights = objective.get("weights", {})
    way = _Way(tuple((name, weights.get(name, 1.0)) for name in document["trials"][0]["scores"]))
    refusals = _refused_ingredients(document["trials"])
    varied = frozenset(trial["recipe"] for trial in document["trials"] if trial.get("single") is False)
    part = next((score["split"] for score in document["trials"][0]["scores"].values()), "all")
    digest, singles = document["recipe"]["digest"], single_digests(document)
    (title,) = search_titles([document])
    return _Result(title, digest, remark, way, refusals, varied, singles, part)


def _refused_ingredients(trials: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return why ingredients were refused: of each soup that was, the one ingredient that the best before it lacks."""
    best: list[str] = []
    refusals: dict[str, str] = {}
    for trial in trials:
        check_kinds(trial, {"ingredients": list, "scores": dict, "why": str | None}, {"ingredients": str})
        names, why = trial["ingredients"], trial.get("why")  # results of earlier versions have none
        if trial.get("accepted"):
            best = names
        added = [name for name in names if name not in best]
        if why and len(names) > 1 and len(added) == 1:
            refusals[added[0]] = why
    return refusals


def _refusals(digest: str, name: str, results: Sequence[_Result]) -> str:
    """Say who refused an ingredient and why; strategies with one reason share it.

    Another model of that name may be in the run: one that was trained anew, or another pool's.
    """
    strategies: dict[str, list[str]] = {}
    for result in results:
        if (why := result.refusals.get(name)) and result.singles.get(name, digest) == digest:
            strategies.setdefault(why, []).append(result.title)
    return "; ".join(f"{', '.join(names)} {why}" for why, names in strategies.items())


def _ways(results: Sequence[_Result]) -> dict[_Way, list[str]]:
    """Return the ways in which strategies of a run chose, and which strategies chose so."""
    ways: dict[_Way, list[str]] = {}
    for result in results:
        ways.setdefault(result.way, []).append(result.title)
    return ways


def _singles(entries: Sequence[Entry], results: Iterable[_Result]) -> dict[str, str]:
    """Return the names of single models by their recipes' digests, in the order in which they were scored."""
    varied = {digest for result in results for digest in result.varied}
    return {entry.recipe: entry.names[0] for entry in entries if len(entry.names) == 1 and entry.recipe not in varied}


def _scores_of(entry: Entry) -> Mapping[str, float]:
    """Return an entry's score by its benchmark, or each of its parts, as a search counts them."""
    return entry.score.parts or {entry.benchmark: entry.score.value}


def _suffix(part: str) -> str:
    return "" if part == "all" else f" ({part})"


def _part(column: str) -> str:
    """Which part of the questions a column of a run's table is about."""
    return next((part for part in PARTS if part != "all" and column.endswith(_suffix(part))), "all")


def _scores(entries: Sequence[Entry], part: str) -> dict[str, dict[str, float]]:
    """Scores over a part of the questions: by recipe digest, then by benchmark; of several the last.

    Estimates are left out: the models of a run's table have scores, all of them.
    """
    scores: dict[str, dict[str, float]] = {}
    for entry in entries:
        if entry.split.part == part and entry.score.estimate is None:
            scores.setdefault(entry.recipe, {}).update(_scores_of(entry))
    return scores


def _overall(scores: Mapping[str, float], way: _Way | None, others: Iterable[Mapping[str, float]]) -> float | None:
    """Return the overall of a model; without a search, the plain mean over the benchmarks that all models have."""
    rows = list(others)
    shared = [name for name in scores if all(name in row for row in rows) and not name.endswith(LIKELIHOOD)]
    weights = dict(way.weights) if way else dict.fromkeys(shared, 1.0)
    if not weights or any(name not in scores for name in weights):
        return None
    return Objective(weights).overall({name: Score(scores[name]) for name in weights})
