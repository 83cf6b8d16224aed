"""What one pass over a pool adds up of its deltas, tensor by tensor."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from soup.checkpoints.dtypes import Dtype
from soup.merging.compiled_deltas import DeltaSums, sum_deltas
from soup.merging.methods.base import Block, Method
from soup.merging.methods.dot_products import dot_products

if TYPE_CHECKING:
    import torch

__all__ = ["PoolMeasure", "TensorSums"]


@dataclass
class TensorSums:
    """The sums over a tensor's blocks, in the order of the blocks, so that threads change no digit.

    Args:
        center: The squared norm of the base, or of the mean that stands in for it.
        products: The dot products of deltas 0 and 0, 0 and 1, .. 1 and 1, ..
        moved: How many elements of each delta are not 0.
        elements: How many elements are in the sums, from the first on.
    """

    center: float
    products: list[float]
    moved: list[int]
    elements: int = 0
    _waiting: dict[int, tuple[int, DeltaSums]] = field(default_factory=dict)

    def holds(self, first: int) -> bool:
        """Whether the block that begins at an element is added."""
        return first < self.elements or first in self._waiting

    def add(self, first: int, elements: int, sums: DeltaSums) -> None:
        """Add a block; it waits until all before it are there."""
        self._waiting[first] = elements, sums
        while self.elements in self._waiting:
            elements, sums = self._waiting.pop(self.elements)
            self.elements += elements
            self.moved = [total + count for total, count in zip(self.moved, sums.moved, strict=True)]
            if math.isfinite(sums.center) and all(map(math.isfinite, sums.products)):  # NaN that is allowed
                self.center += sums.center
                self.products = [total + value for total, value in zip(self.products, sums.products, strict=True)]


@dataclass(frozen=True)
class PoolMeasure(Method):
    """No merge: adds up what it is given, in compiled code or in torch.

    Its result is the first ingredient, or NaN where any of them holds what is not finite, which the loop then tells.
    """

    has_base: bool
    _tensors: dict[str, TensorSums] = field(default_factory=dict, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def needs_base(self) -> bool:  # type: ignore[override]  # a class variable in methods that always or never do
        """Whether the pool has a base; see `Method.needs_base`."""
        return self.has_base

    @property
    def tensors(self) -> Mapping[str, TensorSums]:
        """The sums of each tensor, by name in order."""
        return dict(sorted(self._tensors.items()))

    def take_bytes(self, name: str, dtype: Dtype, inputs: Sequence[memoryview], first: int) -> bool:
        """Add a block up from its bytes; see `Method`."""
        count = len(inputs) - self.has_base
        sums = sum_deltas(dtype, inputs[:count], inputs[count] if self.has_base else None)
        if sums is not None:
            self._add(name, first, len(inputs[0]) * 8 // dtype.bits, sums)
        return sums is not None

    def __call__(self, block: Block) -> torch.Tensor:
        """Add a block up in torch; see `Method`."""
        import torch

        products, moved = dot_products(block, "base" if self.has_base else "mean", with_center=True)
        finite = bool(products.isfinite().all())
        if finite or block.accumulate_in == torch.float64:  # else it is called again, in float64
            rows, columns = torch.triu_indices(len(block), len(block)) + 1
            sums = DeltaSums(products[0, 0].item(), products[rows, columns].tolist(), moved[1:])
            self._add(block.tensor_name, block.first, block.raw[0].numel(), sums)
        values = block.copy(0)
        return values if finite else values.fill_(float("nan"))

    def take_equal(self, name: str, dtype: Dtype, values: memoryview, first: int, count: int) -> None:
        """Add a block up that was not, for all inputs hold these values: then no method is called.

        Args:
            name: The tensor.
            dtype: Of the values.
            values: Their bytes.
            first: The index of the first.
            count: The number of ingredients.
        """
        with self._lock:
            if (sums := self._tensors.get(name)) and sums.holds(first):
                return
        import torch

        squared = float(torch.frombuffer(values, dtype=dtype.torch).double().square().sum())
        pairs = count * (count + 1) // 2
        self._add(name, first, len(values) * 8 // dtype.bits, DeltaSums(squared, [0.0] * pairs, [0] * count))

    def _add(self, name: str, first: int, elements: int, sums: DeltaSums) -> None:
        with self._lock:
            if name not in self._tensors:
                self._tensors[name] = TensorSums(0.0, [0.0] * len(sums.products), [0] * len(sums.moved))
            self._tensors[name].add(first, elements, sums)

    def keeps_equal(self, weights: Sequence[float]) -> bool:
        """Return true: what it gives back is an input; see `Method.keeps_equal`."""
        return True
