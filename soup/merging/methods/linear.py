"""The weighted mean.

Source: model soups, Wortsman et al., arXiv 2203.05482, section 2; POINTS, arXiv 2409.04828.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soup.errors import RecipeError
from soup.merging.methods.base import Block, Method

if TYPE_CHECKING:
    import torch

__all__ = ["Linear"]


@dataclass(frozen=True)
class Linear(Method):
    """theta = sum_i w_i theta_i / sum_i w_i, added up in recipe order.

    Equal weights are summed first and divided once: a sum of a few 16-bit numbers is nearly always exact in float32,
    so that the division is the only rounding before the cast. Products and sums are separate operations on purpose:
    a fused one rounds differently at the end of a block and on another machine.
    """

    def __call__(self, block: Block) -> torch.Tensor:
        """Compute the mean of the block's slices; see `Method`."""
        if _uniform(block.weights):
            total, spare = block[0], None
            for i in range(1, len(block)):
                spare = block.copy(i, out=spare)
                total += spare
            return total.mul_(1 / len(block)) if _power_of_two(len(block)) else total.div_(len(block))
        share = math.fsum(block.weights)
        total, spare = block[0].mul_(block.weights[0] / share), None
        for i in range(1, len(block)):
            spare = block.copy(i, out=spare)
            total += spare.mul_(block.weights[i] / share)
        return total

    def check(self, weights: Sequence[float]) -> None:
        """Refuse weights that sum to nothing; see `Method.check`."""
        if abs(math.fsum(weights)) < 1e-9:
            raise RecipeError(f"linear divides by the sum of the weights, and {list(weights)} sum to 0.")

    def keeps_equal(self, weights: Sequence[float]) -> bool:
        """Return true for equal weights: the error of a K-fold sum is far below the cast's rounding."""
        return _uniform(weights)


def _power_of_two(count: int) -> bool:
    """Whether the reciprocal is exact, so that multiplying by it, at half the cost, gives what dividing does."""
    return count & (count - 1) == 0


def _uniform(weights: Sequence[float]) -> bool:
    return all(weight == weights[0] for weight in weights)
