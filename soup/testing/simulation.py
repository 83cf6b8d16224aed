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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Score, Split
from soup.evaluation.candidate import OnAnswers, ignore_answers
from soup.evaluation.dealing import Dealer
from soup.evaluation.harnesses import answer
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
from soup.testing.table_scorer import TableRecipe, TableScorer

__all__ = ["SimulatedCandidate", "SimulatedPool", "SimulatedWorkers"]


@dataclass
class SimulatedPool:
    """Workers that evaluate in simulated time.

    Args:
        scorer: Gives the scores.
        size: How many workers there are.
        cost: The hours that the evaluation of a recipe takes.
        hours: The time.
        evaluations: How many were begun.
    """

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
        self._on_answers: OnAnswers = ignore_answers

    def dealt(self, dealer: Dealer, on_answers: OnAnswers) -> SimulatedCandidate:
        """Give the same candidate with a dealer."""
        dealt = copy(self)
        dealt.dealer, dealt._on_answers = dealer, on_answers
        return dealt

    def answered(self, count: int, of: int, what: str = "answers") -> None:
        """Pass on how many prompts are answered."""
        self._on_answers(count, of, what)

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
        now: The time, in seconds.
        jobs: What they do.
        given: All chunks, as they were given.
        spare: What they do next, by their numbers.
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
