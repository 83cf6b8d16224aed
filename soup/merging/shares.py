"""A choice of ingredients as a recipe's shares: a uniform mean, or the weights that were chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

from soup.errors import RecipeError
from soup.merging.ingredient import Ingredient
from soup.merging.pool import Pool
from soup.merging.recipe import Share
from soup.support.text import did_you_mean

__all__ = ["Chosen", "shares_of"]

Chosen = Sequence[Ingredient | str] | Mapping[Ingredient | str, float]
"""Ingredients or their names, or a weight for each."""


def shares_of(pool: Pool, chosen: object) -> list[Share]:
    """Return the shares of a choice, in the pool's order.

    Args:
        pool: Where the ingredients come from.
        chosen: See `Chosen`; a strategy may return anything, so that it is checked here.

    Raises:
        RecipeError: nothing chosen, something chosen twice, or not of this pool; or weights that are no numbers.
    """
    if isinstance(chosen, str | Ingredient) or not isinstance(chosen, Iterable):
        raise RecipeError(f"Expected a list of ingredients or of their names, or a weight for each; found {chosen!r}.")
    weights = dict(chosen) if isinstance(chosen, Mapping) else None
    names = [part.name if isinstance(part, Ingredient) else str(part) for part in (weights or chosen)]
    for name in names:
        if name not in pool.names:
            raise RecipeError(f"The pool has no ingredient '{name}'.{did_you_mean(name, pool.names)}")
    if not names or len(set(names)) < len(names):
        raise RecipeError(f"A soup needs at least one ingredient, and each once; chosen were {names}.")
    by_name = dict(zip(names, weights.values(), strict=True)) if weights else dict.fromkeys(names, 1 / len(names))
    wrong = [f"{name}: {weight!r}" for name, weight in by_name.items() if not _is_weight(weight)]
    if wrong or not any(by_name.values()):
        raise RecipeError(f"Weights must be finite numbers, and not all 0; found {', '.join(wrong) or by_name}.")
    return [
        Share(name=part.name, path=part.location, weight=float(by_name[part.name]))
        for part in pool
        if part.name in by_name
    ]


def _is_weight(weight: object) -> bool:
    return not isinstance(weight, bool) and isinstance(weight, Real) and math.isfinite(weight)  # numpy's are Real, too
