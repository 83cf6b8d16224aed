"""Greedy soup: add what does not hurt (POINTS, arXiv 2409.04828; Wortsman et al., arXiv 2203.05482, recipe 1)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Literal, TypeVar

from soup.errors import RecipeError, did_you_mean
from soup.strategies.base import ScoreFunction, by_overall

__all__ = ["greedy"]

T = TypeVar("T")

_RULES = {"ge": operator.ge, "gt": operator.gt}


def greedy(pool: Sequence[T], score: ScoreFunction, *, accept: Literal["ge", "gt"] = "ge") -> list[T]:
    """From the best individual on, admit each ingredient with which the mean is at least as good as the best so far.

    Ingredients are tried in descending order of their own overall; the first is always admitted. POINTS' text says
    that the mean "improves", its algorithm says >=: `ge` is the default, `gt` the strict rule. At most k + (k - 1)
    evaluations.

    Raises:
        RecipeError: an unknown rule.
    """
    if accept not in _RULES:
        raise RecipeError(f"Unknown rule '{accept}' for --accept.{did_you_mean(accept, _RULES)}")
    first, *others = by_overall(pool, score)
    chosen, best = [first], score([first]).overall
    for ingredient in others:
        overall = score([*chosen, ingredient]).overall
        if _RULES[accept](overall, best):
            chosen, best = [*chosen, ingredient], overall
    return chosen
