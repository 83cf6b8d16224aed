"""Searches over a table of scores, in simulated time: what speculation gains, and that it changes no outcome.

scorer = TableScorer(names, overall)            # overall: a function of a recipe, which iterates over its names
workers = SimulatedPool(scorer, size=4)         # every evaluation takes one hour of simulated time
SpeculativeRunner(scorer, workers).choose(lambda score: greedy(names, score))
workers.hours, workers.evaluations
"""

from __future__ import annotations

import heapq
import itertools
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Benchmark, Score, Split
from soup.evaluation.bootstrap import Difference, paired_difference
from soup.evaluation.dealing import Dealer
from soup.evaluation.harnesses import answer
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.pace import Pace
from soup.evaluation.progress import Progress
from soup.evaluation.suite import BenchmarkSuite
from soup.search.workers.protocol import (
    Chunk,
    ChunkDone,
    Deaths,
    EvalTask,
    Event,
    Job,
    RepliesEvent,
    ScoreEvent,
    TaskDone,
)

__all__ = ["SimulatedCandidate", "SimulatedPool", "SimulatedWorkers", "TableRecipe", "TableScorer"]

_BENCHMARK = Benchmark("table", "table", "table")


@dataclass(frozen=True)
class TableRecipe:
    """A soup of a table; it iterates over its names.

    Args:
        names: The ingredients', in the pool's order.
        weights: Theirs, of sum 1.
        method: Another method than the search's.
        params: Parameters of the method, sorted by name.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    method: str | None = None
    params: tuple[tuple[str, Any], ...] = ()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def digest(self) -> str:
        """What tells recipes apart: `a+b` for a plain mean."""
        uniform = len(set(self.weights)) == 1
        parts = self.names if uniform else map("{}*{}".format, self.weights, self.names)
        varied = [self.method or "", *map(str, self.params)] if self.method or self.params else []
        return " ".join(["+".join(parts), *varied])


@dataclass(frozen=True)
class _Trial:
    recipe: TableRecipe
    scores: Mapping[str, Score]
    objective: Objective
    broken: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return self.recipe.names

    @property
    def overall(self) -> float:
        return self.objective.overall(self.scores)

    @property
    def allowed(self) -> bool:
        return not self.broken

    @property
    def estimate(self) -> None:
        return None

    def difference(self, other: _Trial) -> Difference | None:
        return paired_difference(self.scores, other.scores, self.objective)

    def better_than(self, other: _Trial) -> float:
        if (difference := self.difference(other)) is None:
            raise EvaluatorError("The table has no points of questions.")
        return difference.p_better


@dataclass(frozen=True)
class _Entry:
    benchmark: Benchmark = _BENCHMARK


@dataclass(frozen=True)
class _Suite:
    entries: tuple[_Entry, ...] = (_Entry(),)
    split: Split = _BENCHMARK.split

    def on(self, split: Split) -> _Suite:
        return self


Told = float | Mapping[str, Score]


@dataclass
class TableScorer:
    """The part of a `Scorer` that a search needs, over a function of recipes.

    Args:
        pool: The ingredients' names.
        overall: Gives a recipe's overall, 0 to 100, or its scores by benchmark.
        suite: The benchmarks, for searches that ask for some questions alone.
        progress: Who hears of trials.
        objective: How scores become one number, and what a soup must not break.
        known: What `overall` gave, by the recipe's digest.
        trials: The digests of what was asked for, in that order.
    """

    pool: Sequence[str]
    overall: Callable[[TableRecipe], Told]
    suite: _Suite | BenchmarkSuite = _Suite()
    progress: Progress = field(default_factory=Progress)
    objective: Objective = PLAIN
    known: dict[str, Told] = field(default_factory=dict)
    trials: list[str] = field(default_factory=list)
    _scored: set[tuple[str, int]] = field(default_factory=set)

    def __call__(self, chosen: object, /, method: str | None = None, params: Mapping[str, Any] | None = None) -> _Trial:
        """Give a soup's trial, and add its digest to `trials`."""
        trial = self.trial(self.recipe(chosen, method, params))
        if trial.recipe.digest not in self.trials:
            self.trials.append(trial.recipe.digest)
        return trial

    def recipe(self, chosen: Any, method: str | None = None, params: Mapping[str, Any] | None = None) -> TableRecipe:
        """Make the recipe of a choice, in the pool's order."""
        shares = dict(chosen) if isinstance(chosen, Mapping) else dict.fromkeys(chosen, 1 / len(chosen))
        names = tuple(name for name in self.pool if name in shares)
        return TableRecipe(names, tuple(shares[name] for name in names), method, tuple(sorted((params or {}).items())))

    def trial(self, recipe: TableRecipe) -> _Trial:
        """Give a recipe's trial; a real scorer would evaluate it here."""
        scores = self._scores(recipe)
        guards = self.objective.guards
        singles = [self._scores(single) for single in self.singles] if guards else []
        return _Trial(recipe, scores, self.objective, self.objective.broken(scores, singles))

    def _scores(self, recipe: TableRecipe) -> Mapping[str, Score]:
        if recipe.digest not in self.known:
            self.known[recipe.digest] = self.overall(recipe)
        known = self.known[recipe.digest]
        return known if isinstance(known, Mapping) else {"table": Score(known)}

    needs_singles = False
    """A table has all points of all soups: nobody is asked less than everything."""

    @property
    def singles(self) -> list[TableRecipe]:
        """List the recipe of each name alone."""
        return [self.recipe([name]) for name in self.pool]

    def question_sets(self, recipe: TableRecipe, suite: _Suite | BenchmarkSuite) -> list[None]:
        """Say that everything is asked."""
        return [None] * len(suite.entries)

    def missing(self, recipe: TableRecipe, suite: _Suite | BenchmarkSuite) -> list[int]:
        """List the benchmarks without a score."""
        if recipe.digest in self.known:
            return []
        return [index for index in range(len(suite.entries)) if (recipe.digest, index) not in self._scored]

    def remember(self, recipe: TableRecipe, entry: Any, score: Score, seconds: float, questions: None = None) -> None:
        """Store a worker's score; what was asked is everything."""
        self._scored.add((recipe.digest, self.suite.entries.index(entry)))
        if not self.missing(recipe, self.suite):
            self.known[recipe.digest] = self.overall(recipe)

    def pace(self) -> Pace:
        """How many soups are scored."""
        return Pace(len(self.known))

    def check_first(self) -> None:
        """Do nothing: a table needs no checkpoint."""

    def remark(self, text: str, subject: str = "") -> None:
        """Do nothing: there is nothing strange about a table."""

    def announce(self, trial: _Trial) -> None:
        """Do nothing: there is no progress to show."""


@dataclass
class SimulatedPool:
    """Workers that take `cost(recipe)` hours of simulated time for an evaluation, by default one."""

    scorer: TableScorer
    size: int
    cost: Callable[[TableRecipe], float] = lambda names: 1.0
    hours: float = 0.0
    evaluations: int = 0
    _running: list[tuple[float, int, EvalTask]] = field(default_factory=list)

    @property
    def idle(self) -> int:
        """How many workers wait for a task."""
        return self.size - len(self._running)

    def want(self, keys: Sequence[tuple[str, Split]], sure: int = 1) -> None:
        """Do nothing: what was started goes on."""

    def start(self, task: EvalTask) -> None:
        """Start an evaluation."""
        assert self.idle > 0, "every worker is busy"
        self.evaluations += 1
        recipe: Any = task.recipe
        heapq.heappush(self._running, (self.hours + self.cost(recipe), self.evaluations, task))

    def wait(self) -> list[Event]:
        """Move the time on to the end of the next evaluation."""
        self.hours, _, task = heapq.heappop(self._running)
        return [ScoreEvent(task, 0, Score(0.0), 3600.0), TaskDone(task)]

    def close(self) -> None:
        """Do nothing: there are no processes."""


class SimulatedCandidate:
    """As much of a candidate as a harness needs that loads no weights.

    Args:
        recipe: Has a digest and names.
        on_remark: Called with what is strange about the answers.
    """

    def __init__(self, recipe: Any, on_remark: Callable[[str], None] = lambda text: None) -> None:
        self.digest, self.names, self.remark = recipe.digest, recipe.names, on_remark
        self.dealer: Dealer | None = None
        self.answered: Callable[[int, int], None] = lambda count, total: None

    def dealt(self, dealer: Dealer, on_answers: Callable[[int, int], None]) -> SimulatedCandidate:
        """Give the same candidate with a dealer."""
        dealt = copy(self)
        dealt.dealer, dealt.answered = dealer, on_answers
        return dealt

    @contextmanager
    def evaluation(self, name: str) -> Iterator[Path]:
        """Give a scratch that goes at once."""
        with TemporaryDirectory() as scratch:
            yield Path(scratch)

    def refuse_changed(self) -> None:
        """Do nothing: there are no files."""

    def remove(self) -> None:
        """Do nothing: there are no files."""


@dataclass
class SimulatedWorkers:
    """Workers that do jobs in simulated time, what crosses to them and back through a pickle.

    Args:
        size: How many there are.
        suite: Its harnesses answer, and evaluate what is not dealt out.
        seconds: What a worker of a number takes for a job.
        dies: Whether a worker dies at a job, after it sent some replies.
        fails: The error that a job ends with, if it does.

    `now` is the time, `jobs` what they do, `spare` what they do next; `given` are all chunks, as they were given.
    """

    size: int
    suite: BenchmarkSuite
    seconds: Callable[[int, Job], float] = lambda number, job: 1.0
    dies: Callable[[Job], bool] = lambda job: False
    fails: Callable[[Chunk], SoupError | None] = lambda job: None
    now: float = 0.0
    jobs: list[tuple[float, int, int, float, Job]] = field(default_factory=list)
    given: list[Chunk] = field(default_factory=list)
    spare: dict[int, Job] = field(default_factory=dict)
    _deaths: Deaths = field(default_factory=Deaths)
    _turns: Iterator[int] = field(default_factory=itertools.count)

    @property
    def free(self) -> list[int]:
        """The numbers of those that wait for a job."""
        busy = {number for _, _, number, _, _ in self.jobs}
        return [number for number in range(self.size) if number not in busy]

    @property
    def with_one_job(self) -> list[int]:
        """The numbers of those that have a job and no other one after it."""
        return [number for _, _, number, _, _ in self.jobs if number not in self.spare]

    def give(self, number: int, job: Job) -> None:
        """Start a job, or have it started when the one before it is done."""
        if isinstance(job, Chunk):
            self.given.append(job)
        if number in self.free:
            self._start(number, job)
        else:
            assert number not in self.spare, "two jobs are the most"
            self.spare[number] = job

    def wait(self, seconds: float | None = None) -> list[Event]:
        """Move the time on to the end of the next job, or to a death at it."""
        self.now, _, number, took, job = heapq.heappop(self.jobs)
        job = pickle.loads(pickle.dumps(job))
        events = self._events(job, took)
        if self.dies(job):
            if not self._deaths.count(job):
                self._start(number, job, took)
                return events[:1] if isinstance(events[0], RepliesEvent) else []
            events = [job.failed(EvaluatorError("a worker ended twice"))]
        if (spare := self.spare.pop(number, None)) is not None:
            self._start(number, spare)
        return events

    def close(self) -> None:
        """Forget all jobs."""
        self.jobs.clear()
        self.spare.clear()

    def _start(self, number: int, job: Job, took: float | None = None) -> None:
        took = self.seconds(number, job) if took is None else took
        heapq.heappush(self.jobs, (self.now + took, next(self._turns), number, took, job))

    def _events(self, job: Job, took: float) -> list[Event]:
        candidate: Any = SimulatedCandidate(job.recipe)
        if isinstance(job, EvalTask):
            entries = [(index, self.suite.entries[index]) for index in job.indices]
            scores = [(index, entry.evaluator.evaluate(candidate, entry.benchmark)) for index, entry in entries]
            return [*(ScoreEvent(job, index, score, took) for index, score in scores), TaskDone(job)]
        if (error := self.fails(job)) is not None:
            return [job.failed(error)]
        events: list[Event] = []

        def on_replies(positions: Sequence[int], replies: Sequence[Any]) -> None:
            dealt = tuple(job.positions[position] for position in positions)
            events.append(RepliesEvent(job.task, job.number, dealt, tuple(replies)))

        answer(self.suite.entries[job.index].evaluator, candidate, job.requests, on_replies)
        return [*events, ChunkDone(job.task, job.number, took)]
