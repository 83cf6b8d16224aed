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

from soup.evaluation.api import Benchmark, Score, Split
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.pace import Pace
from soup.evaluation.progress import Progress
from soup.search.workers.protocol import EvalTask, Event, ScoreEvent, TaskDone

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
    """The part of a `Scorer` that a search needs, over a function from a set of names to an overall, 0 to 100."""

    pool: Sequence[str]
    overall: Callable[[frozenset[str]], float]
    suite: _Suite = _Suite()
    progress: Progress = field(default_factory=Progress)
    objective: Objective = PLAIN
    known: dict[str, float] = field(default_factory=dict)
    trials: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, chosen: Iterable[str], /) -> _Trial:
        """Give the trial of a set, and add it to `trials`."""
        trial = self.trial(self.recipe(chosen))
        if trial.names not in self.trials:
            self.trials.append(trial.names)
        return trial

    def recipe(self, chosen: Iterable[str]) -> _Recipe:
        """Make the recipe of a set, in the pool's order."""
        names = set(chosen)
        return _Recipe(tuple(name for name in self.pool if name in names))

    def trial(self, recipe: _Recipe) -> _Trial:
        """Give a recipe's trial; a real scorer would evaluate it here."""
        self.known.setdefault(recipe.digest, self.overall(frozenset(recipe.names)))
        return _Trial(recipe.names, self.known[recipe.digest])

    def missing(self, recipe: _Recipe, suite: _Suite) -> list[int]:
        """List the benchmarks without a score: the only one, or none."""
        return [] if recipe.digest in self.known else [0]

    def remember(self, recipe: _Recipe, entry: _Entry, score: Score, seconds: float) -> None:
        """Store a worker's score."""
        self.known[recipe.digest] = score.value

    def pace(self) -> Pace:
        """How many sets are scored."""
        return Pace(len(self.known))

    def check_first(self) -> None:
        """Do nothing: a table needs no checkpoint."""

    def remark(self, text: str, subject: str = "") -> None:
        """Do nothing: there is nothing strange about a table."""

    def announce(self, trial: _Trial) -> None:
        """Do nothing: there is no progress to show."""


@dataclass
class SimulatedPool:
    """Workers that take `cost(names)` hours of simulated time for an evaluation, by default one."""

    scorer: TableScorer
    size: int
    cost: Callable[[frozenset[str]], float] = lambda names: 1.0
    hours: float = 0.0
    evaluations: int = 0
    _running: list[tuple[float, int, EvalTask]] = field(default_factory=list)

    @property
    def idle(self) -> int:
        """How many workers wait for a task."""
        return self.size - len(self._running)

    def start(self, task: EvalTask) -> None:
        """Start an evaluation."""
        assert self.idle > 0, "every worker is busy"
        self.evaluations += 1
        names = frozenset(task.recipe.names)
        heapq.heappush(self._running, (self.hours + self.cost(names), self.evaluations, task))

    def wait(self) -> list[Event]:
        """Move the time on to the end of the next evaluation."""
        self.hours, _, task = heapq.heappop(self._running)
        score = Score(self.scorer.overall(frozenset(task.recipe.names)))
        return [ScoreEvent(task, 0, score, 3600.0), TaskDone(task)]

    def close(self) -> None:
        """Do nothing: there are no processes."""
