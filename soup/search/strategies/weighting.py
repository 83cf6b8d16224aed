"""Weights as soups: counts and shares to what `score` takes, so that one soup is asked for in one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeVar

from soup.search.strategies.base import Chosen

__all__ = ["compositions", "describe_weights", "weighted"]

T = TypeVar("T")


def weighted(parts: Sequence[T], weights: Sequence[float]) -> Chosen:
    """Return the weighted mean of ingredients as `score` takes it.

    Those of weight 0 are left out, and equal weights are the plain mean: the journal knows it from other strategies.
    """
    used = [(part, weight) for part, weight in zip(parts, weights, strict=True) if weight]
    if len({weight for _, weight in used}) == 1:
        return [part for part, _ in used]
    total = sum(weight for _, weight in used)
    return {part: weight / total for part, weight in used}


def compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    """List all ways to write a number as a sum of so many numbers above 0, in order."""
    cuts = combinations(range(1, total), parts - 1)
    return [tuple(b - a for a, b in zip((0, *cut), (*cut, total), strict=True)) for cut in cuts]


def describe_weights(chosen: Chosen) -> str:
    """Return `a + b`, or `a (0.7) + b (0.3)` where the weights differ."""
    if isinstance(chosen, Mapping):
        return " + ".join(f"{_name(part)} ({weight:.3g})" for part, weight in chosen.items())
    return " + ".join(map(_name, chosen))


def _name(part: object) -> str:
    return str(getattr(part, "name", part))
