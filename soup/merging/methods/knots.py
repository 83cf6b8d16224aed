"""KnOTS: align deltas of low rank by a common basis, and merge them in it.

Source: Stoica et al., arXiv 2410.19735, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from soup.errors import RecipeError
from soup.merging.methods.base import LowRank, Work
from soup.merging.methods.deltas import check_range
from soup.merging.methods.matrices import MatrixMethod
from soup.merging.methods.ties import elect_and_merge

if TYPE_CHECKING:
    import torch

__all__ = ["Knots"]

CHEAP_SIDE = 256
"""Smaller matrices are taken whatever their rank."""

SMALL = 1e-5
"""Singular values below this share of the largest are left out of the basis."""


@dataclass(frozen=True)
class Knots(MatrixMethod):
    """theta_0 + scale * U P: [T_1 .. T_k] = U S [V_1 .. V_k]^T, P_i = S V_i^T, and P their merge.

    Args:
        inner: How the P_i are merged: by TIES' trimming and election of signs, or as a mean (which is the mean of T).
        density: The share of the elements of each P_i that TIES keeps.
        full: Whether deltas of a full rank are taken: fine-tunes of all weights make it an SVD of [out, k in].
    """

    turns_inputs: ClassVar[bool] = False  # TIES looks at each input of P by itself

    scale: float = 0.6
    inner: Literal["ties", "mean"] = "ties"
    density: float = 1.0
    full: bool = False

    def merged(self, deltas: Sequence[torch.Tensor], weights: Sequence[float], inputs: int) -> torch.Tensor:
        """Merge in the common basis; see `MatrixMethod.merged`."""
        import torch

        count = len(deltas)
        side_by_side = torch.cat([each.double() for each in deltas], dim=1)
        triangle = torch.linalg.qr(side_by_side.T, mode="r").R  # V is not needed: S V^T = U^T [T_1 .. T_k]
        left, values, _ = torch.linalg.svd(triangle.T, full_matrices=False)
        kept = values > SMALL * values[0]
        smaller = min(deltas[0].shape)
        if not self.full and smaller >= CHEAP_SIDE and int(kept.sum()) > smaller // 2:
            raise RecipeError(
                f"knots: expected deltas of a low rank, as adapters make them, found {int(kept.sum())} directions in a "
                f"matrix of {list(deltas[0].shape)}. Pass full: true to take them all the same."
            )
        basis = left[:, kept]
        parts = (basis.T @ side_by_side).chunk(count, 1)
        del side_by_side
        if self.inner == "mean":
            total = sum(part * weight for part, weight in zip(parts, weights, strict=True))
        else:
            for part in parts:
                _trim(part, self.density)
            total = elect_and_merge(lambda index, out: parts[index].clone(), weights, 0.0, mean=True)
        merged: torch.Tensor = basis @ total
        return merged

    def work_on_matrix(self, outputs: int, inputs: int, count: int) -> Work:
        """Count the deltas side by side, with their QR, and the SVD; see `MatrixMethod.work_on_matrix`."""
        wide = count * inputs
        return Work(8 * (4 * outputs * wide + 8 * outputs**2), outputs * wide * min(outputs, wide))

    def merge_low_rank(self, deltas: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
        """Merge adapters' deltas, which are of a low rank whatever it is; see `Method.merge_low_rank`."""
        return MatrixMethod.merge_low_rank(replace(self, full=True), deltas, weights)

    def check(self, weights: Sequence[float]) -> None:
        """Refuse parameters out of range; see `Method.check`."""
        super().check(weights)
        check_range("density", self.density, 0, 1, open_low=True)
        if not all(weight > 0 for weight in weights):
            raise RecipeError(f"knots: expected weights above 0, found {list(weights)}.")


def _trim(values: torch.Tensor, density: float) -> None:
    """Keep the largest share of a matrix; equal magnitudes at the threshold are all kept."""
    import math

    count = math.ceil(density * values.numel())
    threshold = values.abs().reshape(-1).kthvalue(values.numel() - count + 1).values
    values.mul_(values.abs() >= threshold)
