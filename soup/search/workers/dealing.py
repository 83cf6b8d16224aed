"""One candidate over all workers: its benchmarks are evaluated here, their requests answered by whoever is free.

Each benchmark's harness runs in this process, as a coroutine (`coroutine.py`): it makes prompts, deals them out, reads
replies, scores. So one process writes each file of answers, and the outcome is that of one worker, for any number of
them. What can't be dealt out goes to one worker, whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue

from soup.errors import SoupError
from soup.evaluation.api import Split
from soup.evaluation.candidate import SoupCandidate
from soup.evaluation.dealing import MissingFilesError
from soup.evaluation.harnesses import can_be_dealt
from soup.evaluation.suite import BenchmarkSuite
from soup.merging.recipe import Recipe
from soup.search.workers.chunks import ChunkQueue
from soup.search.workers.coroutine import Coroutine
from soup.search.workers.dealt_evaluation import DealtEvaluation
from soup.search.workers.expected_ends import ExpectedEnds
from soup.search.workers.protocol import (
    Chunk,
    ChunkDone,
    EvalTask,
    Event,
    JobPool,
    Remark,
    RepliesEvent,
    ScoreEvent,
    TaskDone,
)

__all__ = ["DealingPool", "MakeCandidate"]

TaskKey = tuple[str, Split]

POLL_SECONDS = 0.2
"""How often somebody looks for evaluations that wait for something besides workers."""

SPARE_SECONDS = 2.0
"""A worker gets its next chunk when so much of the one that it has is left, lest it waits while this process scores.

No sooner: a chunk that waits for its worker can't go to another one, which may have nothing to do."""

MakeCandidate = Callable[[Recipe, Callable[[str], None]], SoupCandidate]
"""Makes a recipe's candidate, and has it tell what is strange about its answers."""


@dataclass
class _Running:
    """A task: its candidate, and what is not evaluated yet."""

    task: EvalTask
    candidate: SoupCandidate
    evaluations: list[DealtEvaluation] = field(default_factory=list)
    whole: bool = False  # whether a worker evaluates some of it


@dataclass
class DealingPool:
    """Evaluates candidates over a pool of workers.

    Args:
        workers: Do the jobs.
        suite: The benchmarks.
        make_candidate: Makes candidates for this process, which never loads them.
        clock: The workers' time, in seconds.
    """

    workers: JobPool
    suite: BenchmarkSuite
    make_candidate: MakeCandidate
    clock: Callable[[], float] = time.monotonic
    returned: SimpleQueue[Coroutine] = field(default_factory=SimpleQueue)
    _running: dict[object, _Running] = field(default_factory=dict)
    _whole: list[EvalTask] = field(default_factory=list)  # that no worker has got yet
    _events: list[Event] = field(default_factory=list)
    _again: list[Chunk] = field(default_factory=list)  # with the files that a worker did not see
    _wanted: list[TaskKey] | None = None
    _sure: int = 1  # so many of these are wanted whatever comes out

    def __post_init__(self) -> None:
        self.queue = ChunkQueue(self.workers.size)
        self.ends = ExpectedEnds(self.clock)

    @property
    def size(self) -> int:
        """How many workers there are."""
        return self.workers.size

    @property
    def idle(self) -> int:
        """How many workers wait, with nothing left to do of what was started and is wanted, and not just for a moment.

        Where it is sure what comes next, one that will soon be done is among them. A bet is no gain where a worker
        would still be swapping it in when the next candidate is known.
        """
        if self._wanted and self._wanted[0] not in self._running:
            return len(self._open)
        if self._again or self._ranked(self._whole) or self._ranked(self.queue.tasks()):
            return 0
        if any(key not in self._running for key in (self._wanted or [])[: self._sure]):
            return len(self._open)
        return len(self.workers.free) if self._may_bet() else 0

    @property
    def _open(self) -> list[int]:
        """The workers that may be given something: those that wait, and those that will soon be done."""
        busy = self.workers.with_one_job
        return [*self.workers.free, *(number for number in busy if self.ends.seconds_of_worker(number) < SPARE_SECONDS)]

    def want(self, keys: Sequence[TaskKey], sure: int = 1) -> None:
        """Take note of the tasks that a search wants now, the first first; what it wants no more has to wait."""
        self._wanted, self._sure = list(keys), sure

    def start(self, task: EvalTask) -> None:
        """Start a candidate's evaluation."""
        suite = self.suite.on(task.split)
        dealt = [i for i in task.indices if can_be_dealt(suite.entries[i].evaluator, suite.entries[i].benchmark)]
        candidate = self.make_candidate(task.recipe, lambda text: self.tell(Remark(task, text)))
        running = self._running[task.key] = _Running(task, candidate)
        for index in dealt:
            questions = task.questions.get(index)
            entry = suite.entries[index].asking(questions.asked if questions else None)
            evaluation = DealtEvaluation(
                task, index, entry, candidate, suite.timeout_seconds, self.queue, self.returned, self.tell
            )
            running.evaluations.append(evaluation)
        if whole := tuple(index for index in task.indices if index not in dealt):
            running.whole = True
            self._whole.append(replace(task, indices=whole))
        self._advance()

    def wait(self) -> list[Event]:
        """Wait until something happens that a search must know of, or until it may start another candidate."""
        self._advance()
        while not self._events:
            is_away = any(evaluation.coroutine.is_away for evaluation in self._evaluations())
            if len(self.workers.free) < self.workers.size:
                for event in self.workers.wait(POLL_SECONDS if is_away else None):
                    self._take_in(event)
            elif is_away:
                self.returned.get()
            self._advance()
            if self.idle:
                break
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """End all workers and all evaluations."""
        self.workers.close()
        for running in list(self._running.values()):
            self._end(running)

    def tell(self, event: Event) -> None:
        """Have a search know of an event."""
        self._events.append(event)

    def _evaluations(self) -> Iterator[DealtEvaluation]:
        return (evaluation for running in self._running.values() for evaluation in running.evaluations)

    def _advance(self) -> None:
        """Give all free workers something to do, and let those harnesses go on that can."""
        self._give()
        while waiting := [each for each in self._evaluations() if each.coroutine.is_ready]:
            ready = max(waiting, key=lambda each: self.queue.turns(each.index))
            ready.resume()
            if isinstance(ready.error, SoupError):
                self._fail(ready.task, ready.error)
            elif ready.error is not None:
                raise ready.error
            elif ready.coroutine.is_done:
                assert ready.score is not None
                self.tell(ScoreEvent(ready.task, ready.index, ready.score, ready.seconds))
                running = self._running[ready.task.key]
                running.evaluations.remove(ready)
                self._finish(running)
            self._give()

    def _give(self) -> None:
        if any(isinstance(event, TaskDone) for event in self._events):
            return  # what a search wants may be something else now
        for number in self.workers.free:
            if whole := self._ranked(self._whole):
                self._whole.remove(whole[0])
                self.ends.add_evaluation(number)
                self.workers.give(number, whole[0])
            elif self._again:
                self.workers.give(number, self._again.pop(0))
            elif tasks := self._ranked(self.queue.tasks()):
                is_bet = self._is_bet(tasks[0])
                if not is_bet or self._may_bet() or self.ends.candidate_of(number) == tasks[0].recipe.digest:
                    self._give_chunk(number, self.queue.next(tasks[0], is_bet=is_bet))
        if not self.workers.free:
            self._give_spares()

    def _give_spares(self) -> None:
        """Give the workers that will soon be done what they do next."""
        while (tasks := self._ranked(self.queue.tasks())) and not self._is_bet(tasks[0]):
            if (number := self._next_for(tasks[0])) is None:
                return
            self._give_chunk(number, self.queue.next(tasks[0]))

    def _next_for(self, task: EvalTask) -> int | None:
        """Return the worker that will be done first, if it may be given something of a task already."""
        is_open = set(self._open)
        for number in self.ends.workers:
            if number not in is_open and self.ends.seconds_of_worker(number) > 0:
                return None  # it has two chunks, and will be done with both before all others that follow
            if number in is_open and self._needs_no_swap_back(number, task):
                return number
        return None

    def _needs_no_swap_back(self, number: int, task: EvalTask) -> bool:
        """Whether a worker has the task's candidate already, or nothing more will come of the one that it has."""
        digest = self.ends.candidate_of(number)
        evaluations = [each for each in self._evaluations() if each.task.recipe.digest == digest]
        return digest == task.recipe.digest or not any(each.has_more_rounds for each in evaluations)

    def _give_chunk(self, number: int, chunk: Chunk) -> None:
        evaluations = self._running[chunk.task.key].evaluations
        evaluation = next(each for each in evaluations if each.index == chunk.index)
        chunk = replace(chunk, seconds=evaluation.seconds_left)
        evaluation.chunks[chunk.number] = chunk
        self.ends.add_chunk(number, chunk, self.queue.expect(chunk), is_free=number in self.workers.free)
        self.workers.give(number, chunk)

    def _ranked(self, tasks: Sequence[EvalTask]) -> list[EvalTask]:
        """Return those of the tasks that a search wants, the first first; all, in their order, if it never said so."""
        if self._wanted is None:
            return list(tasks)
        ranks = {key: rank for rank, key in enumerate(self._wanted)}
        return sorted((task for task in tasks if task.key in ranks), key=lambda task: ranks[task.key])

    def _is_bet(self, task: EvalTask) -> bool:
        """Whether it may turn out that nobody wants a task: others are wanted before it."""
        return self._wanted is not None and task.key not in self._wanted[: self._sure]

    def _may_bet(self) -> bool:
        """Whether workers have longer to wait for what is wanted first than a swap takes."""
        first = self._running.get(self._wanted[0]) if self._wanted else None
        if first is None or first.whole:
            return not self._wanted or first is not None
        numbers = [number for evaluation in first.evaluations for number in evaluation.chunks]
        return not numbers or max(map(self.ends.seconds_of_chunk, numbers)) > self.ends.swap_seconds

    def _take_in(self, event: Event) -> None:
        running = self._running.get(event.task.key)
        if running is None:
            return  # of a task that failed
        if isinstance(event, RepliesEvent | ChunkDone):
            for evaluation in running.evaluations:
                if event.number in evaluation.chunks:
                    self._take_in_chunk(event, evaluation)
            return
        if isinstance(event, TaskDone):
            running.whole = False
            self._fail(running.task, event.error) if event.error is not None else self._finish(running)
            return
        self.tell(replace(event, task=running.task))

    def _take_in_chunk(self, event: RepliesEvent | ChunkDone, evaluation: DealtEvaluation) -> None:
        if isinstance(event, RepliesEvent):
            evaluation.take_replies(event)
            return
        chunk = evaluation.chunks[event.number]
        if isinstance(event.error, MissingFilesError) and not chunk.files:
            files = {path: Path(path).read_bytes() for path in event.error.paths if Path(path).is_file()}
            evaluation.chunks[event.number] = replace(chunk, files=files)
            self._again.append(evaluation.chunks[event.number])
            return
        if self.ends.end_chunk(event) and event.error is None:
            self.queue.learn(evaluation.index, len(chunk.positions), event.seconds)
        evaluation.take_end(event)

    def _finish(self, running: _Running) -> None:
        if not running.evaluations and not running.whole:
            self._end(running)
            self.tell(TaskDone(running.task))

    def _fail(self, task: EvalTask, error: SoupError) -> None:
        self._end(self._running[task.key])
        self.tell(TaskDone(task, error))

    def _end(self, running: _Running) -> None:
        """Let go of a task; what workers still do of it is heard of no more."""
        self._running.pop(running.task.key)
        self.queue.drop(running.task)
        self._whole = [task for task in self._whole if task.key != running.task.key]
        self._again = [chunk for chunk in self._again if chunk.task.key != running.task.key]
        for evaluation in running.evaluations:
            evaluation.coroutine.end()
        running.candidate.remove()
