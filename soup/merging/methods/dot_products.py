"""Dot products of all pairs of vectors, in float64 by chunks, so that no second copy of them is ever held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["dot_products"]

CHUNK = 2**16


def dot_products(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the dot product of each pair, [k, k] in float64; the same bits however many threads there are.

    Args:
        vectors: Tensors of one shape, each taken as a vector.
    """
    import torch

    flat = [vector.reshape(-1) for vector in vectors]
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for first in range(0, flat[0].numel(), CHUNK):
        chunk = torch.stack([vector[first : first + CHUNK] for vector in flat]).double()
        total += chunk @ chunk.T
    return total
