"""Greedy soup: add what does not lower the score.

Source: POINTS, arXiv 2409.04828, section 3.3; Wortsman et al., arXiv 2203.05482, recipe 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

from soup.errors import RecipeError
from soup.search.strategies.base import Scored, ScoreFunction, allowed, by_overall
from soup.support.options import option_name

__all__ = ["greedy"]

T = TypeVar("T")


class _Comparable(Protocol):
    """A trial that can be compared with another, question by question."""

    def better_than(self, other: Scored) -> float:
        """Give the probability that this soup beats the other."""


def greedy(pool: Sequence[T], score: ScoreFunction, *, accept: str = "ge") -> list[T]:
    """Start from the best ingredient, and admit each other one with which the mean is at least as good as before.

    Ingredients are tried in descending order of the overall of each alone. A mean that breaks a guard is not admitted.
    At most k + (k - 1) evaluations.

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
    admits = _rule(accept)
    admits(score([pool[0]]), score([pool[0]]))  # a rule that the evaluator can't serve fails now, not k scores later
    first, *others = by_overall(pool, score)
    chosen, best = [first], score([first])
    for ingredient in others:
        trial = score([*chosen, ingredient])
        if allowed(trial) and (admits(trial, best) or not allowed(best)):
            chosen, best = [*chosen, ingredient], trial
    return chosen


def _rule(accept: str) -> Callable[[Scored, Scored], bool]:
    """Parse a rule into a function of a trial and the best one so far: whether the trial is admitted."""
    if accept == "ge":
        return lambda trial, best: trial.overall >= best.overall
    if accept == "gt":
        return lambda trial, best: trial.overall > best.overall
    match = re.fullmatch(r"p\s*>\s*(0?\.\d+)", accept)
    if not match:
        raise RecipeError(
            f"Unknown rule '{accept}' for {option_name('accept')}. Known: ge, gt, or p>0.9 (a number between 0 and 1)."
        )
    return lambda trial, best: cast("_Comparable", trial).better_than(best) > float(match[1])
