"""The contract of strategies: a function of a pool and a score, which sees names and numbers, never a file or tensor.

@strategy("leave-worst-out")
def leave_worst_out(pool, score):
    ranked = sorted(pool, key=lambda ingredient: score([ingredient]).overall, reverse=True)
    return ranked[:-1] or ranked
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from soup.support.plugins import STRATEGIES

__all__ = ["Chosen", "ScoreFunction", "Scored", "Strategy", "allowed", "by_overall", "strategy"]

T = TypeVar("T")  # an ingredient; a strategy needs to know nothing about it

strategy = STRATEGIES.register
"""A function decorator: `@strategy("name")` registers a strategy for `soup.cook`."""

Chosen = Sequence[Any] | Mapping[Any, float]
"""What a strategy returns: ingredients (or their names), or a weight for each. Order is the order of admission."""


class Scored(Protocol):
    """What `score` returns to a strategy."""

    @property
    def overall(self) -> float:
        """The mean of the chosen benchmarks' scores over the selection questions, 0 to 100."""


class ScoreFunction(Protocol):
    """Scores the uniform mean of some ingredients, or a weighted one. A soup that was scored before costs nothing."""

    def __call__(self, ingredients: Chosen, /) -> Scored:
        """Score the mean of these ingredients."""


def allowed(trial: Scored) -> bool:
    """Whether a trial breaks no guard of the objective; always true where there are no guards."""
    return bool(getattr(trial, "allowed", True))


Strategy = Callable[..., Chosen]
"""`strategy(pool, score, **options)`; the options are keyword-only parameters of the function."""


def by_overall(pool: Iterable[T], score: ScoreFunction) -> list[T]:
    """Sort ingredients by the overall of each alone, the best first; ties stay in the pool's order."""
    return sorted(pool, key=lambda ingredient: -score([ingredient]).overall)
