"""How far a search is: models and questions done and to come, and the time that is left by the journal's seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from soup.evaluation.api import Score
from soup.evaluation.journal_entry import Entry

__all__ = ["Cost", "Evaluations", "Pace", "count_questions", "model_cost", "search_pace"]

ASKED = 0.25
"""The share of the questions that an estimate asks, about, where none was made yet."""


@dataclass(frozen=True)
class Evaluations:
    """How many models are evaluated at most.

    Args:
        whole: On all questions that choose.
        estimates: On the disputed ones and an audit.
        reported: On the questions that only report.
    """

    whole: int
    estimates: int = 0
    reported: int = 0

    @classmethod
    def of_each(cls, count: int, *, split: bool) -> Evaluations:
        """Return those of `count` models, each asked everything; with a split, the questions that only report, too."""
        return cls(count, reported=count if split else 0)

    @property
    def total(self) -> int:
        """All of them."""
        return self.whole + self.estimates + self.reported


@dataclass(frozen=True)
class Pace:
    """How far a search is.

    Args:
        done: Models scored, on one part of the questions each.
        total: How many there will be at most; None where nobody knows.
        seconds_left: The time that the others take, at most; None where nobody knows.
        questions: Those that are asked by now; None where a harness does not say.
        questions_left: Those to come, at most.
        questions_per_second: Of all workers.
    """

    done: int
    total: int | None = None
    seconds_left: float | None = None
    questions: int | None = None
    questions_left: float | None = None
    questions_per_second: float | None = None


@dataclass(frozen=True)
class Cost:
    """What a model takes on all benchmarks: seconds, and questions (None where a harness does not say)."""

    seconds: float
    questions: float | None

    def __mul__(self, count: float) -> Cost:
        return Cost(self.seconds * count, None if self.questions is None else self.questions * count)

    def __add__(self, other: Cost) -> Cost:
        known = self.questions is not None and other.questions is not None
        return Cost(self.seconds + other.seconds, (self.questions or 0) + (other.questions or 0) if known else None)


def search_pace(
    entries: Iterable[Entry],
    benchmarks: Sequence[str],
    scores: Sequence[Mapping[str, Score]],
    expected: Evaluations | None,
    at_once: int,
) -> Pace:
    """Return how far a search is: what is left is a mean model's, for each that may be to come, or a mean estimate's.

    Args:
        entries: The journal's.
        benchmarks: Those of the search, by name.
        scores: Of the models that are done, by benchmark.
        expected: How many models are scored at most; None: nobody knows.
        at_once: How many are evaluated side by side.
    """
    questions = count_questions(score for row in scores for score in row.values())
    done = len(scores)
    if expected is None:
        return Pace(done, questions=questions)
    total = max(expected.total, done)
    known = list(entries)
    whole = model_cost(known, benchmarks)
    part = model_cost(known, benchmarks, estimated=True) if expected.estimates else whole
    if whole is None or part is None:
        return Pace(done, total, questions=questions)
    estimates_done = sum(any(score.estimate for score in row.values()) for row in scores)
    estimates_left = min(max(0, expected.estimates - estimates_done), total - done)
    left = part * estimates_left + whole * (total - done - estimates_left)
    rate = at_once * whole.questions / whole.seconds if whole.questions and whole.seconds else None
    return Pace(done, total, left.seconds / at_once, questions, left.questions, rate)


def model_cost(entries: Iterable[Entry], benchmarks: Sequence[str], *, estimated: bool = False) -> Cost | None:
    """Return what a model takes, by what others took; None where a benchmark was never asked.

    Args:
        entries: The journal's.
        benchmarks: Their names.
        estimated: Whether it is an estimate that is wanted, not a score of everything.
    """
    known = [entry for entry in entries if entry.benchmark in benchmarks]
    whole = [_mean_cost(entry for entry in known if _is_of(entry, name, estimated=False)) for name in benchmarks]
    if not estimated:
        return _sum(whole)
    part = [_mean_cost(entry for entry in known if _is_of(entry, name, estimated=True)) for name in benchmarks]
    if not any(part):
        everything = _sum(whole)
        return everything * ASKED if everything else None
    return _sum([cost or everything for cost, everything in zip(part, whole, strict=True)])


def count_questions(scores: Iterable[Score]) -> int | None:
    """Count the questions that were asked for some scores; None where a harness does not say."""
    counts = [score.asked for score in scores]
    return None if None in counts else sum(count or 0 for count in counts)


def _is_of(entry: Entry, benchmark: str, *, estimated: bool) -> bool:
    return entry.benchmark == benchmark and (entry.score.estimate is not None) == estimated


def _mean_cost(entries: Iterable[Entry]) -> Cost | None:
    rows = list(entries)
    if not rows:
        return None
    counts = [count_questions([entry.score]) for entry in rows]
    known = [count for count in counts if count is not None]
    return Cost(fmean(entry.seconds for entry in rows), fmean(known) if len(known) == len(rows) else None)


def _sum(costs: Sequence[Cost | None]) -> Cost | None:
    total = Cost(0.0, 0.0)
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total
