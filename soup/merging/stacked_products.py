"""What adapters add to a stack of matrices, such as a layer's experts: each has a product of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soup.checkpoints.adapter_deltas import Delta
from soup.checkpoints.dtypes import Dtype
from soup.merging.compiled_products import MeanBlock
from soup.merging.low_rank import Product
from soup.merging.scratch import Scratch

if TYPE_CHECKING:
    import torch

__all__ = ["StackedProducts"]

HELD_PRODUCTS = 8
"""How many matrices' factors are in memory: blocks come in order, and a thread is seldom far behind another."""


@dataclass
class StackedProducts:
    """The sum of weighted deltas to the matrices of a stack.

    Args:
        groups: The deltas of each adapter; each says to which matrix it is added.
        weights: The adapters' weights.
        bits: See `Product`.
        elements: The size of a matrix.
    """

    groups: Sequence[Sequence[Delta]]
    weights: Sequence[float]
    bits: int
    elements: int

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, Product | None] = {}

    def add_to(self, values: torch.Tensor, first: int, slot: int, scratch: Scratch) -> torch.Tensor:
        """Add the products to a block; see `Product.add_to`."""
        import torch

        total = scratch.like(torch.float64, -1 - slot, values).copy_(values)
        for product, begin, end, start in self._pieces(first, values.numel()):
            if product is not None:
                total[begin:end] = product.add_to(values[begin:end], start, slot, scratch)
        return total

    def add_to_bytes(self, dtype: Dtype, block: MeanBlock, first: int, out: memoryview) -> bool:
        """Add the products to a block, take the mean, and round; see `Product.add_to_bytes`."""
        width = dtype.bits // 8
        for product, begin, end, start in self._pieces(first, len(out) // width):
            piece = slice(begin * width, end * width)
            if product is None and len(block.inputs) == 1:
                out[piece] = block.inputs[0][piece]
            elif product is None or not product.add_to_bytes(dtype, block[piece], start, out[piece]):
                return False
        return True

    def _pieces(self, first: int, count: int) -> Iterator[tuple[Product | None, int, int, int]]:
        """Cut a block by matrices.

        Yields:
            The product, the piece of the block, and the index in the matrix of its first element.
        """
        begin = 0
        while begin < count:
            index, start = divmod(first + begin, self.elements)
            end = min(count, begin + self.elements - start)
            yield self._product(index), begin, end, start
            begin = end

    def _product(self, index: int) -> Product | None:
        with self._lock:
            if index not in self._held:
                while len(self._held) >= HELD_PRODUCTS:
                    del self._held[next(iter(self._held))]
                groups = [[delta for delta in group if delta.index == index] for group in self.groups]
                self._held[index] = Product(groups, self.weights, self.bits) if any(groups) else None
            return self._held[index]
