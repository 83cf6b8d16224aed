"""Tables of a run: views of its journal and of the soups that came out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soup.errors import JournalError
from soup.evaluation.journal import Entry, Journal
from soup.merging.recipe import describe_objective

__all__ = ["ScoreRow", "ScoreTable", "run_table", "trials_table"]


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

    def as_json(self) -> dict[str, Any]:
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
        places = [place for place, column in enumerate(self.columns) if _part(column) == part]
        names = tuple(self.columns[place].removesuffix(_suffix(part)) for place in places)
        rows = [ScoreRow(row.label, tuple(row.values[place] for place in places), row.remark) for row in self.rows]
        return ScoreTable(names, tuple(rows))


def trials_table(document: dict[str, Any]) -> ScoreTable:
    """The trials of a strategy's or of `soup eval`'s JSON document, in the order in which they were made."""
    trials = document["trials"]
    names = list(dict.fromkeys(name for trial in trials for name in trial["scores"]))
    reported = any("report" in trial for trial in trials)
    columns = (*names, "overall", *(["report overall"] if reported else []))
    rows = []
    for trial in trials:
        values = [trial["scores"].get(name, {}).get("value") for name in names] + [trial["overall"]]
        values += [trial["report"]["overall"] if "report" in trial else None] if reported else []
        rows.append(ScoreRow(" + ".join(trial["ingredients"]), tuple(values), _remark(trial)))
    return ScoreTable(columns, tuple(rows))


def _remark(trial: dict[str, Any]) -> str:
    """Whether it was accepted, and how sure the difference to the best before it is (95 %, paired bootstrap)."""
    words = ["accepted"] if trial.get("accepted") else []
    if rival := trial.get("versus_best"):
        interval = f"{rival['difference']:+.2f} [{rival['low']:+.2f}, {rival['high']:+.2f}]"
        words.append(f"{interval} against {' + '.join(rival['ingredients'])}")
    if broken := trial.get("broken_guards"):
        words.append(f"breaks {'; '.join(broken)}")
    return ", ".join(words)


def run_table(run: Path) -> ScoreTable:
    """Everything a run has judged: single checkpoints first, then each strategy's soup, on each part of the questions.

    Raises:
        JournalError: there is no journal, or it is damaged.
    """
    path = run / "journal.jsonl"
    if not path.is_file():
        raise JournalError(f"{path}: no journal. A run directory is what --run names, or stands beside the pool.")
    with Journal(path, write=False) as journal:
        entries = list(journal)
    parts = [part for part in ("all", "selection", "report") if any(entry.split.part == part for entry in entries)]
    names = list(dict.fromkeys(name for entry in entries for name in _told(entry)))
    columns = tuple(f"{name}{_suffix(part)}" for part in parts for name in [*names, "overall"])
    labels = _labels(run, entries)
    rows = [ScoreRow(label, _values(entries, digest, names, parts), remark) for digest, label, remark in labels]
    return ScoreTable(columns, tuple(rows))


def _told(entry: Entry) -> Mapping[str, float]:
    """What an entry's evaluation told: its score, or each of its parts, as a search counts them."""
    return entry.score.parts or {entry.benchmark: entry.score.value}


def _suffix(part: str) -> str:
    return "" if part == "all" else f" ({part})"


def _part(column: str) -> str:
    """Which part of the questions a column of a run's table is about."""
    return next((part for part in ("selection", "report") if column.endswith(_suffix(part))), "all")


def _labels(run: Path, entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """(recipe digest, label, remark): the single models in the order judged, then the soups that strategies chose."""
    singles = {entry.recipe: entry.names[0] for entry in entries if len(entry.names) == 1}
    found = [(digest, name, "") for digest, name in singles.items()]
    for path in sorted((run / "soups").glob("[!.]*.json")):
        try:
            outcome = json.loads(path.read_text(encoding="utf-8"))
            objective = describe_objective(outcome.get("objective", {}))
            remark = " + ".join(outcome["chosen"]) + (f" ({objective})" if objective else "")
            found.append((outcome["recipe"]["digest"], outcome["strategy"], remark))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JournalError(f"{path}: damaged ({error}). Remove it; the same search writes it anew.") from error
    return found


def _values(
    entries: Sequence[Entry], digest: str, names: Sequence[str], parts: Sequence[str]
) -> tuple[float | None, ...]:
    values: list[float | None] = []
    for part in parts:
        last = {e.benchmark: _told(e) for e in entries if e.recipe == digest and e.split.part == part}
        found = {name: value for told in last.values() for name, value in told.items()}
        row = [found.get(name) for name in names]
        known = [value for value in row if value is not None]
        values += [*row, sum(known) / len(known) if len(known) == len(row) else None]
    return tuple(values)
