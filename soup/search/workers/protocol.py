"""What crosses between a search and its workers, and what a worker pool is.

A worker streams candidates from the pool's files by itself: recipes go one way, scores come back. It may die; its task
is then given again to its successor, and a task at which workers died `MAX_DEATHS` times has failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

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
    "Deaths",
    "EvalTask",
    "Event",
    "Remark",
    "ScoreEvent",
    "TaskDone",
    "WorkerPool",
    "WorkerSpec",
]

MAX_DEATHS = 2
"""A task is given up when so many workers died at it: once may be chance."""


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

    @property
    def key(self) -> tuple[str, Split]:
        """What is evaluated, and over which questions."""
        return self.recipe.digest, self.split


@dataclass(frozen=True)
class ScoreEvent:
    """A score that a worker gave on the suite's benchmark of that index, and the seconds that it took."""

    task: EvalTask
    index: int
    score: Score
    seconds: float


@dataclass(frozen=True)
class AnswersEvent:
    """So many of so many prompts are answered on the suite's benchmark of that index."""

    task: EvalTask
    index: int
    count: int
    total: int


@dataclass(frozen=True)
class Remark:
    """Something strange about a task's answers that stops nothing."""

    task: EvalTask
    text: str


@dataclass(frozen=True)
class TaskDone:
    """A task ended; with an error, it failed."""

    task: EvalTask
    error: SoupError | None = None


Event = ScoreEvent | AnswersEvent | Remark | TaskDone


class WorkerPool(Protocol):
    """Some workers, each of which evaluates one candidate at a time."""

    @property
    def size(self) -> int:
        """How many candidates can be evaluated at once."""

    @property
    def idle(self) -> int:
        """How many workers wait for a task."""

    def start(self, task: EvalTask) -> None:
        """Give a task to an idle worker."""

    def wait(self) -> list[Event]:
        """Wait until something happens, and give the events."""

    def close(self) -> None:
        """End all workers, whatever they do."""


@dataclass
class Deaths:
    """How often workers died at each task: one rule for all kinds of workers."""

    _counts: Counter[tuple[str, Split]] = field(default_factory=Counter)

    def count(self, task: EvalTask) -> bool:
        """Count one more death at a task; whether the task has failed by now."""
        self._counts[task.key] += 1
        return self._counts[task.key] >= MAX_DEATHS
