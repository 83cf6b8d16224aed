"""Average soup: the plain mean of all ingredients (POINTS, arXiv 2409.04828, section 3.3, "Average Soup")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from soup.search.strategies.base import Budget, ScoreFunction, budget

__all__ = ["average"]

T = TypeVar("T")


@budget(lambda count: Budget(singles=0, soups=1))
def average(pool: Sequence[T], score: ScoreFunction) -> list[T]:
    """Choose all ingredients: f((1/k) sum_i theta_i).

    Args:
        pool: The ingredients, in their order.
        score: Is not called.
    """
    return list(pool)
