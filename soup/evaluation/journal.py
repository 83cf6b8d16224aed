"""The journal: an append-only record of scores, one JSON object per line. It is the truth; tables are views of it.

A line is flushed and synced before its score is used. A torn last line (it has no end, for the process was killed while
it wrote) is dropped; any other bad line is an error with its number.
"""

from __future__ import annotations

import datetime
import hashlib
import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType, UnionType
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

from soup.checkpoints.hub import is_hub_id
from soup.errors import JournalError, OutputError, SoupError
from soup.evaluation.api import Benchmark, Part, Score, Split
from soup.evaluation.estimates import Estimate
from soup.evaluation.score_picture import ScoredModel, draw_scores
from soup.merging.recipe import Recipe
from soup.support.json_text import check_kinds, parse_json
from soup.support.line_log import LineLog, whole_lines
from soup.support.options import option_name
from soup.support.pictures import Picture, draw
from soup.support.text import pluralize, without_secrets

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["SCHEMA", "Entry", "Journal", "score_key"]

SCHEMA = 1
FILE_NAME = "journal.jsonl"
COLUMNS = ("ingredients", "weights", "benchmark", "part", "score", "n", "low", "high", "seconds", "time", "recipe")
"""Of a journal's table; `low` and `high` are an estimate's."""
MOST_SHOWN = 20


@dataclass(frozen=True)
class Entry:
    """One remembered score, and what was scored by what. `key` identifies it.

    `names` and `weights` are for people, and so is `sources`: the Hub ids, with commits, of what came from there.
    """

    key: str
    recipe: str
    names: tuple[str, ...]
    weights: tuple[float, ...]
    benchmark: str
    split: Split
    score: Score
    seconds: float
    time: str
    harness: str
    identity: Mapping[str, object]
    sources: Mapping[str, str] = field(default_factory=dict)


class _Line(TypedDict):
    """A line of the file."""

    schema: int
    key: str
    recipe: str
    ingredients: list[str]
    sources: NotRequired[dict[str, str]]
    weights: list[float]
    benchmark: str
    harness: str
    identity: dict[str, object]
    split: Part
    fraction: float
    value: float
    n: int | None
    parts: dict[str, float]
    questions: dict[str, float] | None
    estimate: NotRequired[dict[str, float]]
    seconds: float
    time: str
    unparsed: NotRequired[float]
    part_questions: NotRequired[dict[str, dict[str, float]]]


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
            self.entries = _replay(path, lines)
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
        """Draw the scores of each model that was scored.

        Args:
            path: A png, svg or pdf file; an earlier one is replaced. Without one, a picture for a notebook is returned.

        Raises:
            OutputError: another suffix, no matplotlib, or there is no score.
        """
        models: dict[str, dict[str, float]] = {}
        labels: dict[str, str] = {}
        for entry in self.entries:
            part = "" if entry.split.part == "all" else f" ({entry.split.part})"
            models.setdefault(entry.recipe, {})[f"{entry.benchmark}{part}"] = entry.score.value
            labels[entry.recipe] = " + ".join(entry.names)
        if not models:
            raise OutputError(f"{self.path}: holds no score: there is nothing to draw.")
        lines = [ScoredModel(labels[recipe], scores) for recipe, scores in models.items()]
        return draw(lambda target: draw_scores(lines, target), path)

    def find(self, key: str) -> Entry | None:
        """Look up the entry of a key; None where nothing is remembered."""
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
        line: _Line = {
            "schema": SCHEMA,
            "key": key,
            "recipe": recipe.digest,
            "ingredients": list(recipe.names),
            "weights": [share.weight for share in recipe.ingredients],
            "benchmark": benchmark.name,
            "harness": benchmark.harness,
            "identity": dict(identity),
            "split": benchmark.split.part,
            "fraction": benchmark.split.fraction,
            "value": score.value,
            "n": score.n,
            "parts": dict(score.parts),
            "questions": dict(score.questions) if score.questions is not None else None,
            "seconds": round(seconds, 3),
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        parts = [*recipe.ingredients, *filter(None, [recipe.base])]
        if sources := {part.name: part.path for part in parts if is_hub_id(part.path)}:
            line["sources"] = sources
        if score.unparsed is not None:
            line["unparsed"] = score.unparsed
        if score.part_questions:
            line["part_questions"] = {part: dict(points) for part, points in score.part_questions.items()}
        if score.estimate is not None:
            line["estimate"] = score.estimate.as_json()
        self._log.append(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        entry = _entry(line)
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


def _replay(path: Path, lines: list[bytes]) -> list[Entry]:
    """Read the entries of a journal's lines."""
    entries: list[Entry] = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(_entry(cast("_Line", parse_json(line, f"line {number}", JournalError))))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, SoupError) as error:
            raise JournalError(
                f"{path}: line {number} of {len(lines)} is damaged ({error}). Remove that line to lose its score "
                "alone, or restore the file."
            ) from error
    return entries


_NUMBER = int | float
_KINDS: dict[str, type | UnionType] = {
    **dict.fromkeys(("key", "recipe", "benchmark", "harness", "split", "time"), str),
    **dict.fromkeys(("fraction", "seconds"), _NUMBER),
    **dict.fromkeys(("ingredients", "weights"), list),
    "parts": dict,
    "identity": dict,
    "questions": dict | None,
    "estimate": dict | None,
    "sources": dict | None,
    "part_questions": dict | None,
}
_ITEMS: dict[str, type | UnionType] = {
    "ingredients": str,
    "weights": _NUMBER,
    "questions": _NUMBER,
    "estimate": _NUMBER,
    "sources": str,
    "part_questions": dict,
}


def _entry(line: _Line) -> Entry:
    if line["schema"] != SCHEMA:
        raise ValueError(f"expected schema {SCHEMA}, found {line['schema']}")
    check_kinds(line, _KINDS, _ITEMS)
    part_questions = line.get("part_questions") or {}
    check_kinds(part_questions, {}, dict.fromkeys(part_questions, _NUMBER))
    return Entry(
        key=line["key"],
        recipe=line["recipe"],
        names=tuple(line["ingredients"]),
        weights=tuple(line["weights"]),
        benchmark=without_secrets(line["benchmark"]),
        split=Split(line["split"], line["fraction"]),
        score=Score(
            line["value"],
            line["n"],
            line["questions"],
            line["parts"],
            line.get("unparsed"),
            _estimate(line.get("estimate")),
            part_questions,
        ),
        seconds=line["seconds"],
        time=line["time"],
        harness=line["harness"],
        identity=line["identity"],
        sources=line.get("sources") or {},
    )


def _estimate(numbers: dict[str, float] | None) -> Estimate | None:
    if numbers is None:
        return None
    return Estimate(int(numbers["asked"]), numbers["correction"], numbers["variance"], numbers["unseen"])
