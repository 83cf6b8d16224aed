"""A Ray cluster, or one that is started here: `ray.remote(num_gpus=N)` around each job's command.

Core Ray alone. Its tasks run `executors.attempt`, which finds requests to stop in the job's folder.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import ray

from finetune.config import FinetuneConfig
from finetune.launching.executors.attempt import has_heartbeat, request_kill, request_stop, run_attempt
from finetune.launching.executors.protocol import Task, TaskExit, read_placement, write_placement
from soup.errors import FinetuneError
from soup.support.ray_address import require_listener

__all__ = ["RayExecutor"]


@dataclass
class RayExecutor:
    """Tasks of a cluster: one at a time for each `gpus_per_job` GPUs, or `jobs_at_once` where it has none."""

    config: FinetuneConfig
    address: str = ""
    chains: bool = False
    pause_seconds: float = 0.2
    _queue: list[Task] = field(default_factory=list)
    _running: dict[ray.ObjectRef, Task] = field(default_factory=dict)
    _adopted: list[Task] = field(default_factory=list)
    _ended: list[TaskExit] = field(default_factory=list)

    def __post_init__(self) -> None:
        _connect(self.address)
        resources = ray.cluster_resources()
        self.gpus, self.cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        each, most = self.config.gpus_per_job, self.config.jobs_at_once
        self.size = min(self.gpus // each, most or self.gpus) if self.gpus and each else most or 1
        self._remote = ray.remote(run_attempt).options(
            num_gpus=each if self.gpus else 0,
            num_cpus=1 if self.gpus else max(1, self.cpus // self.size),
            max_retries=0,  # an error of the job's own would be looped over
        )

    def describe(self) -> str:
        """Name what the cluster has."""
        where = f"Ray at {self.address}" if self.address else "a Ray of this host"
        if self.gpus and not self.size:
            raise FinetuneError(f"gpus_per_job: {self.config.gpus_per_job}, but {where} has {self.gpus}.")
        has = f"{self.gpus} GPUs, {self.config.gpus_per_job} a job" if self.gpus else f"{self.cpus} CPUs"
        return f"{where}: {has}, {self.size} at a time"

    def adopt(self, task: Task) -> bool:
        """Watch a task that an earlier launcher left in the cluster, as long as its heart beats."""
        placement = read_placement(task.folder)
        if not placement or placement["on"] != "ray" or not has_heartbeat(task.folder):
            return False
        self._adopted.append(task)
        return True

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue tasks behind those that wait."""
        self._queue += tasks
        self._fill()

    def _fill(self) -> None:
        while self._queue and len(self._running) + len(self._adopted) < self.size:
            task = self._queue.pop(0)
            # On CPUs each has its share of them; torch would take all.
            variables = {} if self.gpus else {"OMP_NUM_THREADS": str(max(1, self.cpus // self.size))}
            self._running[self._remote.remote(task.folder, task.command, variables)] = task
            write_placement(task, {"on": "ray", "address": self.address or "local"})

    def poll(self) -> list[TaskExit]:
        """Give what ended since the last call, and hand over as many tasks as fit."""
        ready = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)[0] if self._running else []
        for reference in ready:
            task = self._running.pop(reference)
            try:
                self._ended.append(TaskExit(task.name, ray.get(reference)))
            except Exception as error:  # the node died, the worker was killed, the task could not be placed
                self._ended.append(TaskExit(task.name, None, f"Ray lost it: {_first_line(error)}"))
        for task in [task for task in self._adopted if not has_heartbeat(task.folder)]:
            self._adopted.remove(task)
            self._ended.append(TaskExit(task.name, None))
        self._fill()
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """Ask what runs to stop; what is queued is given as ended."""
        self._ended += [TaskExit(task.name, 143, "not started") for task in self._queue]
        self._queue = []
        for task in [*self._running.values(), *self._adopted]:
            with suppress(OSError):
                request_stop(task.folder)

    def kill(self) -> None:
        """Have all commands killed where they run."""
        self.stop()
        for task in [*self._running.values(), *self._adopted]:
            with suppress(OSError):
                request_kill(task.folder)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        ray.shutdown()


def _connect(address: str) -> None:
    """Join the cluster, or start one here.

    Raises:
        FinetuneError: no cluster there.
    """
    target = {"address": address} if address else {}
    try:
        require_listener(address)
        with _kept_signal_handlers():
            ray.init(
                **target, log_to_driver=False, include_dashboard=False, ignore_reinit_error=True, logging_level="error"
            )
    except Exception as error:  # Ray raises bare ones, too, such as where its start takes too long
        raise FinetuneError(f"--executor ray:{address}: no cluster there ({error}).") from error


@contextmanager
def _kept_signal_handlers() -> Iterator[None]:
    """Put signal handlers back: Ray takes SIGTERM for itself, and exits by it; no job would be asked to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
