"""A pool of workers that tells what each of them is at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from soup.evaluation.api import Benchmark
from soup.evaluation.progress import WorkerState
from soup.evaluation.suite import BenchmarkSuite
from soup.search.workers.protocol import AnswersEvent, Chunk, Event, Job, JobPool, RepliesEvent, ScoreEvent

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
    _jobs: dict[int, tuple[Job, WorkerState]] = field(default_factory=dict)
    _answered: dict[int, set[int]] = field(default_factory=dict)  # positions of a chunk: a successor may answer again

    @property
    def size(self) -> int:
        """How many there are."""
        return self.workers.size

    @property
    def free(self) -> list[int]:
        """The numbers of those that wait for a job."""
        return self.workers.free

    def give(self, number: int, job: Job) -> None:
        """Give a job to a worker that waits for one."""
        if isinstance(job, Chunk):
            state = WorkerState(job.recipe, self._benchmark(job, job.index), len(job.positions))
            self._answered[job.number] = set()
        else:
            state = WorkerState(job.recipe, self._benchmark(job, job.indices[0]))
        self._tell(number, job, state)
        self.workers.give(number, job)

    def wait(self, seconds: float | None = None) -> list[Event]:
        """Wait until something happens, or for so long, and give the events; some worker has a job."""
        events = self.workers.wait(seconds)
        for event in events:
            for number, (job, state) in list(self._jobs.items()):
                if (later := self._after(event, job, state)) is not None:
                    self._tell(number, job, later)
        for number in self._jobs.keys() & set(self.workers.free):
            job, _ = self._jobs.pop(number)
            if isinstance(job, Chunk):
                self._answered.pop(job.number)
            self.on_worker(number, None)
        return events

    def close(self) -> None:
        """End all workers, whatever they do."""
        self.workers.close()

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

    def _tell(self, number: int, job: Job, state: WorkerState) -> None:
        self._jobs[number] = job, state
        self.on_worker(number, state)
