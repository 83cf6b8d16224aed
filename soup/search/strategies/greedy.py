"""Greedy soup: add what does not lower the score.

Source: POINTS, arXiv 2409.04828, section 3.3; Wortsman et al., arXiv 2203.05482, recipe 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from soup.search.strategies.acceptance import Rule
from soup.search.strategies.base import Budget, ScoreFunction, best_allowed_first, budget, by_overall, tell_best

__all__ = ["greedy"]

T = TypeVar("T")


def _budget(count: int, *, accept: str = "ge") -> Budget:
    Rule.parse(accept)
    return Budget(singles=count, soups=count - 1)


@budget(_budget)
def greedy(pool: Sequence[T], score: ScoreFunction, *, accept: str = "ge") -> list[T]:
    """Start from the best ingredient, and admit each other one with which the mean is at least as good as before.

    Ingredients are tried in descending order of the overall of each alone. A mean that breaks a guard is not admitted,
    and the first is the best that keeps the guards alone, if there is one. At most k + (k - 1) evaluations.

    Args:
        pool: The ingredients.
        score: Scores the mean of some of them.
        accept: The rule of admission. POINTS' text says that the mean "improves", its algorithm says >=: `ge` is the
            default, `gt` the strict rule. `p>0.9` admits what is better with that probability, by the paired bootstrap
            over the questions that choose.

    Raises:
        RecipeError: An unknown rule.
        EvaluatorError: `p>...`, and a benchmark does not give its questions' points.
    """
    rule = Rule.parse(accept)
    rule.check(score([pool[0]]))
    first, *others = best_allowed_first(by_overall(pool, score), score)
    chosen, best = [first], score([first])
    tell_best(score, best)
    for ingredient in others:
        trial = score([*chosen, ingredient])
        if rule.admits(trial, best):
            chosen, best = [*chosen, ingredient], trial
            tell_best(score, best)
    return chosen
