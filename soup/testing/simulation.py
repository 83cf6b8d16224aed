"""Searches over a table of scores, in simulated time: what speculation gains, and that it changes no outcome.

scorer = TableScorer(names, overall)            # overall: a function of a set of names
workers = SimulatedPool(scorer, size=4)         # every evaluation takes one hour of simulated time
SpeculativeRunner(scorer, workers).choose(lambda score: greedy(names, score))
workers.hours, workers.evaluations
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from soup.evaluation.api import Benchmark, Score, Split
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.progress import Progress
from soup.search.workers.protocol import Event, ScoreEvent, TaskDone

__all__ = ["SimulatedPool", "TableScorer"]

_BENCHMARK = Benchmark("table", "table", "table")


@dataclass(frozen=True)
class _Recipe:
    names: tuple[str, ...]

    @property
    def digest(self) -> str:
        return "+".join(self.names)


@dataclass(frozen=True)
class _Trial:
    names: tuple[str, ...]
    overall: float


@dataclass(frozen=True)
class _Entry:
    benchmark: Benchmark = _BENCHMARK


@dataclass(frozen=True)
class _Suite:
    entries: tuple[_Entry, ...] = (_Entry(),)
    split: Split = _BENCHMARK.split

    def on(self, split: Split) -> _Suite:
        return self


@dataclass
class TableScorer:
    """The part of a `Scorer` that searching needs, over a function from a set of names to an overall, 0 to 100."""

    pool: Sequence[str]
    overall: Callable[[frozenset[str]], float]
    suite: _Suite = _Suite()
    progress: Progress = field(default_factory=Progress)
    objective: Objective = PLAIN
    known: dict[str, float] = field(default_factory=dict)
    trials: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, chosen: Iterable[str], /) -> _Trial:
        """The trial of a set, noted in `trials`."""
        trial = self.trial(self.recipe(chosen))
        if trial.names not in self.trials:
            self.trials.append(trial.names)
        return trial

    def recipe(self, chosen: Iterable[str]) -> Any:
        """The set in the pool's order."""
        names = set(chosen)
        return _Recipe(tuple(name for name in self.pool if name in names))

    def trial(self, recipe: Any) -> _Trial:
        """Its overall; one by one it would be evaluated here."""
        self.known.setdefault(recipe.digest, self.overall(frozenset(recipe.names)))
        return _Trial(recipe.names, self.known[recipe.digest])

    def missing(self, recipe: Any, suite: _Suite) -> list[int]:
        """The only benchmark, if the recipe has no score yet."""
        return [] if recipe.digest in self.known else [0]

    def remember(self, recipe: Any, entry: _Entry, score: Score, seconds: float) -> None:
        """Take a worker's score in."""
        self.known[recipe.digest] = score.value

    def announce(self, trial: Any) -> None:
        """Nobody listens."""


@dataclass
class SimulatedPool:
    """Workers that take `cost(names)` hours of simulated time for an evaluation, by default one."""

    scorer: TableScorer
    size: int
    cost: Callable[[frozenset[str]], float] = lambda names: 1.0
    hours: float = 0.0
    evaluations: int = 0
    _running: list[tuple[float, int, Any]] = field(default_factory=list)

    @property
    def idle(self) -> int:
        """How many workers wait for a task."""
        return self.size - len(self._running)

    def start(self, task: Any) -> None:
        """Begin now; the end is known."""
        assert self.idle > 0, "every worker is busy"
        self.evaluations += 1
        names = frozenset(task.recipe.names)
        heapq.heappush(self._running, (self.hours + self.cost(names), self.evaluations, task))

    def wait(self) -> list[Event]:
        """Go on to the next end."""
        self.hours, _, task = heapq.heappop(self._running)
        score = Score(self.scorer.overall(frozenset(task.recipe.names)))
        return [ScoreEvent(task, 0, score, 3600.0), TaskDone(task)]

    def close(self) -> None:
        """Nothing to end."""
