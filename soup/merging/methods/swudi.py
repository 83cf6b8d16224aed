"""SWUDI: the merged delta that interferes least with each ingredient's own, reached for a finite time.

Source: Wei et al., arXiv 2606.07289; the objective is WUDI's, Cheng et al., arXiv 2503.08099, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from soup.merging.methods.base import Work
from soup.merging.methods.deltas import check_range
from soup.merging.methods.matrices import MatrixMethod

if TYPE_CHECKING:
    import torch

__all__ = ["Swudi"]

LEAST = 1e-8
"""The least eigenvalue that is divided by."""


@dataclass(frozen=True)
class Swudi(MatrixMethod):
    """M(t) of the flow M' = -(M C - D) from M_0, in the leading eigenspace of C = sum_i T_i^T T_i / |T_i|^2.

    D = sum_i T_i T_i^T T_i / |T_i|^2 and C = V diag(l) V^T: M = M_0 - M_0 V f V^T + (D V)(f / l) V^T, where
    f = 1 - exp(-l t) for the kept eigenvalues and 0 for the others. The cost is cubic in the number of inputs.

    Args:
        time: How long the flow runs. Eigenvalues sum to the number of ingredients, so that it means more at a
            smaller width.
        rank: The share of eigenvalues that are kept, or `participation`: (sum sqrt l)^2 / sum l of them.
        start: M_0: the mean of the deltas, their sum, or zero.
    """

    time: float = 300.0
    rank: float | Literal["participation"] = 0.85
    start: Literal["mean", "sum", "zero"] = "mean"

    def merged(self, deltas: Sequence[torch.Tensor], weights: Sequence[float], inputs: int) -> torch.Tensor:
        """Follow the flow; see `MatrixMethod.merged`."""
        import torch

        wide = [each.double() for each in deltas]
        side = wide[0].shape[1]
        c, d = torch.zeros(side, side, dtype=torch.float64), torch.zeros_like(wide[0])
        for each in wide:
            gram = each.T @ each / (each * each).sum()
            c += gram
            d += each @ gram
        start = {"mean": sum(wide) / len(wide), "sum": sum(wide), "zero": torch.zeros_like(d)}[self.start]
        assert isinstance(start, torch.Tensor)
        values, vectors = torch.linalg.eigh(c)  # in ascending order
        kept = self._kept(values.clamp_min(0), inputs)
        values, vectors = values[side - kept :].clamp_min(LEAST), vectors[:, side - kept :]
        f = -torch.expm1(-values * self.time)
        merged: torch.Tensor = start - (start @ vectors * f) @ vectors.T + (d @ vectors * (f / values)) @ vectors.T
        return merged

    def work_on_matrix(self, outputs: int, inputs: int, count: int) -> Work:
        """Count the deltas in float64, C and D, and the eigenvectors; see `MatrixMethod.work_on_matrix`."""
        return Work(8 * ((count + 8) * outputs * inputs + 8 * inputs**2), max(outputs, inputs) * inputs**2)

    def _kept(self, values: torch.Tensor, inputs: int) -> int:
        if self.rank != "participation":
            return min(len(values), math.ceil(float(self.rank) * inputs))  # what is missing is 0
        share = float(values.sqrt().sum() ** 2 / values.sum())
        return min(len(values), math.ceil(share))

    def check(self, weights: Sequence[float]) -> None:
        """Refuse parameters out of range; see `Method.check`."""
        super().check(weights)
        check_range("time", self.time, 0, 1e6)
        if self.rank != "participation":
            check_range("rank", float(self.rank), 0, 1, open_low=True)
