"""Maximum soup: the mean of the best individuals (POINTS, arXiv 2409.04828, section 3.3, "Maximum Soup")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from soup.errors import RecipeError
from soup.search.strategies.base import Budget, ScoreFunction, allowed, best_allowed_first, budget, by_overall
from soup.support.options import option_name

__all__ = ["maximum"]

T = TypeVar("T")


def _budget(count: int, *, top_k: int | None = None) -> Budget:
    is_count = isinstance(top_k, int) and not isinstance(top_k, bool) and 1 <= top_k <= count
    if top_k is not None and not is_count:
        raise RecipeError(
            f"{option_name('top_k')} must be a whole number from 1 to {count}, the size of the pool; found {top_k!r}."
        )
    return Budget(singles=count, soups=count - 1 if top_k is None else min(top_k - 1, 1))


@budget(_budget)
def maximum(pool: Sequence[T], score: ScoreFunction, *, top_k: int | None = None) -> list[T]:
    """Choose the `top_k` best ingredients by the overall of each alone; not an element-wise maximum.

    The paper's f((1/p) sum_i theta_i) gives no p. Without `top_k` every p from 1 to the size n of the pool is tried and
    the best kept, the smallest on a tie, one that keeps the guards before one that does not: at most n + (n - 1)
    evaluations. The first is the best ingredient that keeps the guards alone, if there is one.

    Args:
        pool: The ingredients.
        score: Scores the mean of some of them.
        top_k: How many to choose.

    Raises:
        RecipeError: `top_k` is not from 1 to the size of the pool.
    """
    ranked = best_allowed_first(by_overall(pool, score), score)
    if top_k is not None:
        return ranked[:top_k]

    def rank(count: int) -> tuple[bool, float]:
        trial = score(ranked[:count])
        return allowed(trial), trial.overall

    return ranked[: max(range(1, len(ranked) + 1), key=rank)]
