"""Workers that judge candidates side by side: processes of this host, each with one loaded model and one device.

A worker streams candidates from the pool's files by itself; what crosses are recipes one way and scores the other. It
may die: its task is done again by its successor, and twice at the same task is an error.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from soup.checkpoints.digest import ContentDigest
from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Benchmark, EvalSettings, Score, Split
from soup.evaluation.scorer import make_candidate
from soup.evaluation.suite import build_suite, evaluate_once
from soup.merging.pool import Ingredient, Pool, open_ingredient
from soup.merging.recipe import Recipe

__all__ = ["EvalTask", "Event", "LocalPool", "ScoreEvent", "TaskDone", "WorkerPool", "WorkerSpec", "make_worker"]


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker needs to judge on its own; it can be pickled."""

    places: tuple[tuple[str, str], ...]
    base: str | None
    benchmarks: tuple[Benchmark, ...]
    settings: EvalSettings
    scratch: Path
    digests: Mapping[str, ContentDigest]
    allow_nonfinite: bool = False

    def open_pool(self) -> Pool:
        """The pool, opened by its places; it was checked before."""
        parts: list[Ingredient] = [open_ingredient(name, place) for name, place in self.places]
        return Pool(tuple(parts), open_ingredient("base", self.base) if self.base else None)


@dataclass(frozen=True)
class EvalTask:
    """A recipe to be judged over a part of the questions, on the benchmarks at these places."""

    recipe: Recipe
    split: Split
    places: tuple[int, ...]

    @property
    def key(self) -> tuple[str, Split]:
        """What is judged, and over which questions."""
        return self.recipe.digest, self.split


@dataclass(frozen=True)
class ScoreEvent:
    """A score that a worker gave for the benchmark at `place`, and the seconds that it took."""

    task: EvalTask
    place: int
    score: Score
    seconds: float


@dataclass(frozen=True)
class TaskDone:
    """A task ended; with an error, it failed."""

    task: EvalTask
    error: SoupError | None = None


Event = ScoreEvent | TaskDone


class WorkerPool(Protocol):
    """Some workers. `idle` of them have nothing to do."""

    @property
    def size(self) -> int:
        """How many candidates can be judged at once."""

    @property
    def idle(self) -> int:
        """How many workers wait for a task."""

    def start(self, task: EvalTask) -> None:
        """Give a task to an idle worker."""

    def wait(self) -> list[Event]:
        """Wait until something happens, and tell it."""

    def close(self) -> None:
        """End all workers, whatever they do."""


def make_worker(brief: WorkerSpec) -> Callable[[EvalTask, Callable[[Event], None]], None]:
    """What a worker does, anywhere: opens pool and harnesses once, then judges task by task and tells as it goes."""
    pool = brief.open_pool()
    juries: dict[Split, Any] = {}
    whole = build_suite(brief.benchmarks, brief.settings)

    def work(task: EvalTask, tell: Callable[[Event], None]) -> None:
        jury = juries.setdefault(task.split, whole.on(task.split))
        candidate = make_candidate(task.recipe, pool, brief.scratch, brief.digests, brief.allow_nonfinite)
        try:
            for place in task.places:
                benchmark, evaluator, _ = jury.seats[place]
                score, seconds = evaluate_once(evaluator, candidate, benchmark, jury.timeout_seconds)
                tell(ScoreEvent(task, place, score, seconds))
        except SoupError as error:
            tell(TaskDone(task, error))
        else:
            tell(TaskDone(task))
        finally:
            candidate.remove()

    return work


@dataclass
class _Worker:
    number: int
    process: Any
    connection: Connection
    task: EvalTask | None = None


@dataclass
class LocalPool:
    """`size` processes of this host; worker i sees GPU i alone, where there are any. `logs` take what they print."""

    brief: WorkerSpec
    size: int
    logs: Path
    _workers: list[_Worker] = field(default_factory=list)
    _deaths: dict[tuple[str, Split], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        self._devices = _devices()
        self._workers = [self._hire(number) for number in range(self.size)]

    @property
    def idle(self) -> int:
        """How many workers wait for a task."""
        return sum(worker.task is None for worker in self._workers)

    def start(self, task: EvalTask) -> None:
        """Give a task to an idle worker."""
        worker = next(worker for worker in self._workers if worker.task is None)
        self._give(worker, task)

    def wait(self) -> list[Event]:
        """Wait until a worker tells something or dies; a dead one is replaced and its task given again."""
        events: list[Event] = []
        ready = wait([worker.connection for worker in self._workers if worker.task is not None])
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            try:
                event: Event = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                events += self._bury(worker)
                continue
            if isinstance(event, TaskDone):
                worker.task = None
            events.append(event)
        return events

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()

    def log(self, number: int) -> Path:
        """Where a worker's prints go."""
        return self.logs / f"worker-{number}.log"

    def _give(self, worker: _Worker, task: EvalTask) -> None:
        worker.task = task
        with suppress(BrokenPipeError, ConnectionResetError):  # it died idle: its end shows in `wait`
            worker.connection.send(task)

    def _hire(self, number: int) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        device = self._devices[number % len(self._devices)] if self._devices else None
        threads = max(1, (os.cpu_count() or 1) // self.size)
        # spawn: a forked child would inherit torch's threads and the parent's CUDA context in a broken state.
        process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(theirs, self.brief, device, threads, self.log(number)), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(number, process, ours)

    def _bury(self, worker: _Worker) -> list[Event]:
        task = worker.task
        assert task is not None
        worker.process.join()
        worker.connection.close()
        code, log = worker.process.exitcode, self.log(worker.number)
        successor = self._hire(worker.number)
        self._workers[self._workers.index(worker)] = successor
        self._deaths[task.key] = self._deaths.get(task.key, 0) + 1
        if self._deaths[task.key] < 2:
            self._give(successor, task)
            return []
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        what = f"{'+'.join(task.recipe.names)}: the worker that judged it ended twice, {how}"
        return [TaskDone(task, EvaluatorError(f"{what}. Its log: {log}, which ends:\n{_tail(log)}"))]


def _devices() -> list[str]:
    """The GPUs that workers share out, as CUDA_VISIBLE_DEVICES names them; none on a machine without."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _serve(connection: Connection, brief: WorkerSpec, device: str | None, threads: int, log: Path) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends us in order
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with log.open("a", encoding="utf-8", buffering=1) as talk:
        os.dup2(talk.fileno(), 1)
        os.dup2(talk.fileno(), 2)
        sys.stdout = sys.stderr = talk
        try:
            work = make_worker(brief)
            while True:
                work(connection.recv(), connection.send)
        except EOFError:
            return  # the parent is gone
        except BaseException:
            traceback.print_exc()
            raise


def _tail(log: Path, lines: int = 15) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def worker_spec(
    pool: Pool,
    benchmarks: Sequence[Benchmark],
    settings: EvalSettings,
    scratch: Path,
    digests: Mapping[str, ContentDigest],
    *,
    allow_nonfinite: bool = False,
) -> WorkerSpec:
    """The brief for workers on an open pool."""
    places = tuple((part.name, str(part.checkpoint.path.absolute())) for part in pool)
    base = str(pool.base.checkpoint.path.absolute()) if pool.base else None
    return WorkerSpec(places, base, tuple(benchmarks), settings, scratch.absolute(), digests, allow_nonfinite)
