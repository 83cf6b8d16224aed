"""What a strategy is: a function of a pool and a score. It sees names and numbers, never a file and never a tensor.

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

T = TypeVar("T")  # an ingredient, of which a strategy needs to know nothing

strategy = STRATEGIES.register
"""A function decorator: `@strategy("name")` makes a strategy known to `soup.cook`."""

Chosen = Sequence[Any] | Mapping[Any, float]
"""What a strategy returns: ingredients (or their names), or a weight for each. Order is the order of admission."""


class Scored(Protocol):
    """What a strategy learns about a soup."""

    @property
    def overall(self) -> float:
        """The mean of the chosen benchmarks' scores over the selection questions, 0 to 100."""


class ScoreFunction(Protocol):
    """Judges the uniform mean of some ingredients, or a weighted one. A soup that was judged before costs nothing."""

    def __call__(self, ingredients: Chosen, /) -> Scored:
        """The trial of the mean of these ingredients."""


def allowed(trial: Scored) -> bool:
    """Whether a trial breaks no guard of the objective; where there are no guards, any does."""
    return bool(getattr(trial, "allowed", True))


Strategy = Callable[..., Chosen]
"""`strategy(pool, score, **options)`; the options are keyword-only parameters of the function."""


def by_overall(pool: Iterable[T], score: ScoreFunction) -> list[T]:
    """Ingredients by their own overall, the best first; ties stay in the pool's order."""
    return sorted(pool, key=lambda ingredient: -score([ingredient]).overall)
