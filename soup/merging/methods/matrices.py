"""What methods on whole matrices have in common: which tensors are taken as matrices, and their deltas.

Other tensors (vectors, convolutions, embeddings and heads, and matrices with a side above `max_side`, whose cubic cost
nobody wants to wait for) get the mean of the deltas.

Deltas of adapters T_i = B_i A_i live in the span of all B_i and A_i. With an orthonormal basis U of the first and V of
the second, what is merged is U^T T_i V, no larger than the sum of the ranks, and the result is U (merged) V^T: methods
do not see a rotation of the outputs, nor one of the inputs where `turns_inputs`. No matrix is too large for that.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from soup.errors import RecipeError
from soup.hf.places import component_kind
from soup.merging.methods.base import Block, LowRank, Method, Work
from soup.merging.methods.deltas import check_range, delta
from soup.merging.methods.normalised import normalise
from soup.merging.methods.task_arithmetic import refuse_no_sum, weighted_sum

if TYPE_CHECKING:
    import torch

__all__ = ["MatrixMethod"]


@dataclass(frozen=True)
class MatrixMethod(Method):
    """theta_0 + scale * merged(T_1, ..., T_k) for matrices, theta_0 + mean of the deltas for other tensors.

    Eigenvectors differ from one build of LAPACK to another: the same bytes are promised on one machine alone.

    Args:
        scale: How much of the merged delta is added.
        max_side: The longest side of a matrix that is taken as one.
    """

    needs_base = True
    turns_inputs: ClassVar[bool] = True

    scale: float = 1.0
    max_side: int = 8192

    def granularity_of(self, name: str, shape: tuple[int, ...]) -> Literal["element", "tensor"]:
        """Return `tensor` for what is taken as a matrix; see `Method.granularity_of`."""
        return "tensor" if self.takes_low_rank(name, shape) and max(shape) <= self.max_side else "element"

    def takes_low_rank(self, name: str, shape: tuple[int, ...]) -> bool:
        """Return true for matrices of any size; see `Method.takes_low_rank`."""
        return len(shape) == 2 and min(shape) > 1 and component_kind(name) != "embeddings"

    def __call__(self, block: Block) -> torch.Tensor:
        """Add the merged delta to the base; see `Method`."""
        parts = normalise(block.weights, block.weights)
        if block.raw[0].dim() != 2 or self.granularity_of(block.tensor_name, tuple(block.raw[0].shape)) == "element":
            return block.base.add_(weighted_sum(block, *parts).mul_(self.scale_of_others))
        deltas = [delta(block, index) for index in range(len(block))]
        used = [(each, weight) for each, weight in zip(deltas, parts.quotients, strict=True) if bool(each.any())]
        if not used:
            return block.base
        merged = self._merged(used, block.raw[0].shape[1])
        return block.base.add_(merged.to(block.accumulate_in).mul_(self.scale))

    def merge_low_rank(self, deltas: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
        """Merge deltas within the span of their factors; see `Method.merge_low_rank`."""
        import torch

        outputs = torch.linalg.qr(torch.cat([each.left for each in deltas], 1)).Q
        small = [(outputs.T @ left) @ right for left, right in deltas]
        inputs = None
        if self.turns_inputs:
            inputs = torch.linalg.qr(torch.cat([each.right for each in deltas]).T).Q
            small = [each @ inputs for each in small]
        shared = zip(small, normalise(weights, weights).quotients, strict=True)
        used = [(each, weight) for each, weight in shared if bool(each.any())]
        merged = torch.zeros_like(small[0])
        if used:
            merged = self._merged(used, deltas[0].right.shape[1]) * self.scale
        return LowRank(outputs, merged) if inputs is None else LowRank(outputs @ merged, inputs.T)

    def _merged(self, used: Sequence[tuple[torch.Tensor, float]], inputs: int) -> torch.Tensor:
        """Merge the deltas, or give NaN where one holds NaN or infinity: a decomposition fails on these, or hides them.

        Args:
            used: The deltas with their weights.
            inputs: The number of the matrix's columns.
        """
        deltas, weights = [each for each, _ in used], [weight for _, weight in used]
        if not all(bool(each.isfinite().all()) for each in deltas):
            return deltas[0].new_full(deltas[0].shape, math.nan)
        return self.merged(deltas, weights, inputs)

    def work(self, shape: tuple[int, ...], count: int, rank: int | None = None) -> Work:
        """Count arrays and operations; see `Method.work`."""
        if rank is None:
            return self.work_on_matrix(shape[0], shape[1], count)
        outputs, inputs = (min(rank, side) for side in shape)
        small = self.work_on_matrix(outputs, inputs if self.turns_inputs else shape[1], count)
        factors = rank * sum(shape)  # as they are, side by side, and through their QR
        return Work(small.bytes + 4 * 8 * factors, small.operations + factors * rank)

    @abstractmethod
    def work_on_matrix(self, outputs: int, inputs: int, count: int) -> Work:
        """Return what `merged` takes for `count` deltas of these sides."""

    @property
    def scale_of_others(self) -> float:
        """The scale of tensors that are no matrices."""
        return 1.0

    @abstractmethod
    def merged(self, deltas: Sequence[torch.Tensor], weights: Sequence[float], inputs: int) -> torch.Tensor:
        """Merge the deltas of a matrix, [out, in] each and none of them 0, into one.

        Args:
            deltas: One for each ingredient that changed the matrix; smaller where they are of a low rank.
            weights: Their shares of the recipe's weights.
            inputs: The number of the matrix's columns.
        """

    def check(self, weights: Sequence[float]) -> None:
        """Refuse weights that sum to nothing, and parameters out of range; see `Method.check`."""
        refuse_no_sum(weights)
        check_range("scale", self.scale, -3, 3)
        if self.max_side < 2:
            raise RecipeError(f"max_side: expected a number from 2, found {self.max_side}.")
