"""The contract of strategies: a function of a pool and a score, which sees names and numbers, never a file or tensor.

@strategy("leave-worst-out")
def leave_worst_out(pool, score):
    ranked = sorted(pool, key=lambda ingredient: score([ingredient]).overall, reverse=True)
    return ranked[:-1] or ranked

`budget` says before the first evaluation how many there will be at most:

@budget(lambda count: Budget(singles=count, soups=0))
def leave_worst_out(pool, score): ...
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from soup.support.plugins import STRATEGIES

__all__ = [
    "Budget",
    "Choice",
    "Chosen",
    "ScoreFunction",
    "Scored",
    "Strategy",
    "Watched",
    "allowed",
    "best_allowed_first",
    "budget",
    "by_overall",
    "strategy",
    "tell_best",
    "unknown",
]

T = TypeVar("T")  # an ingredient; a strategy needs to know nothing about it
F = TypeVar("F", bound=Callable[..., Any])

strategy = STRATEGIES.register
"""A function decorator: `@strategy("name")` registers a strategy for `soup.cook`."""

Chosen = Sequence[Any] | Mapping[Any, float]
"""What a soup is made of: ingredients (or their names), or a weight for each. Order is the order of admission."""


class Scored(Protocol):
    """What `score` returns to a strategy."""

    @property
    def overall(self) -> float:
        """The mean of the chosen benchmarks' scores over the selection questions, 0 to 100."""


class ScoreFunction(Protocol):
    """Scores soups. One that was scored before costs nothing."""

    def __call__(
        self, ingredients: Chosen, /, method: str | None = None, params: Mapping[str, Any] | None = None
    ) -> Scored:
        """Score the uniform mean of some ingredients, or a weighted one.

        Args:
            ingredients: Those of the pool, or a weight for each.
            method: Another method than the run's.
            params: Parameters beside those that the run gives to the method.
        """


@dataclass(frozen=True)
class Choice:
    """What a strategy returns where ingredients or weights do not say all.

    Args:
        chosen: The ingredients, or a weight for each.
        method: As for `score`.
        params: As for `score`.
        path: The scores that were the best so far, in order; by default a soup that grew by one at a time is assumed.
        notes: What the user should read beside the table.
    """

    chosen: Chosen
    method: str | None = None
    params: Mapping[str, Any] | None = None
    path: Sequence[Scored] = ()
    notes: Sequence[str] = ()


Strategy = Callable[..., "Chosen | Choice"]
"""`strategy(pool, score, **options)`; the options are keyword-only parameters of the function."""


@dataclass(frozen=True)
class Budget:
    """How many models a strategy asks for, at most.

    Args:
        singles: Ingredients alone.
        soups: All others.
    """

    singles: int
    soups: int


def budget(most: Callable[..., Budget], check: Callable[..., None] | None = None) -> Callable[[F], F]:
    """Make a decorator that lets a strategy say its budget: `most(count, **options)` for a pool of `count`.

    Args:
        most: It is called with the strategy's own options before anything is read, and before the strategy itself, so
            that it may refuse wrong ones.
        check: Called as `check(pool, benchmarks, **options)` before anything is evaluated, in a dry run, too, so that
            it may refuse a pool, or benchmarks: their names, None where only scores tell them.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def checked(pool: Sequence[Any], score: ScoreFunction, **options: Any) -> Any:
            most(len(pool), **options)
            return function(pool, score, **options)

        checked.budget, checked.check = most, check  # type: ignore[attr-defined]  # functions take any attribute
        return cast("F", checked)

    return decorate


def allowed(trial: Scored) -> bool:
    """Whether a trial breaks no guard of the objective; always true where there are no guards."""
    return bool(getattr(trial, "allowed", True))


def unknown(trials: Iterable[Scored]) -> bool:
    """Whether some score is not known yet, and a guess stands in: workers are judging that soup.

    A strategy that asks for several soups at once returns then, whatever it has: it is run again when they are known.
    """
    return any(trial.overall == -math.inf for trial in trials)


def tell_best(score: ScoreFunction, trial: Scored) -> None:
    """Tell which soup the search would end with if it ended now, by its own rule: a board shows it."""
    getattr(score, "on_best", lambda trial: None)(trial)


class Watched:
    """A score for another strategy, which remembers whether a guess stood in for one: see `unknown`."""

    def __init__(self, score: ScoreFunction) -> None:
        self._score, self.met_guess = score, False

    def __call__(
        self, ingredients: Chosen, /, method: str | None = None, params: Mapping[str, Any] | None = None
    ) -> Scored:
        """Score the mean of these ingredients."""
        trial = self._score(ingredients, method, params)
        self.met_guess = self.met_guess or unknown([trial])
        return trial

    def on_best(self, trial: Scored) -> None:
        """Tell it as the search itself would."""
        tell_best(self._score, trial)


def by_overall(pool: Iterable[T], score: ScoreFunction) -> list[T]:
    """Sort ingredients by the overall of each alone, the best first; ties stay in the pool's order."""
    return sorted(pool, key=lambda ingredient: -score([ingredient]).overall)


def best_allowed_first(ranked: Sequence[T], score: ScoreFunction) -> list[T]:
    """Move the best ingredient that keeps the guards alone to the front of a ranking: a search starts from it.

    The best single model by the overall may be far below another on a guarded benchmark, and all that it is part of.
    """
    first = next((index for index, part in enumerate(ranked) if allowed(score([part]))), 0)
    return [ranked[first], *ranked[:first], *ranked[first + 1 :]]
