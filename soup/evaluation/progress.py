"""Who hears how far a run is: warnings, evaluations, trials, bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soup.evaluation.api import Benchmark
from soup.evaluation.pace import Pace
from soup.merging.recipe import Recipe

if TYPE_CHECKING:
    from soup.evaluation.trial import Trial

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """Functions that a run calls as it goes on; by default none of them does anything.

    Args:
        on_warning: A remark that stops nothing.
        on_budget: A strategy's name, and how many evaluations it asks for at most, before the first.
        on_hint: How a search could cost less, before the first evaluation.
        on_pace: How far the search is, before each evaluation.
        on_start: A recipe is about to be evaluated on a benchmark, here or by a worker.
        on_end: That evaluation is over.
        on_answers: So many of so many prompts are answered, where the harness counts them and runs in this process.
        on_worker_answers: So many of so many prompts are answered in a worker's evaluation.
        on_trial: A trial has its scores.
        on_phase: What the next bytes belong to, and how many they will be.
        on_bytes: So many bytes more are done.
    """

    on_warning: Callable[[str], None] = lambda text: None
    on_budget: Callable[[str, int], None] = lambda strategy, most: None
    on_hint: Callable[[str], None] = lambda text: None
    on_pace: Callable[[Pace], None] = lambda pace: None
    on_start: Callable[[Recipe, Benchmark], None] = lambda recipe, benchmark: None
    on_end: Callable[[Recipe, Benchmark], None] = lambda recipe, benchmark: None
    on_answers: Callable[[int, int], None] = lambda count, total: None
    on_worker_answers: Callable[[Recipe, Benchmark, int, int], None] = lambda recipe, benchmark, count, total: None
    on_trial: Callable[[Trial], None] = lambda trial: None
    on_phase: Callable[[str, int], None] = lambda name, total_bytes: None
    on_bytes: Callable[[int], None] = lambda count: None
