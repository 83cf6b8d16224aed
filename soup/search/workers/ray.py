"""Workers on a Ray cluster: one actor a GPU, on this machine or on many that share a file system.

Ray is an extra (`pip install 'vlm-soup[ray]'`): core Ray alone, no Ray Train and no dashboard.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from soup.errors import EvaluatorError
from soup.search.workers.protocol import AnswersEvent, Deaths, PoolJob, StartWorker
from soup.support.devices import torch_device
from soup.support.extras import install_line
from soup.support.options import option_name, speak_in_flags, speaks_in_flags
from soup.support.ray_address import require_listener

__all__ = ["RayPool", "actor_device", "connect"]

EventT = TypeVar("EventT")


def connect(address: str) -> Any:
    """Join the cluster at `address`, or start one on this machine for `local`.

    Raises:
        EvaluatorError: Ray is not installed, or the cluster is not there.
    """
    try:
        import ray
    except ImportError as error:
        raise EvaluatorError(f"{option_name('ray')} needs Ray: {install_line('ray')}") from error
    target = {} if address == "local" else {"address": address}
    quiet = {"log_to_driver": False, "include_dashboard": False, "logging_level": "error"}
    try:
        require_listener(address)
        with _keep_sigterm_handler():
            ray.init(**target, **quiet, ignore_reinit_error=True)
    except Exception as error:  # Ray raises bare ones, too, such as where its start takes too long
        raise EvaluatorError(f"{option_name('ray')} {address}: no cluster there ({error}).") from error
    return ray


def actor_device(address: str) -> str:
    """Return what the actors of a cluster compute on, by the word of one of its processes: `cuda`, `mps` or `cpu`.

    Raises:
        EvaluatorError: see `connect`; or that process failed.
    """
    ray = connect(address)
    gpus = _gpus_each(ray.cluster_resources())
    try:
        return str(ray.get(ray.remote(num_gpus=gpus, num_cpus=1)(torch_device).remote()))
    except ray.exceptions.RayError as error:
        raise EvaluatorError(f"{option_name('ray')} {address}: no process there can use torch:\n{error}") from error


def _gpus_each(resources: Mapping[str, float]) -> int:
    """Return how many GPUs an actor gets: one, on a cluster that has some."""
    return min(1, int(resources.get("GPU", 0)))


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Keep our way of ending: Ray's own would leave at once, as if there were nothing to tidy up."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@dataclass
class RayPool(Generic[EventT]):
    """Actors of a cluster, each with one loaded model.

    Args:
        start: Makes the worker of each.
        size: How many there are; 0: one a GPU, or one a core where the cluster has no GPUs.
        address: Where the cluster is, or `local` to start one here.
    """

    start: StartWorker
    size: int
    address: str
    _actors: list[Any] = field(default_factory=list)
    _running: dict[Any, tuple[int, PoolJob[EventT]]] = field(default_factory=dict)
    _deaths: Deaths = field(default_factory=Deaths)

    def __post_init__(self) -> None:
        self._ray = connect(self.address)
        resources = self._ray.cluster_resources()
        self._gpus = _gpus_each(resources)
        self.size = self.size or int(resources.get("GPU" if self._gpus else "CPU", 1))
        self._actor = self._ray.remote(_Worker)
        self._actors = [self._spawn() for _ in range(self.size)]

    @property
    def free(self) -> list[int]:
        """The numbers of the actors that wait for a job."""
        busy = {number for number, _ in self._running.values()}
        return [number for number in range(self.size) if number not in busy]

    @property
    def with_one_job(self) -> list[int]:
        """The numbers of the actors that have a job and no other one after it."""
        counts = Counter(number for number, _ in self._running.values())
        return [number for number, count in counts.items() if count == 1]

    def give(self, number: int, job: PoolJob[EventT]) -> None:
        """Give a job to an actor that waits for one, or has one: it does them one after the other."""
        self._running[self._actors[number].work.remote(job)] = (number, job)

    def wait(self, seconds: float | None = None) -> list[EventT]:
        """Wait until an actor is done or dies; a dead one is replaced and its jobs given again."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if not ready:
            return []
        number, job = self._running.pop(ready[0])
        try:
            events: list[EventT] = self._ray.get(ready[0])
        except self._ray.exceptions.RayActorError as error:
            return self._handle_death(number, job, error)
        except self._ray.exceptions.RayTaskError as error:
            return [job.failed(EvaluatorError(f"{job.title}: {error}"))]
        return events

    def close(self) -> None:
        """End all actors; the cluster stays, unless it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self.address == "local":
            with _keep_sigterm_handler():
                self._ray.shutdown()

    def _spawn(self) -> Any:
        options = {"num_gpus": self._gpus, "num_cpus": 1, "max_restarts": 0}
        return self._actor.options(**options).remote(self.start, speaks_in_flags())

    def _handle_death(self, number: int, job: PoolJob[EventT], error: Exception) -> list[EventT]:
        self._actors[number] = self._spawn()
        later = {reference: its for reference, (actor, its) in self._running.items() if actor == number}
        for reference in later:
            self._running.pop(reference)
        has_failed = self._deaths.count(job)
        for waiting_job in later.values() if has_failed else (job, *later.values()):
            self.give(number, waiting_job)
        if not has_failed:
            return []
        title = f"{job.title}: the actor that evaluated it ended twice"
        return [job.failed(EvaluatorError(f"{title}. Ray says:\n{error}"))]


class _Worker:
    """The actor: what a worker of this host does, in a process that Ray places."""

    def __init__(self, start: StartWorker, in_flags: bool) -> None:
        if in_flags:
            speak_in_flags()
        self._worker = start()

    def work(self, job: object) -> list[object]:
        """All events of a job, at once."""
        events: list[object] = []
        self._worker.work(job, events.append)
        return [event for event in events if not isinstance(event, AnswersEvent)]  # all come at once: too late
