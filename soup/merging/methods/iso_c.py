"""Iso-C: the merged delta with all its singular values made equal.

Source: Marczak et al., arXiv 2502.04959, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soup.merging.methods.base import Work
from soup.merging.methods.matrices import MatrixMethod

if TYPE_CHECKING:
    import torch

__all__ = ["IsoC"]

SMALL = 1e-6
"""Singular values below this share of the largest are noise, which equal values would inflate."""


@dataclass(frozen=True)
class IsoC(MatrixMethod):
    """theta_0 + scale * mean(S) U V^T, where U S V^T = sum_i a_i T_i, over the singular values that are not noise."""

    def work_on_matrix(self, outputs: int, inputs: int, count: int) -> Work:
        """Count the sum, its copies and factors, and the SVD's own arrays; see `MatrixMethod.work_on_matrix`."""
        least = min(outputs, inputs)
        return Work(8 * (6 * outputs * inputs + 6 * least**2), outputs * inputs * least)

    @property
    def scale_of_others(self) -> float:
        """The same scale; see `MatrixMethod.scale_of_others`."""
        return self.scale

    def merged(self, deltas: Sequence[torch.Tensor], weights: Sequence[float], inputs: int) -> torch.Tensor:
        """Make the singular values of the weighted sum equal; see `MatrixMethod.merged`."""
        import torch

        total = deltas[0] * weights[0]
        for each, weight in zip(deltas[1:], weights[1:], strict=True):
            total += each * weight
        left, values, right = torch.linalg.svd(total.double(), full_matrices=False)
        kept = values > SMALL * values[0]
        if not bool(kept.any()):
            return torch.zeros_like(total)
        merged: torch.Tensor = (left[:, kept] @ right[kept]) * values[kept].mean()
        return merged
