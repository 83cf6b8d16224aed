"""Consensus: keep the elements that several ingredients' deltas ask for.

Source: TALL masks and Consensus Merging, Wang et al., arXiv 2405.07813, sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from soup.errors import RecipeError
from soup.merging.compiled import Arithmetic
from soup.merging.methods.base import Block, MergedTensor
from soup.merging.methods.deltas import DeltaMethod, check_range, delta
from soup.merging.methods.normalised import normalise
from soup.merging.methods.task_arithmetic import refuse_no_sum, weighted_sum

if TYPE_CHECKING:
    import torch

__all__ = ["Consensus"]


@dataclass(frozen=True)
class Consensus(DeltaMethod):
    """theta_0 + scale * keep * s: s = sum_j w_j tau_j, keep = [at least `agree` of |tau_i| > threshold |sum - tau_i|].

    The masks are those of the plain sum of all deltas, as in the paper; the weights, scaled to a sum of k, play a part
    in s alone.

    Args:
        threshold: The paper's lambda: how large a delta must be against all others' sum.
        agree: How many ingredients must ask for an element: 0 keeps all, more than there are gives the base.
        scale: None: 1 / k.
    """

    scale: float | None = None  # type: ignore[assignment]  # narrower in the parent, whose default it is not
    threshold: float = 0.4
    agree: int = 2

    def __call__(self, block: Block) -> torch.Tensor:
        """Add the kept part of the sum to the base; see `Method`."""
        return replace(self, scale=1 / len(block))(block) if self.scale is None else super().__call__(block)

    def arithmetic(self, tensor: MergedTensor) -> Arithmetic:
        """Say the same for a compiled pass; see `Method.arithmetic`."""
        if self.scale is None:
            return replace(self, scale=1 / len(tensor.weights)).arithmetic(tensor)
        weights = _scaled(self.effective_weights(tensor), tensor)
        scale = self.grown_scale(tensor)
        return Arithmetic("consensus", weights, scale, threshold=self.threshold, agree=self.agree)

    def merged(self, block: Block, weights: Sequence[float]) -> torch.Tensor:
        """Return keep * s; see `DeltaMethod.merged`."""
        import torch

        total = weighted_sum(block, weights := _scaled(weights, block))
        plain = total.clone() if all(weight == 1 for weight in weights) else weighted_sum(block, [1.0] * len(block))
        votes, spare = torch.zeros_like(total, dtype=torch.int16), None
        for index in range(len(block)):
            spare = delta(block, index, spare)
            votes += spare.abs() > (plain - spare).abs_().mul_(self.threshold)
        return total.mul_(votes >= self.agree)

    def check(self, weights: Sequence[float]) -> None:
        """Refuse weights that sum to nothing, and parameters out of range; see `Method.check`."""
        super().check(weights)
        refuse_no_sum(weights)
        check_range("threshold", self.threshold, 0.1, 1)
        if self.scale is not None:
            check_range("scale", self.scale, -1, 2)
        if self.agree < 0:
            raise RecipeError(f"agree: expected a number of ingredients from 0, found {self.agree}.")


def _scaled(weights: Sequence[float], tensor: MergedTensor) -> list[float]:
    """Scale weights to a sum of k, but for the factors of a component."""
    return [len(weights) * share for share in normalise(weights, tensor.weights).quotients]
