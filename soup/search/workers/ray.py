"""The crew on a Ray cluster: one actor a GPU, on this machine or on many that share a file system.

Ray is an extra (`pip install 'vlm-soup[ray]'`): core Ray alone, no Ray Train and no dashboard.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from soup.errors import EvaluatorError
from soup.search.workers.local import EvalTask, Event, TaskDone, WorkerSpec, make_worker

__all__ = ["RayPool", "connect"]


def connect(address: str) -> Any:
    """Join the cluster at `address`, or start one on this machine for `local`.

    Raises:
        EvaluatorError: Ray is not installed, or the cluster is not there.
    """
    try:
        import ray
    except ImportError as error:
        raise EvaluatorError("--ray needs Ray: pip install 'vlm-soup[ray]'") from error
    place = {} if address == "local" else {"address": address}
    quiet = {"log_to_driver": False, "include_dashboard": False, "logging_level": "error"}
    try:
        _knock(address)
        with _sigterm_as_it_is():
            ray.init(**place, **quiet, ignore_reinit_error=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise EvaluatorError(f"--ray {address}: no cluster there ({error}).") from error
    return ray


@contextmanager
def _sigterm_as_it_is() -> Iterator[None]:
    """Keeps our way of ending: Ray's own would leave at once, as if there were nothing to tidy up."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Fail at once where nobody listens: Ray itself would try again for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


@dataclass
class RayPool:
    """`size` actors of a cluster (0: one a GPU, or one a core where it has none), each with one loaded model."""

    brief: WorkerSpec
    size: int
    address: str
    _actors: list[Any] = field(default_factory=list)
    _running: dict[Any, tuple[int, EvalTask]] = field(default_factory=dict)
    _deaths: dict[Any, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ray = connect(self.address)
        found = self._ray.cluster_resources()
        self._gpus = min(1, int(found.get("GPU", 0)))
        self.size = self.size or int(found.get("GPU" if self._gpus else "CPU", 1))
        self._actor = self._ray.remote(_Judge)
        self._actors = [self._hire() for _ in range(self.size)]

    @property
    def idle(self) -> int:
        """How many actors wait for a task."""
        return self.size - len(self._running)

    def start(self, task: EvalTask) -> None:
        """Give a task to an idle actor."""
        busy = {place for place, _ in self._running.values()}
        place = next(place for place in range(self.size) if place not in busy)
        self._running[self._actors[place].work.remote(task)] = (place, task)

    def wait(self) -> list[Event]:
        """Wait until an actor is done or dies; a dead one is replaced and its task given again."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1)
        place, task = self._running.pop(ready[0])
        try:
            events: list[Event] = self._ray.get(ready[0])
        except self._ray.exceptions.RayActorError as error:
            return self._bury(place, task, error)
        return events

    def close(self) -> None:
        """End all actors; the cluster stays, unless it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self.address == "local":
            with _sigterm_as_it_is():
                self._ray.shutdown()

    def _hire(self) -> Any:
        options = {"num_gpus": self._gpus, "num_cpus": 1, "max_restarts": 0}
        return self._actor.options(**options).remote(self.brief)

    def _bury(self, place: int, task: EvalTask, error: Exception) -> list[Event]:
        self._actors[place] = self._hire()
        self._deaths[task.key] = self._deaths.get(task.key, 0) + 1
        if self._deaths[task.key] < 2:
            self._running[self._actors[place].work.remote(task)] = (place, task)
            return []
        what = f"{'+'.join(task.recipe.names)}: the actor that judged it ended twice"
        return [TaskDone(task, EvaluatorError(f"{what}. Ray says:\n{error}"))]


class _Judge:
    """The actor: what a worker of this host does, in a process that Ray places."""

    def __init__(self, brief: WorkerSpec) -> None:
        self._work = make_worker(brief)

    def work(self, task: EvalTask) -> list[Event]:
        """All that a worker tells of a task, at once."""
        events: list[Event] = []
        self._work(task, events.append)
        return events
