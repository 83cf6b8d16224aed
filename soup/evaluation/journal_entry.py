"""A journal's line: one remembered score, and what was scored by what."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import NotRequired, TypedDict, cast

from soup.checkpoints.hub import is_hub_id
from soup.errors import JournalError, SoupError
from soup.evaluation.api import Benchmark, Part, Score, Split
from soup.evaluation.estimates import Estimate
from soup.merging.recipe import Recipe
from soup.support.json_text import check_kinds, parse_json
from soup.support.options import option_name
from soup.support.text import reason_of, without_secrets

__all__ = ["SCHEMA", "Entry", "Line", "make_line", "read_entries", "read_line"]

SCHEMA = 1


@dataclass(frozen=True)
class Entry:
    """One remembered score, and what was scored by what.

    Args:
        key: What identifies it; see `score_key`.
        recipe: The recipe's digest.
        names: The ingredients', for people.
        weights: Theirs, for people.
        benchmark: The benchmark's name.
        split: Which of its questions were asked.
        score: The score.
        seconds: What the evaluation took.
        time: When it ended, as ISO 8601 in UTC.
        harness: The registered name of the harness.
        identity: What the harness said of itself, its data and its engine.
        sources: The Hub ids, with commits, of what came from there, by ingredient; for people.
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


class Line(TypedDict):
    """A line of the journal's file."""

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


def make_line(
    key: str,
    recipe: Recipe,
    benchmark: Benchmark,
    identity: Mapping[str, object],
    score: Score,
    seconds: float,
) -> Line:
    """Make the line of a score that was given now; see `Journal.remember` for the arguments."""
    line: Line = {
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
    return line


def read_entries(path: Path, lines: list[bytes]) -> list[Entry]:
    """Read the entries of a journal's lines.

    Raises:
        JournalError: A line is damaged, or of a later version of soup; says which.
    """
    entries: list[Entry] = []
    for number, line in enumerate(lines, start=1):
        try:
            parsed = cast("Line", parse_json(line.rstrip(), f"line {number}", JournalError))
            if isinstance(schema := parsed["schema"], int) and schema > SCHEMA:
                break
            entries.append(read_line(parsed))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, SoupError) as error:
            reason = reason_of(error, f"line {number}")
            raise JournalError(
                f"{path}: line {number} of {len(lines)} is damaged ({reason}). Remove that line to lose its score "
                "alone, or restore the file."
            ) from error
    else:
        return entries
    raise JournalError(
        f"{path}: line {number} is of a later soup (schema {schema}, this one reads {SCHEMA}). Update soup, or choose "
        f"another {option_name('run_dir')}."
    )


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


def read_line(line: Line) -> Entry:
    """Read a parsed line.

    Raises:
        ValueError: A value of another kind, or another schema.
    """
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
