"""A pool of workers that tells what each of them is at."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from soup.evaluation.api import Benchmark
from soup.evaluation.progress import WorkerState
from soup.evaluation.suite import BenchmarkSuite
from soup.search.workers.protocol import (
    AnswersEvent,
    Chunk,
    ChunkDone,
    Event,
    Job,
    JobPool,
    RepliesEvent,
    ScoreEvent,
    TaskDone,
)

__all__ = ["WatchedPool"]


@dataclass
class WatchedPool:
    """Workers that do what those of another pool do.

    Args:
        workers: The other pool.
        suite: The benchmarks.
        on_worker: Called with a worker's number, and what it is at from now on; None: it waits.
    """

    workers: JobPool
    suite: BenchmarkSuite
    on_worker: Callable[[int, WorkerState | None], None]
    _jobs: defaultdict[int, deque[tuple[Job, WorkerState]]] = field(default_factory=lambda: defaultdict(deque))
    _answered: dict[int, set[int]] = field(default_factory=dict)  # positions of a chunk: a successor may answer again

    @property
    def size(self) -> int:
        """How many there are."""
        return self.workers.size

    @property
    def free(self) -> list[int]:
        """The numbers of those that wait for a job."""
        return self.workers.free

    @property
    def with_one_job(self) -> list[int]:
        """The numbers of those that have a job and no other one after it."""
        return self.workers.with_one_job

    def give(self, number: int, job: Job) -> None:
        """Give a job to a worker that waits for one, or has one."""
        if isinstance(job, Chunk):
            state = WorkerState(job.recipe, self._benchmark(job, job.index), len(job.positions))
            self._answered[job.number] = set()
        else:
            state = WorkerState(job.recipe, self._benchmark(job, job.indices[0]))
        self._jobs[number].append((job, state))
        if len(self._jobs[number]) == 1:
            self.on_worker(number, state)
        self.workers.give(number, job)

    def wait(self, seconds: float | None = None) -> list[Event]:
        """Wait until something happens, or for so long, and give the events; some worker has a job."""
        events = self.workers.wait(seconds)
        for event in events:
            for number, jobs in self._jobs.items():
                if jobs:
                    self._take_in(event, number, jobs)
        return events

    def close(self) -> None:
        """End all workers, whatever they do."""
        self.workers.close()

    def _take_in(self, event: Event, number: int, jobs: deque[tuple[Job, WorkerState]]) -> None:
        """Tell what an event says of a worker: it does the first of its jobs."""
        job, state = jobs[0]
        if isinstance(event, ChunkDone | TaskDone) and event.key == job.key:
            jobs.popleft()
            if isinstance(job, Chunk):
                self._answered.pop(job.number)
            self.on_worker(number, None)
            if jobs:
                self.on_worker(number, jobs[0][1])
        elif (later := self._after(event, job, state)) is not None:
            jobs[0] = job, later
            self.on_worker(number, later)

    def _after(self, event: Event, job: Job, state: WorkerState) -> WorkerState | None:
        """Return what a worker is at after an event; None where that is no news."""
        if isinstance(job, Chunk):
            if not isinstance(event, RepliesEvent) or event.number != job.number:
                return None
            self._answered[job.number].update(event.positions)
            return replace(state, answered=len(self._answered[job.number]))
        if event.task.key != job.key:
            return None
        if isinstance(event, AnswersEvent):
            return WorkerState(job.recipe, self._benchmark(job, event.index), event.total, event.count)
        if isinstance(event, ScoreEvent) and event.index in job.indices[:-1]:
            return WorkerState(job.recipe, self._benchmark(job, job.indices[job.indices.index(event.index) + 1]))
        return None

    def _benchmark(self, job: Job, index: int) -> Benchmark:
        split = job.task.split if isinstance(job, Chunk) else job.split
        return self.suite.on(split).entries[index].benchmark
