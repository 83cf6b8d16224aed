"""DARE: drop a share of each ingredient's changes at random, and scale the others up.

Source: Yu et al., arXiv 2311.03099, section 3.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soup.merging.compiled import Arithmetic
from soup.merging.methods.base import Block, MergedTensor
from soup.merging.methods.components import refuse_negative_weights
from soup.merging.methods.deltas import DeltaMethod, check_range, delta
from soup.merging.methods.normalised import normalise
from soup.merging.methods.task_arithmetic import refuse_no_sum
from soup.merging.methods.ties import elect_and_merge, exact_weights

if TYPE_CHECKING:
    import torch

__all__ = ["Dare", "hash_of", "keyed_uniform"]

_STEP, _MIX = 0x9E3779B97F4A7C15, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
RANDOM_BITS = 24


@dataclass(frozen=True)
class Dare(DeltaMethod):
    """theta_0 + scale * sum_i a_i m_i tau_i / (1 - p), where m_i keeps an element with probability 1 - p.

    Whether an element is kept depends on the seed, the ingredient's digest, the tensor's name and the element's index
    alone: the same bytes for any size of blocks and number of threads, on any machine, and in every subset of a pool.
    Changes of continued pre-training (some 0.03 and more) do not bear it.

    Args:
        p: The share of changes that is dropped.
        rescale: Whether the others are divided by 1 - p, so that the expected change stays.
        seed: Another one drops others.
        elect: Whether signs are elected as by TIES, whose trimming the random dropping stands in for; an element whose
            sum is 0 stays the base's.
        normalize: Whether weights are divided by their sum; see `TaskArithmetic`. Where signs are elected, by the
            sum of those that agree.
    """

    needs_digests = True

    p: float = 0.5
    rescale: bool = True
    seed: int = 0
    elect: bool = False
    normalize: bool = True

    def merged(self, block: Block, weights: Sequence[float]) -> torch.Tensor:
        """Drop, rescale and merge; see `DeltaMethod.merged`."""

        def kept(index: int, out: torch.Tensor | None) -> torch.Tensor:
            values = delta(block, index, out)
            return values.mul_(self._mask(block, index, values)).mul_(self._grown) if self.p else values

        if self.elect:
            return elect_and_merge(kept, weights, 0.0, mean=self.normalize)
        parts, divisor = normalise(weights, block.weights) if self.normalize else (weights, 1.0)
        total, spare = kept(0, None).mul_(parts[0]), None
        for index in range(1, len(block)):
            spare = kept(index, spare)
            total += spare.mul_(parts[index])
        return total.div_(divisor)

    def arithmetic(self, tensor: MergedTensor) -> Arithmetic:
        """Say the same for a compiled pass; see `Method.arithmetic`."""
        weights = self.effective_weights(tensor)
        keys = [hash_of(self._key(tensor, index)) for index in range(len(weights))] if self.p else []
        parts, divisor = normalise(weights, tensor.weights) if self.normalize else (weights, 1.0)
        if self.elect:
            parts, divisor = exact_weights(weights)
        return Arithmetic(
            "elect" if self.elect else "deltas",
            parts,
            self.grown_scale(tensor),
            divisor=divisor,
            keys=keys,
            dropped=self._dropped,
            grown=self._grown,
            mean=self.normalize,
        )

    @property
    def _grown(self) -> float:
        return 1 / (1 - self.p) if self.rescale else 1.0

    @property
    def _dropped(self) -> int:
        dropped: int = math.ceil(self.p * 2**RANDOM_BITS)
        return dropped

    def _key(self, tensor: MergedTensor, index: int) -> str:
        return f"{self.seed}\0{tensor.digests[index]}\0{tensor.tensor_name}"

    def _mask(self, block: Block, index: int, values: torch.Tensor) -> torch.Tensor:
        numbers = keyed_uniform(self._key(block, index), block.first, values.numel())
        kept: torch.Tensor = numbers.view(values.shape) >= self._dropped
        return kept

    def check(self, weights: Sequence[float]) -> None:
        """Refuse weights that can't be used, and parameters out of range; see `Method.check`."""
        super().check(weights)
        check_range("scale", self.scale, -1, 2)
        check_range("p", self.p, 0, 0.99)
        if self.elect:
            refuse_negative_weights(self.components, weights)
        if self.normalize:
            refuse_no_sum(weights)


def keyed_uniform(key: str, first: int, count: int) -> torch.Tensor:
    """Return whole numbers, uniform in [0, 2^24): element e's is SplitMix64 of the key's hash and e, and nothing else.

    Args:
        key: Any text.
        first: The index of the first element.
        count: The number of elements.

    Source: Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014, figure 17.
    """
    import torch

    z = torch.arange(first + 1, first + count + 1, dtype=torch.int64)
    z.mul_(_signed(_STEP)).add_(_signed(hash_of(key)))
    for shift, factor in zip((30, 27), _MIX, strict=True):
        z.bitwise_xor_(_shifted(z, shift)).mul_(_signed(factor))
    z.bitwise_xor_(_shifted(z, 31))
    return _shifted(z, 64 - RANDOM_BITS)


def hash_of(key: str) -> int:
    """Return 64 bits of the key's hash."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")


def _shifted(z: torch.Tensor, count: int) -> torch.Tensor:
    """Shift right without the sign: torch has no unsigned shift."""
    return (z >> count).bitwise_and_((1 << (64 - count)) - 1)


def _signed(word: int) -> int:
    word %= 2**64
    return word - 2**64 if word >= 2**63 else word
