"""TIES: trim small changes, elect a sign for each element, and take the mean of those that agree with it.

Source: Yadav et al., arXiv 2306.01708, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from soup.merging.compiled import Arithmetic
from soup.merging.methods.base import Block, FirstPass, MergedTensor
from soup.merging.methods.components import refuse_negative_weights
from soup.merging.methods.deltas import DeltaMethod, check_range, delta
from soup.merging.methods.normalised import Normalised, normalise
from soup.merging.methods.thresholds import find_thresholds

if TYPE_CHECKING:
    import torch

__all__ = ["Ties", "elect_and_merge", "exact_weights"]

_MODEL = ""  # the key of thresholds that hold for the whole model


class _Constants(NamedTuple):
    """What the whole model decides: each ingredient's least magnitude that is kept, by tensor or for all.

    `majority` is the sign of the sum of a tensor's weighted deltas, for elements whose own sum is 0; `alpha` is LiNeS'.
    """

    thresholds: Mapping[str, Sequence[float]]
    majority: Mapping[str, float]
    alpha: float


@dataclass(frozen=True)
class Ties(DeltaMethod):
    """theta_0 + scale * the mean of the trimmed deltas whose sign is the elected one.

    Thresholds are exact. Equal magnitudes are all kept. Tensors that an ingredient left as the base has them do not
    count: a frozen tower would use the share up.

    Args:
        density: The share of an ingredient's elements that is kept.
        scope: Whether the share is of the model (as in the paper) or of each tensor.
        merge: `mean` (as in the paper) of what agrees in sign, or the weighted `sum`, which wants a scale of some 0.3.
    """

    density: float = 0.2
    scope: Literal["model", "tensor"] = "model"
    merge: Literal["mean", "sum"] = "mean"

    @property
    def first_passes(self) -> int:
        """One, or two for thresholds by tensor, and one more for `alpha: auto`; see `Method.first_passes`."""
        return (1 if self.scope == "model" else 2) + super().first_passes

    def prepare(self, first_pass: FirstPass) -> _Constants:
        """Find the thresholds and the signs of whole tensors; see `Method.prepare`."""
        exact = find_thresholds(
            first_pass,
            self._key,
            self.density,
            lambda block: exact_weights(self.effective_weights(block)).weights,
            sampled=self.scope == "model",
        )
        constants = _Constants(exact.thresholds, exact.signs, 1.0)
        if self.alpha != "auto":
            return constants
        return constants._replace(alpha=self.auto_alpha(first_pass.with_constants(constants)))

    def merged(self, block: Block, weights: Sequence[float]) -> torch.Tensor:
        """Trim, elect and merge; see `DeltaMethod.merged`."""
        constants: _Constants = block.constants
        thresholds = constants.thresholds[self._key(block.tensor_name)]

        def trimmed(index: int, out: torch.Tensor | None) -> torch.Tensor:
            values = delta(block, index, out)
            return values.mul_(values.abs().float() >= thresholds[index])

        majority = constants.majority.get(block.tensor_name, 0.0)
        return elect_and_merge(trimmed, weights, majority, mean=self.merge == "mean")

    def arithmetic(self, tensor: MergedTensor) -> Arithmetic:
        """Say the same for a compiled pass; see `Method.arithmetic`."""
        constants: _Constants = tensor.constants
        parts, divisor = exact_weights(self.effective_weights(tensor))
        return Arithmetic(
            "elect",
            parts,
            self.grown_scale(tensor),
            divisor=divisor,
            thresholds=constants.thresholds[self._key(tensor.tensor_name)],
            majority=constants.majority.get(tensor.tensor_name, 0.0),
            mean=self.merge == "mean",
        )

    def alpha_of(self, tensor: MergedTensor) -> float:
        """Return the alpha that `prepare` found; see `DeltaMethod.alpha_of`."""
        constants: _Constants = tensor.constants
        return constants.alpha

    def check(self, weights: Sequence[float]) -> None:
        """Refuse weights that are not above 0, and parameters out of range; see `Method.check`."""
        super().check(weights)
        check_range("scale", self.scale, 0, 2)
        check_range("density", self.density, 0, 1, open_low=True)
        refuse_negative_weights(self.components, weights)

    def _key(self, name: str) -> str:
        return name if self.scope == "tensor" else _MODEL


def elect_and_merge(
    changes: Callable[[int, torch.Tensor | None], torch.Tensor],
    weights: Sequence[float],
    majority: float,
    *,
    mean: bool,
) -> torch.Tensor:
    """Elect a sign for each element and merge the changes that have it: steps 2 and 3 of TIES.

    Args:
        changes: Returns ingredient i's change [any shape], in the given memory if there is some.
        weights: Their weights, above 0.
        majority: The sign of elements whose sum is 0: 1, -1, or 0 for none.
        mean: Whether what agrees is averaged or summed up.
    """
    import torch

    parts, divisor = exact_weights(weights)
    total, spare = changes(0, None).mul_(parts[0]), None
    for index in range(1, len(parts)):
        spare = changes(index, spare)
        total += spare.mul_(parts[index])
    sign = total.sign()
    if majority:
        sign[sign == 0] = majority
    total.zero_()
    shares = torch.zeros_like(total)
    for index, weight in enumerate(parts):
        spare = changes(index, spare)
        agrees = (spare.sign() == sign) & (spare != 0)
        total += spare.mul_(agrees).mul_(weight)
        shares += agrees.to(shares.dtype) * weight  # a bool times a number would be a float32
    return total.div_(shares.masked_fill_(shares == 0, 1) if mean else divisor)


def exact_weights(weights: Sequence[float]) -> Normalised:
    """Return weights times a number, which is the divisor, so that products with simple ones are exact.

    Changes that cancel then sum up to 0, and rounding elects no sign for them.
    """
    return normalise(weights, [1.0])
