"""What methods on whole matrices have in common: which tensors are taken as matrices, and their deltas.

Other tensors (vectors, convolutions, embeddings and heads, and matrices with a side above `max_side`, whose cubic cost
nobody wants to wait for) get the mean of the deltas.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from soup.errors import RecipeError
from soup.hf.places import component_kind
from soup.merging.methods.base import Block, Method
from soup.merging.methods.deltas import check_range, delta
from soup.merging.methods.task_arithmetic import refuse_no_sum, shares, weighted_sum

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

    scale: float = 1.0
    max_side: int = 8192

    def granularity_of(self, name: str, shape: tuple[int, ...]) -> Literal["element", "tensor"]:
        """Return `tensor` for what is taken as a matrix; see `Method.granularity_of`."""
        is_matrix = len(shape) == 2 and min(shape) > 1 and max(shape) <= self.max_side
        return "tensor" if is_matrix and component_kind(name) != "embeddings" else "element"

    def __call__(self, block: Block) -> torch.Tensor:
        """Add the merged delta to the base; see `Method`."""
        weights = shares(block.weights, block.weights)
        if block.raw[0].dim() != 2 or self.granularity_of(block.tensor_name, tuple(block.raw[0].shape)) == "element":
            return block.base.add_(weighted_sum(block, weights).mul_(self.scale_of_others))
        deltas = [delta(block, index) for index in range(len(block))]
        used = [(each, weight) for each, weight in zip(deltas, weights, strict=True) if bool(each.any())]
        if not used:
            return block.base
        merged = self.merged([each for each, _ in used], [weight for _, weight in used])
        return block.base.add_(merged.to(block.accumulate_in).mul_(self.scale))

    @property
    def scale_of_others(self) -> float:
        """The scale of tensors that are no matrices."""
        return 1.0

    @abstractmethod
    def merged(self, deltas: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
        """Merge the deltas of a matrix, [out, in] each and none of them 0, into one.

        Args:
            deltas: One for each ingredient that changed the matrix.
            weights: Their shares of the recipe's weights.
        """

    def check(self, weights: Sequence[float]) -> None:
        """Refuse weights that sum to nothing, and parameters out of range; see `Method.check`."""
        refuse_no_sum(weights)
        check_range("scale", self.scale, -3, 3)
        if self.max_side < 2:
            raise RecipeError(f"max_side: expected a number from 2, found {self.max_side}.")
