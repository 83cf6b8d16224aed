"""Every subset: the yardstick of all other searches over plain means, for small pools."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TypeVar

from soup.errors import RecipeError
from soup.search.strategies.acceptance import Rule, best_of
from soup.search.strategies.base import Budget, Choice, ScoreFunction, budget, unknown

__all__ = ["exhaustive"]

T = TypeVar("T")

MOST_INGREDIENTS = 8


def _budget(count: int, *, accept: str = "gt") -> Budget:
    Rule.parse(accept)
    if count > MOST_INGREDIENTS:
        raise RecipeError(
            f"exhaustive scores every subset, and a pool of {count} has {2**count - 1:,}: at most {MOST_INGREDIENTS} "
            "ingredients. Take greedy or forward-backward, or leave some out."
        )
    return Budget(singles=count, soups=2**count - 1 - count)


@budget(_budget)
def exhaustive(pool: Sequence[T], score: ScoreFunction, *, accept: str = "gt") -> Choice:
    """Score the mean of every subset and choose the best, with the fewest ingredients on a tie: 2^k - 1 evaluations.

    The maximum over so many soups flatters itself most of all strategies: read it on questions that only report.

    Args:
        pool: At most 8 ingredients.
        score: Scores the mean of some of them.
        accept: When the best of a larger size replaces the best of the smaller ones: `gt`, `ge`, or `p>0.9`.

    Raises:
        RecipeError: An unknown rule, or a larger pool.
    """
    rule = Rule.parse(accept)
    trial = score([pool[0]])
    rule.check(trial)
    trials = [
        [(list(subset), score(list(subset))) for subset in combinations(pool, size)] for size in range(1, len(pool) + 1)
    ]
    chosen, best = best_of(trials[0])
    path = [best]
    if unknown(trial for row in trials for _, trial in row):
        return Choice(chosen)
    for row in trials[1:]:
        larger, trial = best_of(row)
        if rule.admits(trial, best):
            chosen, best = larger, trial
            path.append(best)
    return Choice(chosen, path=path)
