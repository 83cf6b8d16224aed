"""The journal: an append-only record of scores, one JSON object per line. It is the truth; tables are views of it.

A line is flushed and synced before its score is used. A torn last line (it has no end, for the process was killed while
it wrote) is dropped; any other bad line is an error with its number.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from soup.errors import JournalError, OutputError
from soup.evaluation.api import Benchmark, Score
from soup.evaluation.journal_entry import SCHEMA, Entry, make_line, read_entries, read_line
from soup.evaluation.score_picture import ScoredModel, draw_scores
from soup.merging.recipe import Recipe
from soup.support.line_log import LineLog, whole_lines
from soup.support.options import option_name, refuse_wrong_type
from soup.support.pictures import Picture, draw
from soup.support.text import pluralize

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Journal", "score_key"]

FILE_NAME = "journal.jsonl"
COLUMNS = ("ingredients", "weights", "benchmark", "part", "score", "n", "low", "high", "seconds", "time", "recipe")
"""Of a journal's table; `low` and `high` are an estimate's."""
MOST_SHOWN = 20


def score_key(
    recipe_digest: str, benchmark: Benchmark, identity: Mapping[str, object], question_set: str | None = None
) -> str:
    """Compute the key under which a score is remembered: the sha256 of all that it depends on.

    Args:
        recipe_digest: The recipe's digest.
        benchmark: Its harness, what that calls it, and its split count.
        identity: The harness's version and settings and the digest of the data; see `Evaluator.identity`.
        question_set: The digest of what was asked and of what is known of the others, for an estimate.
    """
    split = [benchmark.split.part, benchmark.split.fraction]
    facts = [SCHEMA, recipe_digest, benchmark.harness, benchmark.target, dict(identity), split]
    facts += [] if question_set is None else [question_set]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Journal:
    """The scores of a run. Open for writing it belongs to one process; any number may read.

    Args:
        path: The file, which is made where it is written and not there; or a run's directory, which is only read.
        write: Whether scores will be added; by default to a file.

    Raises:
        JournalError: Another run is writing it, or a line in the middle is damaged.
    """

    def __init__(self, path: str | Path, *, write: bool | None = None) -> None:
        refuse_wrong_type({"path": path}, {"path": (str, Path)}, JournalError)
        is_run = ((path := Path(path)) / FILE_NAME).is_file()
        path, write = (path / FILE_NAME if is_run else path), (not is_run if write is None else write)
        self.path = path
        self._log: LineLog | None = None
        if write:
            advice = f"choose another {option_name('run_dir')}."
            in_use = f"another run is using it. Wait for that run, or {advice}"
            self._log = LineLog(path, JournalError, in_use, advice.capitalize())
        try:
            lines = self._log.lines if self._log else whole_lines(path, JournalError)
            self.entries = read_entries(path, lines)
            self._by_key = {entry.key: entry for entry in self.entries}
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __repr__(self) -> str:
        return f"<Journal {self.path}: {pluralize(len(self.entries), 'score')}>"

    def to_pandas(self) -> DataFrame:
        """Return a row for each score: what was scored on what, the value, its estimate's interval, and the time."""
        import pandas

        return pandas.DataFrame([_row(entry) for entry in self.entries], columns=COLUMNS)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the last scores."""
        table: str = self.to_pandas().tail(MOST_SHOWN).to_html(index=False, float_format="%.2f")
        return f"<p>{html.escape(str(self.path))}: {pluralize(len(self.entries), 'score')}</p>{table}"

    def plot(self, path: str | Path | None = None) -> Picture | None:
        """Draw the scores of each model that was scored, after a tilde where some are estimates.

        Args:
            path: A png, svg or pdf file; an earlier one is replaced. Without one, a picture for a notebook is returned.

        Raises:
            OutputError: another suffix, no matplotlib, or there is no score.
        """
        models: dict[str, dict[str, Score]] = {}
        labels: dict[str, str] = {}
        for entry in self.entries:
            part = "" if entry.split.part == "all" else f" ({entry.split.part})"
            models.setdefault(entry.recipe, {})[f"{entry.benchmark}{part}"] = entry.score
            estimated = any(score.estimate for score in models[entry.recipe].values())
            labels[entry.recipe] = f"{'~ ' if estimated else ''}{' + '.join(entry.names)}"
        if not models:
            raise OutputError(f"{self.path}: holds no score: there is nothing to draw.")
        lines = [
            ScoredModel(labels[recipe], {name: score.value for name, score in scores.items()})
            for recipe, scores in models.items()
        ]
        return draw(lambda target: draw_scores(lines, target), path)

    def find(self, key: str) -> Entry | None:
        """Look up the entry of a key, which `score_key` gives; None where nothing is remembered."""
        return self._by_key.get(key)

    def remember(
        self,
        key: str,
        recipe: Recipe,
        benchmark: Benchmark,
        identity: Mapping[str, object],
        score: Score,
        seconds: float,
    ) -> Entry:
        """Append one score. When this returns, it survives a kill.

        Args:
            key: What `score_key` gives.
            recipe: What was scored.
            benchmark: On what.
            identity: The harness's; see `Evaluator.identity`.
            score: The score.
            seconds: How long the evaluation took.

        Raises:
            JournalError: The disk is full or failed.
        """
        assert self._log is not None, "this journal is open for reading"
        line = make_line(key, recipe, benchmark, identity, score, seconds)
        self._log.append(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        entry = read_line(line)
        self.entries.append(entry)
        self._by_key[key] = entry
        return entry

    def close(self) -> None:
        """Close the file and release its lock, so that another run can write it."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _row(entry: Entry) -> dict[str, object]:
    estimate, value = entry.score.estimate, entry.score.value
    low, high = estimate.interval(value) if estimate else (None, None)
    facts = (" + ".join(entry.names), entry.weights, entry.benchmark, entry.split.part, value, entry.score.n)
    return dict(zip(COLUMNS, (*facts, low, high, entry.seconds, entry.time, entry.recipe), strict=True))
