"""TIES: trim small changes, elect a sign for each element, and take the mean of those that agree with it.

Source: Yadav et al., arXiv 2306.01708, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple

from soup.errors import RecipeError
from soup.merging.compiled import Arithmetic, histogram
from soup.merging.methods.base import Block, FirstPass, MergedTensor
from soup.merging.methods.deltas import DeltaMethod, check_range, delta
from soup.merging.methods.dot_products import lane_sum

if TYPE_CHECKING:
    import torch

__all__ = ["Ties", "elect_and_merge"]

BINS = 2**16
_Bin = tuple[int, int]
"""A bin of magnitudes by one half of their bits, and how many of those in it are kept."""
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

    The threshold is exact: the bits of a float32 magnitude are ordered as the magnitudes are, so that two histograms,
    of the upper and of the lower 16 bits, find it in two passes over the inputs. Equal magnitudes are all kept. Tensors
    that an ingredient left as the base has them do not count: a frozen tower would use the share up.

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
        """Two, and one more for `alpha: auto`; see `Method.first_passes`."""
        return 2 + super().first_passes

    def prepare(self, first_pass: FirstPass) -> _Constants:
        """Find the thresholds and the signs of whole tensors; see `Method.prepare`."""
        bins, majority = self._bins(first_pass)
        constants = _Constants(self._thresholds(first_pass, bins), majority, 1.0)
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
        return Arithmetic(
            "elect",
            self.effective_weights(tensor),
            self.grown_scale(tensor),
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
        if not all(weight > 0 for weight in weights):
            raise RecipeError(f"ties: expected weights above 0: it divides by sums of some, found {list(weights)}.")

    def _key(self, name: str) -> str:
        return name if self.scope == "tensor" else _MODEL

    def _bins(self, first_pass: FirstPass) -> tuple[dict[str, list[_Bin]], dict[str, float]]:
        """Count the upper halves of all magnitudes.

        Returns:
            For each key and ingredient the bin of the threshold; the sign of each tensor's sum.
        """
        import torch

        def count(block: Block) -> torch.Tensor:
            rows = torch.zeros(len(block), BINS + 1, dtype=torch.int64)
            total = torch.zeros(1, dtype=torch.float64)
            for row, index, weight in zip(rows, range(len(block)), block.weights, strict=True):
                row[BINS], of_deltas = _count(block, index, None, row[:BINS])
                total += of_deltas * weight
            return torch.cat([rows.double().reshape(-1), total])

        bins, majority, ingredients, shapes = {}, {}, len(first_pass.weights), first_pass.shapes
        for key, tensors in groupby(first_pass.sums(count), lambda pair: self._key(pair[0])):
            held, sizes = torch.zeros(ingredients, BINS, dtype=torch.int64), [0] * ingredients
            for name, value in tensors:
                majority[name] = float(torch.sign(value[-1]))
                for index, row in enumerate(value[:-1].reshape(ingredients, BINS + 1)):
                    if row[-1] > 0:  # else the ingredient left the tensor as it was
                        held[index] += row[:-1].long()
                        sizes[index] += math.prod(shapes[name])
            kept = [math.ceil(self.density * size) for size in sizes]
            bins[key] = [_find(counts, number) for counts, number in zip(held, kept, strict=True)]
        return bins, majority

    def _thresholds(self, first_pass: FirstPass, bins: Mapping[str, Sequence[_Bin]]) -> dict[str, list[float]]:
        """Count the lower halves of the magnitudes in the thresholds' bins, and return the thresholds."""
        import torch

        def count(block: Block) -> torch.Tensor:
            rows = torch.zeros(len(block), BINS, dtype=torch.int64)
            for index, (upper, _) in enumerate(bins[self._key(block.tensor_name)]):
                _count(block, index, upper, rows[index])
            return rows

        thresholds = {}
        for key, tensors in groupby(first_pass.sums(count), lambda pair: self._key(pair[0])):
            held = torch.zeros(len(first_pass.weights), BINS, dtype=torch.int64)
            for _, value in tensors:
                held += value
            thresholds[key] = [_threshold(place, counts) for place, counts in zip(bins[key], held, strict=True)]
        return thresholds


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

    total, spare = changes(0, None).mul_(weights[0]), None
    for index in range(1, len(weights)):
        spare = changes(index, spare)
        total += spare.mul_(weights[index])
    sign = total.sign()
    if majority:
        sign[sign == 0] = majority
    total.zero_()
    shares = torch.zeros_like(total)
    for index, weight in enumerate(weights):
        spare = changes(index, spare)
        agrees = (spare.sign() == sign) & (spare != 0)
        total += spare.mul_(agrees).mul_(weight)
        shares += agrees.to(shares.dtype) * weight  # a bool times a number would be a float32
    return total.div_(shares.masked_fill_(shares == 0, 1)) if mean else total


def _count(block: Block, index: int, upper: int | None, counts: torch.Tensor) -> tuple[int, float]:
    """Count the bits of an ingredient's float32 magnitudes, which are ordered as the magnitudes are.

    Args:
        block: The block.
        index: The ingredient.
        upper: None: the upper halves are counted. Else the lower halves of magnitudes with this upper one.
        counts: [BINS] of int64, to which is added.

    Returns:
        How many elements differ from the base, and the sum of the differences.
    """
    import torch

    assert block.raw_base is not None
    if (counted := histogram(block.raw[index], block.raw_base, upper, counts)) is not None:
        return counted
    values = delta(block, index).reshape(-1)
    total = lane_sum(values.double())
    bits = values.abs_().float().view(torch.int32)
    halves = bits >> 16 if upper is None else bits[bits >> 16 == upper] & (BINS - 1)
    counts += torch.bincount(halves, minlength=BINS)
    return int(torch.count_nonzero(bits)), total


def _find(counts: torch.Tensor, kept: int) -> _Bin:
    """Find the bin in which the `kept`-th largest magnitude lies, and how many of the bin are kept."""
    if kept == 0:
        return BINS, 0
    larger = counts.flip(0).cumsum(0)
    place = int((larger >= kept).nonzero()[0])
    before = int(larger[place - 1]) if place else 0
    return BINS - 1 - place, kept - before


def _threshold(place: _Bin, lower: torch.Tensor) -> float:
    """Return the least magnitude that is kept."""
    import struct

    upper, kept = place
    if upper == BINS:  # nothing differs from the base: there is nothing to keep
        return math.inf
    low, _ = _find(lower, kept)
    return float(struct.unpack("<f", struct.pack("<I", upper << 16 | low))[0])
