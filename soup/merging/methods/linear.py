"""The weighted mean.

Source: model soups, Wortsman et al., arXiv 2203.05482, section 2; POINTS, arXiv 2409.04828.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from soup.errors import RecipeError
from soup.hf.places import Place
from soup.merging.compiled import Arithmetic
from soup.merging.methods.base import Block, MergedTensor, Method
from soup.merging.methods.components import Factors, check_components, component_factors, idle_components
from soup.merging.methods.normalised import normalise

if TYPE_CHECKING:
    import torch

__all__ = ["Linear"]


@dataclass(frozen=True)
class Linear(Method):
    """theta = sum_i w_i theta_i / sum_i w_i, added up in recipe order; w_i may differ from component to component.

    Values are summed first and divided once: a sum of a few 16-bit numbers, and of their products with simple weights,
    is nearly always exact in float32, so that the division is the only rounding before the cast. Products and sums are
    separate operations on purpose: a fused one rounds differently at the end of a block and on another machine.

    Args:
        components: Factors of the weights by component (vision, projector, llm, embeddings, other): one for each
            ingredient.
    """

    components: Factors = field(default_factory=dict)

    @property
    def uses_places(self) -> bool:
        """Whether there are factors; see `Method.uses_places`."""
        return bool(self.components)

    def __call__(self, block: Block) -> torch.Tensor:
        """Compute the mean of the block's slices; see `Method`."""
        weights = component_factors(self.components, block)
        if _uniform(weights):
            total, spare = block[0], None
            for i in range(1, len(block)):
                spare = block.copy(i, out=spare)
                total += spare
            return total.mul_(1 / len(block)) if _power_of_two(len(block)) else total.div_(len(block))
        parts, divisor = normalise(weights)
        total, spare = block[0].mul_(parts[0]), None
        for i in range(1, len(block)):
            spare = block.copy(i, out=spare)
            total += spare.mul_(parts[i])
        return total.div_(divisor)

    def arithmetic(self, tensor: MergedTensor) -> Arithmetic:
        """Say the same for a compiled pass; see `Method.arithmetic`."""
        weights = component_factors(self.components, tensor)
        equal = self.keeps_equal(tensor.weights)
        if _uniform(weights):
            return Arithmetic("mean", weights, keep_equal=not equal)
        parts, divisor = normalise(weights)
        return Arithmetic("sum", parts, divisor=divisor, keep_equal=not equal)

    def idle_parameters(self, places: Collection[Place]) -> list[str]:
        """Tell components that the model does not have; see `Method.idle_parameters`."""
        return idle_components(self.components, places)

    def check(self, weights: Sequence[float]) -> None:
        """Refuse weights that sum to nothing, in any component; see `Method.check`."""
        check_components(self.components, weights)
        for component, factor in [("", 1.0), *self.components.items()]:
            factors = factor if isinstance(factor, list) else [factor] * len(weights)
            parts = [weight * times for weight, times in zip(weights, factors, strict=True)]
            if abs(math.fsum(parts)) < 1e-9:
                where = f" of {component}" if component else ""
                raise RecipeError(f"linear divides by the sum of the weights{where}, and {parts} sum to 0.")

    def keeps_equal(self, weights: Sequence[float]) -> bool:
        """Return true for equal weights: the error of a K-fold sum is far below the cast's rounding."""
        return _uniform(weights) and not self.components


def _power_of_two(count: int) -> bool:
    """Whether the reciprocal is exact, so that multiplying by it, at half the cost, gives what dividing does."""
    return count & (count - 1) == 0


def _uniform(weights: Sequence[float]) -> bool:
    return all(weight == weights[0] for weight in weights)
