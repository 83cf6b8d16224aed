"""Memory that a thread uses again from block to block: new memory for each block costs more than the sum."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Scratch"]


class Scratch(threading.local):
    """Each thread's memory for values, used again from block to block."""

    def __init__(self) -> None:
        self._held: dict[tuple[torch.dtype, int], torch.Tensor] = {}

    def like(self, dtype: torch.dtype, slot: int, other: torch.Tensor) -> torch.Tensor:
        """Lend the memory of a slot for values of that dtype, in the shape of `other`; its content is left over."""
        return self.empty(dtype, slot, other.shape)

    def empty(self, dtype: torch.dtype, slot: int, shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
        """Lend the memory of a slot for values of that dtype and shape; its content is left over."""
        import torch

        elements = math.prod(shape)
        held = self._held.get((dtype, slot))
        if held is None or held.numel() < elements:
            held = self._held[dtype, slot] = torch.empty(elements, dtype=dtype)
        return held[:elements].view(shape)
