"""What crosses between a search and its workers, and what a worker pool is.

A worker streams candidates from the pool's files by itself: recipes go one way, scores or replies come back. A job is
a whole evaluation or a chunk of one's requests. A worker has one job, or two: then it begins the second at once when
the first is done. A worker may die; its jobs are then given again to its successor, and a job at which workers died
`MAX_DEATHS` times has failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from soup.checkpoints.digest import ContentDigest
from soup.errors import SoupError
from soup.evaluation.api import Benchmark, Score, Split
from soup.evaluation.questions import QuestionSet
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.settings import EvalSettings
from soup.merging.options import MergeOptions
from soup.merging.pool import Pool
from soup.merging.pool_locations import PoolLocations
from soup.merging.recipe import Recipe

__all__ = [
    "MAX_DEATHS",
    "AnswersEvent",
    "Chunk",
    "ChunkDone",
    "Deaths",
    "EvalTask",
    "Event",
    "Job",
    "JobDone",
    "JobPool",
    "JobWorker",
    "PoolJob",
    "Remark",
    "RepliesEvent",
    "ScoreEvent",
    "StartWorker",
    "TaskDone",
    "WorkerPool",
    "WorkerSpec",
]

MAX_DEATHS = 2
"""A job is given up when so many workers died at it: once may be chance."""

EventT_co = TypeVar("EventT_co", covariant=True)


class PoolJob(Protocol[EventT_co]):
    """What a worker of any kind does at once, and tells by events."""

    @property
    def key(self) -> object:
        """What tells it from all others."""

    @property
    def title(self) -> str:
        """Its name in errors."""

    def failed(self, error: SoupError) -> EventT_co:
        """Return the event of its failure."""


class JobDone:
    """The last event of a job: its worker waits for another one."""


class JobWorker(Protocol):
    """Does jobs, one at a time, in a process or an actor of its own."""

    def work(self, job: Any, send: Callable[[Any], None]) -> None:
        """Do a job; its last event is a `JobDone`."""


StartWorker = Callable[[], JobWorker]
"""Makes a worker where it works; it can be pickled."""


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker needs to evaluate on its own; it can be pickled.

    Args:
        ingredients: The pool's ingredients: name and directory.
        base: The base's directory, if the pool has one.
        benchmarks: What is evaluated.
        settings: What evaluators are built from.
        options: How candidates are merged.
        run: The run's directory.
        digests: The ingredients' digests by name, and that of a base that is read, by its location.
        modules: Modules that register plug-ins when they are imported.
        tokenizer: The name of the ingredient whose tokenizer soups take, where one was chosen.
    """

    ingredients: tuple[tuple[str, str], ...]
    base: str | None
    benchmarks: tuple[Benchmark, ...]
    settings: EvalSettings
    options: MergeOptions
    run: RunDirectory
    digests: Mapping[str, ContentDigest]
    modules: tuple[str, ...] = ()
    tokenizer: str | None = None

    def open_pool(self) -> Pool:
        """Return the pool, opened by its directories; it was checked before."""
        return PoolLocations(self.ingredients, self.base, self.tokenizer).open()


@dataclass(frozen=True)
class EvalTask:
    """A recipe to be evaluated over a part of the questions, on the suite's benchmarks of these indices.

    `questions` says by the index what is asked where that is not everything.
    """

    recipe: Recipe
    split: Split
    indices: tuple[int, ...]
    questions: Mapping[int, QuestionSet] = field(default_factory=dict)

    @cached_property
    def key(self) -> tuple[str, Split]:
        """What is evaluated, and over which questions."""
        return self.recipe.digest, self.split

    @property
    def title(self) -> str:
        """Its name in errors: that of the soup."""
        return "+".join(self.recipe.names)

    def failed(self, error: SoupError) -> TaskDone:
        """Return the event of its failure."""
        return TaskDone(self, error)


@dataclass(frozen=True)
class Chunk:
    """Some requests of an evaluation, for one worker.

    Args:
        task: The evaluation's.
        index: That of its benchmark in the suite.
        number: No other chunk of the search has it.
        positions: Of the requests, among all that the harness dealt at once.
        requests: What only the harness understands.
        seconds: How long the worker may take; None: for ever.
        files: What the requests name and a worker did not see, by their paths.
    """

    task: EvalTask
    index: int
    number: int
    positions: tuple[int, ...]
    requests: tuple[Any, ...]
    seconds: float | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """Whose weights are to answer."""
        return self.task.recipe

    @property
    def key(self) -> int:
        """What tells it from all others."""
        return self.number

    @property
    def title(self) -> str:
        """Its name in errors: that of the soup."""
        return self.task.title

    def failed(self, error: SoupError) -> ChunkDone:
        """Return the event of its failure."""
        return ChunkDone(self.task, self.number, 0.0, error)


@dataclass(frozen=True)
class ScoreEvent:
    """A score that a worker gave on the suite's benchmark of that index, and the seconds that it took."""

    task: EvalTask
    index: int
    score: Score
    seconds: float


@dataclass(frozen=True)
class AnswersEvent:
    """So many of so many prompts are answered on the suite's benchmark of that index; `what` is the word for them."""

    task: EvalTask
    index: int
    count: int
    total: int
    what: str


@dataclass(frozen=True)
class Remark:
    """Something strange about a task's answers that stops nothing."""

    task: EvalTask
    text: str


@dataclass(frozen=True)
class TaskDone(JobDone):
    """A task ended; with an error, it failed."""

    task: EvalTask
    error: SoupError | None = None

    @property
    def key(self) -> tuple[str, Split]:
        """The task's."""
        return self.task.key


@dataclass(frozen=True)
class RepliesEvent:
    """Replies to some of a chunk's requests, by their positions among all that were dealt at once."""

    task: EvalTask
    number: int
    positions: tuple[int, ...]
    replies: tuple[Any, ...]


@dataclass(frozen=True)
class ChunkDone(JobDone):
    """A chunk ended, after so many seconds of a worker's; with an error, it failed."""

    task: EvalTask
    number: int
    seconds: float
    error: SoupError | None = None

    @property
    def key(self) -> int:
        """The chunk's."""
        return self.number


Job = EvalTask | Chunk

Event = ScoreEvent | AnswersEvent | Remark | TaskDone | RepliesEvent | ChunkDone


class WorkerPool(Protocol):
    """What evaluates candidates, several at once."""

    @property
    def size(self) -> int:
        """How many candidates can be evaluated at once."""

    @property
    def idle(self) -> int:
        """How many workers wait, with nothing left to do of what was started."""

    def want(self, keys: Sequence[tuple[str, Split]], sure: int = 1) -> None:
        """Take note of the keys of the tasks that a search wants now, the first first: others may wait.

        So many of them are wanted whatever comes out, the others are bets.
        """

    def start(self, task: EvalTask) -> None:
        """Start an evaluation; a worker is idle."""

    def wait(self) -> list[Event]:
        """Wait until something happens, and give the events."""

    def close(self) -> None:
        """End all workers, whatever they do."""


class JobPool(Protocol):
    """Some workers by their numbers from 0, each of which does one job at a time and has one more at most."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def free(self) -> list[int]:
        """The numbers of those that wait for a job."""

    @property
    def with_one_job(self) -> list[int]:
        """The numbers of those that have a job and no other one after it."""

    def give(self, number: int, job: Job) -> None:
        """Give a job to a worker that waits for one, or has one."""

    def wait(self, seconds: float | None = None) -> list[Event]:
        """Wait until something happens, or for so long, and give the events; some worker has a job."""

    def close(self) -> None:
        """End all workers, whatever they do."""


@dataclass
class Deaths:
    """How often workers died at each job: one rule for all kinds of workers."""

    _counts: Counter[object] = field(default_factory=Counter)

    def count(self, job: PoolJob[object]) -> bool:
        """Count one more death at a job; whether the job has failed by now."""
        self._counts[job.key] += 1
        return self._counts[job.key] >= MAX_DEATHS
