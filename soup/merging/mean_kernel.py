"""When a merge uses the compiled mean (`soup.merging.compiled_mean`) and when torch's own operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["COMPILED_MEAN", "CompiledMeanPolicy", "MeanKernel"]

MeanKernel = Callable[[Sequence["torch.Tensor"], "torch.Tensor"], bool]
"""Writes the mean of bfloat16 tensors, [elements] each, into the last argument; False where one is not finite."""

LOAD_NUMBA_FROM_BYTES = 8e9
"""When this process merges so many bytes that numba could, the half second that it takes to load is worth it."""


class CompiledMeanPolicy:
    """Adds up what is merged, and loads numba when it is enough: until then torch is done before numba is loaded."""

    def __init__(self) -> None:
        self._planned_bytes = 0.0

    def kernel_for(self, planned_bytes: int) -> MeanKernel | None:
        """Choose how to merge another `planned_bytes` of bfloat16 inputs.

        Returns:
            The compiled mean, or None for torch's own operations: too few bytes so far, or numba is not usable here.
        """
        self._planned_bytes += planned_bytes
        if self._planned_bytes < LOAD_NUMBA_FROM_BYTES:
            return None
        try:
            from soup.merging.compiled_mean import mean_of_bfloat16
        except (ImportError, RuntimeError, OSError):  # not installed, or no directory where numba may write its cache
            return None
        return mean_of_bfloat16


COMPILED_MEAN = CompiledMeanPolicy()
"""The policy of this process."""
