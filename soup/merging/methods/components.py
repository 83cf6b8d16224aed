"""Factors of weights by the kind of component that a tensor belongs to."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from soup.errors import RecipeError
from soup.hf.places import COMPONENTS, Component, Place
from soup.merging.methods.base import MergedTensor

__all__ = ["Factors", "check_components", "component_factors", "idle_components", "refuse_negative_weights"]

Factors = Mapping[Component, float | list[float]]
"""For each component a factor, or one for each ingredient in recipe order."""


def component_factors(components: Factors, tensor: MergedTensor) -> list[float]:
    """Return the weights times the factors of the tensor's component."""
    factor = components.get(tensor.place.component, 1.0) if tensor.place else 1.0
    factors = factor if isinstance(factor, list) else [factor] * len(tensor.weights)
    return [weight * times for weight, times in zip(tensor.weights, factors, strict=True)]


def check_components(components: Factors, weights: Sequence[float]) -> None:
    """Refuse components that there are not, and lists that do not fit the ingredients.

    Raises:
        RecipeError: Says which.
    """
    for name, factor in components.items():
        if name not in COMPONENTS:
            raise RecipeError(f"components: {name}: expected one of {', '.join(COMPONENTS)}.")
        factors = factor if isinstance(factor, list) else [factor]
        if isinstance(factor, list) and len(factor) != len(weights):
            raise RecipeError(
                f"components: {name}: expected a number, or one for each of the {len(weights)} ingredients, found "
                f"{len(factor)}."
            )
        if not all(math.isfinite(value) for value in factors):
            raise RecipeError(f"components: {name}: expected finite numbers, found {factor}.")


def idle_components(components: Factors, places: Collection[Place]) -> list[str]:
    """Tell the components that no tensor of the model belongs to; see `Method.idle_parameters`."""
    there = {place.component for place in places}
    known = ", ".join(name for name in COMPONENTS if name in there)
    return [
        f"components: {name}: changes nothing: by the words of their names the tensors belong to {known}"
        for name in components
        if name not in there
    ]


def refuse_negative_weights(components: Factors, weights: Sequence[float]) -> None:
    """Refuse weights that are not above 0, and factors below 0, for methods that elect signs.

    They divide by the sum of the weights that agree, which vanishes where signs are mixed.

    Raises:
        RecipeError: Says which.
    """
    if not all(weight > 0 for weight in weights):
        raise RecipeError(f"electing signs: expected weights above 0, found {list(weights)}.")
    for name, factor in components.items():
        if any(value < 0 for value in (factor if isinstance(factor, list) else [factor])):
            raise RecipeError(f"components: {name}: expected numbers from 0 where signs are elected, found {factor}.")
