"""Memory that a thread uses again from block to block: new memory for each block costs more than the sum."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Scratch"]


class Scratch(threading.local):
    """Each thread's memory for values, used again from block to block."""

    def __init__(self) -> None:
        self._held: dict[tuple[torch.dtype, int], torch.Tensor] = {}
        self._buffers: list[bytearray] = []

    def buffers(self, sizes: Sequence[int]) -> list[memoryview]:
        """Lend memory for bytes, cut to sizes; the next call lends the same."""
        if len(self._buffers) < len(sizes) or any(map(operator.lt, map(len, self._buffers), sizes)):
            self._buffers = [bytearray(size) for size in sizes]
        return [memoryview(buffer)[:size] for buffer, size in zip(self._buffers, sizes, strict=False)]

    def like(self, dtype: torch.dtype, slot: int, other: torch.Tensor) -> torch.Tensor:
        """Lend the memory of a slot for values of that dtype, in the shape of `other`; its content is left over."""
        return self.empty(dtype, slot, other.shape)

    def empty(self, dtype: torch.dtype, slot: int, shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
        """Lend the memory of a slot for values of that dtype and shape; its content is left over."""
        import torch

        elements = math.prod(shape)
        memory = self._held.get((dtype, slot))
        if memory is None or memory.numel() < elements:
            memory = self._held[dtype, slot] = torch.empty(elements, dtype=dtype)
        return memory[:elements].view(shape)
