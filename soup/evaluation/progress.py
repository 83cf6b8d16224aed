"""Who hears how far a run is: warnings, evaluations, scores, trials, bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soup.evaluation.api import Benchmark, Score
from soup.evaluation.pace import Pace
from soup.merging.recipe import Recipe

if TYPE_CHECKING:
    from soup.evaluation.trial import Trial

__all__ = ["Progress", "SearchStart", "WorkerState"]


@dataclass(frozen=True)
class SearchStart:
    """What is about to be scored.

    Args:
        title: The strategy's name, or another word for what is done.
        benchmarks: Their names.
        names: What is sure to be scored: ingredients, each alone.
        evaluations: How many models are scored at most, once for each part of the questions; None: nobody knows.
    """

    title: str
    benchmarks: tuple[str, ...]
    names: tuple[str, ...] = ()
    evaluations: int | None = None


@dataclass(frozen=True)
class WorkerState:
    """What a worker is at.

    Args:
        recipe: Whose weights answer.
        benchmark: Whose questions it has.
        questions: How many; None where it has a whole evaluation, and its harness does not count.
        answered: How many of those are answered.
    """

    recipe: Recipe
    benchmark: Benchmark
    questions: int | None = None
    answered: int = 0


@dataclass(frozen=True)
class Progress:
    """Functions that a run calls as it goes on; by default none of them does anything.

    Args:
        on_warning: A remark that stops nothing.
        on_hint: How a search could cost less, before the first evaluation; what was added to estimates.
        on_search: What is about to be scored, before the first evaluation.
        on_pace: How far the search is, before each evaluation.
        on_start: A recipe is about to be evaluated on a benchmark, here or by a worker.
        on_answers: So many of so many prompts of that evaluation are answered, where the harness counts them; and the
            word for what is counted, `answers` or `grades`.
        on_score: It has a score, which took so many seconds.
        on_end: It is over, with a score or without.
        on_worker: What the worker of that number is at from now on; None: it waits.
        on_trial: A trial has its scores.
        on_best: The soup that the search would end with if it ended now, where its strategy tells.
        on_phase: What the next bytes belong to, and how many they will be.
        on_bytes: So many bytes more are done.
    """

    on_warning: Callable[[str], None] = lambda text: None
    on_hint: Callable[[str], None] = lambda text: None
    on_search: Callable[[SearchStart], None] = lambda start: None
    on_pace: Callable[[Pace], None] = lambda pace: None
    on_start: Callable[[Recipe, Benchmark], None] = lambda recipe, benchmark: None
    on_answers: Callable[[Recipe, Benchmark, int, int, str], None] = lambda recipe, benchmark, count, total, what: None
    on_score: Callable[[Recipe, Benchmark, Score, float], None] = lambda recipe, benchmark, score, seconds: None
    on_end: Callable[[Recipe, Benchmark], None] = lambda recipe, benchmark: None
    on_worker: Callable[[int, WorkerState | None], None] = lambda number, state: None
    on_trial: Callable[[Trial], None] = lambda trial: None
    on_best: Callable[[Trial], None] = lambda trial: None
    on_phase: Callable[[str, int], None] = lambda name, total_bytes: None
    on_bytes: Callable[[int], None] = lambda count: None
