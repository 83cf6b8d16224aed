"""How far a search is: models scored and to come, and the time that is left by the journal's seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from soup.evaluation.journal import Entry
from soup.support.text import format_duration

__all__ = ["Pace", "seconds_per_model"]


@dataclass(frozen=True)
class Pace:
    """How far a search is.

    Args:
        done: Models scored, on one part of the questions each.
        total: How many there will be at most; None where nobody knows.
        seconds_left: The time that the others take, at most; None where nobody knows.
    """

    done: int
    total: int | None = None
    seconds_left: float | None = None

    def __str__(self) -> str:
        """Return `3/13, 40 min left`."""
        shown = f"{self.done}/{self.total}" if self.total is not None else f"{self.done} done"
        return shown if self.seconds_left is None else f"{shown}, {format_duration(self.seconds_left)} left"


def seconds_per_model(entries: Iterable[Entry], benchmarks: Sequence[str]) -> float | None:
    """Return the seconds that a model takes on all benchmarks, by what others took; None where one was never asked."""
    by_benchmark: dict[str, list[float]] = {name: [] for name in benchmarks}
    for entry in entries:
        if entry.benchmark in by_benchmark:
            by_benchmark[entry.benchmark].append(entry.seconds)
    return sum(map(fmean, by_benchmark.values())) if all(by_benchmark.values()) else None
