"""What adapters add to a tensor, rows by rows: the product of their factors, the same bits wherever a block begins.

A matrix product adds up in an order that depends on its size, on the library and on the processor. So that no order
matters, rows of the left and columns of the right factor are cut to grids on which every product and every partial sum
is exact in float64: with K terms, to (53 - log2 K) / 2 bits below the largest of the row or column, 24 at most. That is
as fine as float32, and enough for a base of 16 bits; for float32 what was cut off is multiplied too, as a second slice,
and for float64 a third.

Source: Ozaki, Ogita, Oishi, Rump, Error-free transformations of matrix multiplication, Numerical Algorithms 59 (2012).
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from soup.checkpoints.adapter_deltas import Delta, Factor
from soup.checkpoints.dtypes import DTYPES, Dtype
from soup.merging.compiled_products import CompiledProduct, MeanBlock, StoredFactor, compile_product
from soup.merging.kernel_library import has_kernels
from soup.merging.methods.base import LowRank
from soup.merging.scratch import Scratch

if TYPE_CHECKING:
    import torch

__all__ = ["Product", "is_finite", "load_factor"]

SLICES = {16: 1, 32: 2, 64: 3}
"""How many slices of the factors are multiplied, by the bits of the dtype that the sum is rounded to."""


class _Part(NamedTuple):
    """A product of the sum: its factors as they are stored, and its scale."""

    left: StoredFactor
    right: StoredFactor
    scale: float


class _Factors(NamedTuple):
    """The left factors side by side, as they are stored, each with its scale; the right ones stacked and cut."""

    lefts: list[torch.Tensor]
    scales: list[float]
    rights: list[torch.Tensor]


@dataclass
class Product:
    """The sum of weighted deltas as one product of factors of all their ranks; they are read when it is first used.

    Args:
        groups: The deltas of each adapter.
        weights: The adapters' weights.
        bits: The bits of the base's dtype, or of the result's if it has more.
        merge: Makes one product of the adapters', by their weights; None: it is their sum.
    """

    groups: Sequence[Sequence[Delta]]
    weights: Sequence[float]
    bits: int
    merge: Callable[[Sequence[LowRank], Sequence[float]], LowRank] | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._factors: _Factors | None = None
        self._compiled: list[CompiledProduct | None] = []

    @property
    def columns(self) -> int:
        """The columns of the matrix that it is added to."""
        right = next(delta.right for group in self.groups for delta in group)
        return right.shape[1] if right else 1

    def add_to(self, values: torch.Tensor, first: int, slot: int, scratch: Scratch) -> torch.Tensor:
        """Add the product to a block.

        Args:
            values: The block, [elements].
            first: The index of its first element in the tensor.
            slot: Names the memory of the result, and the next slot.
            scratch: Lends it.

        Returns:
            The sum, [elements] of float64.
        """
        begin = first // self.columns
        end = -(-(first + values.numel()) // self.columns)
        start = first - begin * self.columns
        total = self.rows(begin, end, slot, scratch).view(-1)[start : start + values.numel()]
        return total.add_(values)

    def add_to_bytes(self, dtype: Dtype, block: MeanBlock, first: int, out: memoryview) -> bool:
        """Add the product to a block, take the mean with other inputs, and round, as float64 and float32 would.

        Args:
            dtype: Of the inputs and of the result, of as many bits as `bits`.
            block: The inputs, at least one element.
            first: The index of the block's first element in the tensor.
            out: Memory for the result.

        Returns:
            Whether it is done, in a compiled pass; False: `add_to` has to do it.
        """
        with self._lock:
            if not self._compiled:
                self._compiled.append(self._compile())
        compiled = self._compiled[0]
        return compiled is not None and compiled.add_to(dtype, block, first, out)

    def _compile(self) -> CompiledProduct | None:
        if self.merge or SLICES[self.bits] > 2 or not has_kernels():
            return None
        lefts, rights, scales = zip(*self._parts(), strict=True)
        bits = _cut_bits(sum(right.shape[0] for right in rights))
        return compile_product(lefts, rights, scales, bits, SLICES[self.bits])

    def _parts(self) -> list[_Part]:
        """Read the factors of the sum."""
        groups = [[_Part(_read(d.left), _read(d.right), d.scale) for d in group] for group in self.groups]
        weights = list(self.weights)
        if all(other == groups[0] for other in groups[1:]):  # copies of one adapter give that adapter back
            groups, weights = groups[:1], [math.fsum(weights)]
        return [
            part._replace(scale=part.scale * weight)
            for group, weight in zip(groups, weights, strict=True)
            for part in group
        ]

    def rows(self, begin: int, end: int, slot: int, scratch: Scratch) -> torch.Tensor:
        """Compute rows [begin, end) of the product, [rows, columns] of float64.

        Args:
            begin: The first row.
            end: The row after the last one.
            slot: Names the memory of the result, and the next slot.
            scratch: Lends it.
        """
        import torch

        factors = self._loaded()
        left = torch.cat(
            [part[begin:end].double() * scale for part, scale in zip(factors.lefts, factors.scales, strict=True)], 1
        )
        lefts = _slices(left, 1, len(factors.rights))
        shape = (end - begin, self.columns)
        total = scratch.empty(torch.float64, slot, shape)
        spare = scratch.empty(torch.float64, slot + 1, shape) if len(lefts) > 1 else total
        pairs = [(i, order - i) for order in reversed(range(len(lefts))) for i in range(order + 1)]
        for number, (i, j) in enumerate(pairs):  # from the smallest to the largest
            torch.mm(lefts[i], factors.rights[j], out=spare if number else total)
            if number:
                total += spare
        return total.add_(0.0)  # whether a sum of zeros is -0 is the library's choice

    def _loaded(self) -> _Factors:
        with self._lock:
            if self._factors is None:
                self._factors = self._load()
            return self._factors

    def _load(self) -> _Factors:
        import torch

        if self.merge:
            left, right = self.merge([self._low_rank(group) for group in self.groups], list(self.weights))
            return _Factors([left], [1.0], _slices(right, 0, SLICES[self.bits]))
        parts = [(_tensor(left), _tensor(right), scale) for left, right, scale in self._parts()]
        right = torch.empty(sum(len(right) for _, right, _ in parts), self.columns, dtype=torch.float64)
        torch.cat([right for _, right, _ in parts], out=right)
        slices = _slices(right, 0, SLICES[self.bits])
        return _Factors([left for left, _, _ in parts], [scale for _, _, scale in parts], slices)

    def _low_rank(self, deltas: Sequence[Delta]) -> LowRank:
        """Return an adapter's deltas as one product, of rank 0 where there are none."""
        import torch

        rows = next(delta.left.shape[0] for group in self.groups for delta in group)
        none = torch.empty(rows, 0, dtype=torch.float64), torch.empty(0, self.columns, dtype=torch.float64)
        lefts = [load_factor(delta.left).double() * delta.scale for delta in deltas]
        rights = [load_factor(delta.right).double() for delta in deltas]
        return LowRank(torch.cat([none[0], *lefts], 1), torch.cat([none[1], *rights]))


def load_factor(factor: Factor | None) -> torch.Tensor:
    """Read a factor as it is stored, as a matrix; the 1 of a vector that is added."""
    return _tensor(_read(factor))


def is_finite(factor: Factor) -> bool:
    """Whether a factor holds neither NaN nor infinity."""
    return bool(load_factor(factor).isfinite().all())


def _read(factor: Factor | None) -> StoredFactor:
    if factor is None:
        return StoredFactor(bytearray(struct.pack("<f", 1.0)), DTYPES["F32"], (1, 1), 1, 1)
    dtype, (first, stride, step) = factor.adapter.tensors[factor.name].dtype, factor.lies
    rows, columns = factor.shape
    elements = (rows - 1) * stride + (columns - 1) * step + 1 if rows and columns else 0
    data = bytearray(elements * dtype.bits // 8)
    factor.adapter.read_into(factor.name, first * dtype.bits // 8, memoryview(data))
    return StoredFactor(data, dtype, factor.shape, stride, step)


def _tensor(factor: StoredFactor) -> torch.Tensor:
    import torch

    values = torch.frombuffer(factor.data, dtype=factor.dtype.torch)
    return values.as_strided(factor.shape, (factor.stride, factor.step))


def _cut_bits(rank: int) -> int:
    """Return to how many bits factors are cut, so that a product adds up exactly; float32 holds as many."""
    return min(24, (53 - math.ceil(math.log2(max(rank, 1)))) // 2)


def _slices(values: torch.Tensor, dim: int, count: int) -> list[torch.Tensor]:
    """Cut float64 values into slices whose products are exact; their sum is nearly the values.

    Args:
        values: A factor; its memory becomes the first slice's.
        dim: The dimension over which the product adds up.
        count: The number of slices.
    """
    import torch

    bits = _cut_bits(values.shape[dim])
    slices = []
    for number in range(count):
        _, exponent = torch.frexp(torch.linalg.vector_norm(values, math.inf, dim, keepdim=True))
        step = torch.ldexp(torch.ones_like(values[:1, :1]), (exponent - bits).double())
        rest = values if number == count - 1 else values.clone()
        slices.append(values.div_(step).round_().mul_(step))
        values = rest.sub_(slices[-1]) if rest is not values else values
    return slices
