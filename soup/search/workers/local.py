"""Workers that are processes of this host, each with one loaded model and one device."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Generic, TypeVar

from soup.errors import EvaluatorError
from soup.search.workers.forking import ForkServer
from soup.search.workers.protocol import Deaths, JobDone, PoolJob, StartWorker
from soup.support.devices import count_gpus
from soup.support.log_ends import last_lines
from soup.support.options import speaks_in_flags
from soup.support.threads import count_cores

__all__ = ["LocalPool"]

EventT = TypeVar("EventT")


@dataclass
class _Worker(Generic[EventT]):
    number: int
    process: int  # its number at the server
    connection: Connection
    jobs: deque[PoolJob[EventT]] = field(default_factory=deque)  # it does the first


@dataclass
class LocalPool(Generic[EventT]):
    """Processes of this host. Until `open` there is none but one that imports what they will need.

    Args:
        size: How many there are; worker i sees GPU i alone, where there are GPUs.
        logs: The folder that takes what they print.
        imports: Modules that they will need.
    """

    size: int
    logs: Path
    imports: Sequence[str] = ()
    _workers: list[_Worker[EventT]] = field(default_factory=list)
    _deaths: Deaths = field(default_factory=Deaths)

    def __post_init__(self) -> None:
        threads = max(1, count_cores() // self.size)  # each worker's share of the cores
        self._server = ForkServer(self.imports, {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(threads)})

    def open(self, start: StartWorker) -> None:
        """Start the workers.

        Args:
            start: Makes the worker of each process.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        self._start_worker, self._devices = start, _devices()
        self._workers = [self._spawn(number) for number in range(self.size)]

    @property
    def free(self) -> list[int]:
        """The numbers of the workers that wait for a job."""
        return [worker.number for worker in self._workers if not worker.jobs]

    @property
    def with_one_job(self) -> list[int]:
        """The numbers of the workers that have a job and no other one after it."""
        return [worker.number for worker in self._workers if len(worker.jobs) == 1]

    def give(self, number: int, job: PoolJob[EventT]) -> None:
        """Give a job to a worker that waits for one, or has one."""
        self._give(self._workers[number], job)

    def wait(self, seconds: float | None = None) -> list[EventT]:
        """Wait until a worker sends an event or dies; a dead one is replaced and its jobs given again."""
        events: list[EventT] = []
        ready = wait([worker.connection for worker in self._workers if worker.jobs], seconds)
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            try:
                event: EventT = worker.connection.recv()
            except (EOFError, OSError):  # the latter in the midst of a message
                events += self._handle_death(worker)
                continue
            if isinstance(event, JobDone):
                worker.jobs.popleft()
            events.append(event)
        return events

    def close(self) -> None:
        """End all workers."""
        self._server.close()
        for worker in self._workers:
            worker.connection.close()

    def log(self, number: int) -> Path:
        """Return the file of what a worker prints."""
        return self.logs / f"worker-{number}.log"

    def _give(self, worker: _Worker[EventT], job: PoolJob[EventT]) -> None:
        worker.jobs.append(job)
        with suppress(BrokenPipeError, ConnectionResetError):  # it died idle: its end shows in `wait`
            worker.connection.send(job)

    def _spawn(self, number: int) -> _Worker[EventT]:
        ours, theirs = Pipe()
        devices = self._devices
        environment = {"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if devices else {}
        with theirs, self.log(number).open("ab") as log:
            process = self._server.fork(theirs, log.fileno(), environment)
        with suppress(BrokenPipeError, ConnectionResetError):
            ours.send((self._start_worker, speaks_in_flags()))
        return _Worker(number, process, ours)

    def _handle_death(self, worker: _Worker[EventT]) -> list[EventT]:
        job, *later = worker.jobs
        code, log = self._server.exit_code(worker.process), self.log(worker.number)
        worker.connection.close()
        successor = self._spawn(worker.number)
        self._workers[worker.number] = successor
        has_failed = self._deaths.count(job)
        for waiting_job in later if has_failed else worker.jobs:
            self._give(successor, waiting_job)
        if not has_failed:
            return []
        how = f"killed by signal {-code}" if code < 0 else f"with exit code {code}"
        title = f"{job.title}: the worker that evaluated it ended twice, {how}"
        end = "\n".join(last_lines(log)) or self._server.last_words()
        return [job.failed(EvaluatorError(f"{title}. Its log: {log}, which ends:\n{end}"))]


def _devices() -> list[str]:
    """Return the GPUs that workers share out, as CUDA_VISIBLE_DEVICES names them; none on a machine without."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device.strip()]
    return [str(number) for number in range(count_gpus())]
