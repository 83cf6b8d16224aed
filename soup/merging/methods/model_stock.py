"""Model Stock: go from the base towards the mean as far as the angles between the ingredients' deltas say.

Source: Jang et al., arXiv 2403.19522, section 4.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from soup.errors import RecipeError
from soup.hf.places import Place
from soup.merging.compiled import Arithmetic
from soup.merging.methods.base import Block, FirstPass, MergedTensor, Method
from soup.merging.methods.dot_products import dot_products
from soup.merging.methods.normalised import normalise
from soup.merging.methods.task_arithmetic import refuse_no_sum, weighted_sum

if TYPE_CHECKING:
    import torch

__all__ = ["ModelStock"]

FEW = 0.2
"""A median t below this is told: the result is nearly the base."""


@dataclass(frozen=True)
class ModelStock(Method):
    """theta_0 + t (mean - theta_0), t = k c / (1 + (k - 1) c), c the mean cosine of the pairs of deltas that are not 0.

    Deltas of adapters and of tasks that have nothing in common are nearly orthogonal: t is then nearly 0, and the
    result nearly the base. The merge tells it.

    Args:
        scope: Whether t is one number for each tensor, or for all of a block of layers.
        clamp: The range of c: below 0 it runs into a pole at -1 / (k - 1).
    """

    needs_base = True

    scope: Literal["tensor", "block"] = "tensor"
    clamp: tuple[float, float] = (0.0, 1.0)

    @property
    def first_passes(self) -> int:
        """One; see `Method.first_passes`."""
        return 1

    def prepare(self, first_pass: FirstPass) -> Mapping[str, float]:
        """Return t for each tensor; see `Method.prepare`."""
        places, count = first_pass.places, len(first_pass.weights)
        products: dict[object, torch.Tensor] = {}
        keys = {}
        for name, value in first_pass.sums(_dot_products):
            keys[name] = key = name if self.scope == "tensor" else _block_of(name, places[name])
            products[key] = products[key] + value if key in products else value
        ratios = {key: self._ratio(value.tolist(), count) for key, value in products.items()}
        return {name: ratios[key] for name, key in keys.items()}

    def remarks(self, constants: object) -> list[str]:
        """Tell where the result is nearly the base; see `Method.remarks`."""
        assert isinstance(constants, Mapping)
        median = statistics.median(constants.values()) if constants else 1.0
        if median >= FEW:
            return []
        return [
            f"model-stock: the median t is {median:.2f}: deltas are nearly orthogonal, and the result nearly the base. "
            "Try linear, or task-arithmetic with a searched scale"
        ]

    def __call__(self, block: Block) -> torch.Tensor:
        """Add the t-th part of the mean delta to the base; see `Method`."""
        merged = weighted_sum(block, *normalise(block.weights, block.weights))
        return block.base.add_(merged.mul_(block.constants[block.tensor_name]))

    def arithmetic(self, tensor: MergedTensor) -> Arithmetic:
        """Say the same for a compiled pass; see `Method.arithmetic`."""
        weights, divisor = normalise(tensor.weights, tensor.weights)
        return Arithmetic("deltas", weights, tensor.constants[tensor.tensor_name], divisor=divisor)

    def check(self, weights: Sequence[float]) -> None:
        """Refuse a single ingredient, which has no angle; see `Method.check`."""
        refuse_no_sum(weights)
        if len(weights) < 2:
            raise RecipeError("model-stock: expected two ingredients or more: it goes by the angles between them.")
        low, high = self.clamp
        if not 0 <= low <= high <= 1:
            raise RecipeError(f"clamp: expected two numbers within 0 and 1 in order, found {list(self.clamp)}.")

    def _ratio(self, products: Sequence[float], count: int) -> float:
        pairs = dict(zip(_pairs(count), products, strict=True))
        cosines = [
            pairs[i, j] / (pairs[i, i] * pairs[j, j]) ** 0.5
            for i, j in combinations(range(count), 2)
            if pairs[i, i] > 0 and pairs[j, j] > 0
        ]
        if not cosines:
            return 1.0  # at most one delta is not 0: nothing speaks against the mean
        low, high = self.clamp
        cosine = min(max(statistics.fmean(cosines), low), high)
        return count * cosine / (1 + (count - 1) * cosine)


def _pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i, count)]


def _dot_products(block: Block) -> torch.Tensor:
    """Return the dot products of all pairs of deltas, [k (k + 1) / 2] in float64."""
    import torch

    products = dot_products(block, "base").products
    return torch.stack([products[i, j] for i, j in _pairs(len(block))])


def _block_of(name: str, place: Place) -> object:
    """Return what all tensors of a block have in common; a tensor outside of blocks stands for itself."""
    return (place.component, place.block, place.blocks) if place.blocks else name
