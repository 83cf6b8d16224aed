"""Task arithmetic: a part of the mean delta, or more than it.

Source: Ilharco et al., arXiv 2212.04089, section 2; with `normalize` it is WiSE-FT's line between a base and a mean,
Wortsman et al., arXiv 2109.01903, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soup.errors import RecipeError
from soup.merging.compiled import Arithmetic
from soup.merging.methods.base import Block, MergedTensor
from soup.merging.methods.deltas import DeltaMethod, check_range, delta
from soup.merging.methods.normalised import normalise

if TYPE_CHECKING:
    import torch

__all__ = ["TaskArithmetic", "refuse_no_sum", "weighted_sum"]


@dataclass(frozen=True)
class TaskArithmetic(DeltaMethod):
    """theta_0 + scale * sum_i a_i tau_i, where a_i = w_i / sum w with `normalize`, else w_i.

    Args:
        normalize: True: scale 1 is the mean. False, with weights of 1 and scale 0.3, is the paper's form.
    """

    normalize: bool = True

    def merged(self, block: Block, weights: Sequence[float]) -> torch.Tensor:
        """Add up the weighted deltas; see `DeltaMethod.merged`."""
        return weighted_sum(block, *(normalise(weights, block.weights) if self.normalize else (weights, 1.0)))

    def arithmetic(self, tensor: MergedTensor) -> Arithmetic:
        """Say the same for a compiled pass; see `Method.arithmetic`."""
        weights = self.effective_weights(tensor)
        parts, divisor = normalise(weights, tensor.weights) if self.normalize else (weights, 1.0)
        return Arithmetic("deltas", parts, self.grown_scale(tensor), divisor=divisor)

    def check(self, weights: Sequence[float]) -> None:
        """Refuse weights that sum to nothing, and parameters out of range; see `Method.check`."""
        super().check(weights)
        check_range("scale", self.scale, -1, 2)
        if self.normalize:
            refuse_no_sum(weights)


def refuse_no_sum(weights: Sequence[float]) -> None:
    """Refuse weights whose sum can't be divided by.

    Raises:
        RecipeError: They sum to 0.
    """
    if abs(math.fsum(weights)) < 1e-9:
        raise RecipeError(f"the method divides by the sum of the weights, and {list(weights)} sum to 0.")


def weighted_sum(block: Block, weights: Sequence[float], divisor: float = 1.0) -> torch.Tensor:
    """Return sum_i w_i tau_i, added up in recipe order, over the divisor."""
    total, spare = delta(block, 0).mul_(weights[0]), None
    for index in range(1, len(block)):
        spare = delta(block, index, spare)
        total += spare.mul_(weights[index])
    return total.div_(divisor)
