"""DoRA: rows of base plus product, brought to the lengths that the adapter learnt.

    theta = m / ||W + s B A|| (W + s B A),  the norm over the inputs of each output

The norms need whole rows (or whole columns, where a weight is stored as [in, out]), so that a tensor is read once more
for them, in ranges of rows that do not depend on blocks.

Source: DoRA, Liu et al., arXiv 2402.09353, section 4.1; the definition is PEFT's.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soup.checkpoints.adapter_deltas import Delta
from soup.checkpoints.dtypes import LEAF_ELEMENTS, TensorSpec
from soup.checkpoints.reader import Checkpoint
from soup.merging.low_rank import Product, load_factor
from soup.merging.scratch import Scratch

if TYPE_CHECKING:
    import torch

__all__ = ["Dora"]


@dataclass
class Dora:
    """What DoRA makes of a tensor.

    Args:
        delta: The factors, with the lengths.
        source: Whose tensor it is.
        spec: That tensor.
    """

    delta: Delta
    source: Checkpoint
    spec: TensorSpec

    def __post_init__(self) -> None:
        self._product = Product([[self.delta]], [1.0], self.spec.dtype.bits)
        self._lock = threading.Lock()
        self._factors: torch.Tensor | None = None

    def add_to(self, values: torch.Tensor, first: int, slot: int, scratch: Scratch) -> torch.Tensor:
        """Make the adapted values of a block; see `Product.add_to`."""
        import torch

        with self._lock:
            if self._factors is None:
                self._factors = self._compute_factors(slot, scratch)
        total = self._product.add_to(values, first, slot, scratch)
        index = torch.arange(first, first + values.numel())
        columns = self._product.columns
        return total.mul_(self._factors[index % columns if self.delta.by_column else index // columns])

    def _compute_factors(self, slot: int, scratch: Scratch) -> torch.Tensor:
        """Divide the lengths by the norms: what each row (or column) is multiplied by, float64."""
        import torch

        rows, columns = self.spec.shape[0], self._product.columns
        squares = torch.zeros(columns if self.delta.by_column else rows, dtype=torch.float64)
        step = max(1, LEAF_ELEMENTS // columns)
        for begin in range(0, rows, step):
            end = min(begin + step, rows)
            data = bytearray((end - begin) * columns * self.spec.dtype.bits // 8)
            self.source.read_into(self.spec.name, begin * columns * self.spec.dtype.bits // 8, memoryview(data))
            values = torch.frombuffer(data, dtype=self.spec.dtype.torch)
            total = self._product.add_to(values, begin * columns, slot, scratch).view(end - begin, columns)
            if self.delta.by_column:
                squares += total.square().sum(0)
            else:
                squares[begin:end] = total.square().sum(1)
        return load_factor(self.delta.magnitude).view(-1).double() / squares.sqrt_()
