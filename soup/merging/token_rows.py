"""Rows of trained tokens: PEFT's token adapters put them in the place of an embedding's own rows."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soup.checkpoints.adapter_deltas import Delta
from soup.merging.low_rank import load_factor
from soup.merging.scratch import Scratch

if TYPE_CHECKING:
    import torch

__all__ = ["TokenRows"]


@dataclass
class TokenRows:
    """What a token adapter makes of an embedding; its rows are read when they are first used.

    Args:
        delta: The rows, with the tokens whose they are.
    """

    delta: Delta

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: torch.Tensor | None = None

    def add_to(self, values: torch.Tensor, first: int, slot: int, scratch: Scratch) -> torch.Tensor:
        """Put the rows in the place of a block's own; see `Product.add_to`."""
        import torch

        with self._lock:
            if self._rows is None:
                self._rows = load_factor(self.delta.left).double()
        total = scratch.like(torch.float64, slot, values).copy_(values)
        columns = self._rows.shape[1]
        for token, row in zip(self.delta.tokens, self._rows, strict=True):
            begin = token * columns - first  # in the block
            low, high = max(begin, 0), min(begin + columns, values.numel())
            if low < high:
                total[low:high] = row[low - begin : high - begin]
        return total
