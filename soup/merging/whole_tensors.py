"""What methods of whole matrices cost beside the loop over blocks: memory, and the time of their decompositions.

The time is told by the cubic law: one small matrix is merged on this machine, and each tensor's count of operations is
held against the small one's. Large matrices may be somewhat faster, and busy cores slower.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from soup.checkpoints.adapted import is_adapted
from soup.checkpoints.dtypes import TensorSpec
from soup.merging.block_arithmetic import Blend
from soup.merging.methods.base import Block, Method, Work
from soup.merging.tensor_inputs import is_low_rank, takes_whole
from soup.support.threads import count_cores

__all__ = ["decomposition_seconds", "work_on"]

SIDE = 192
"""The side of the small matrix: its merge takes some hundredths of a second."""


def work_on(blend: Blend, spec: TensorSpec) -> Work | None:
    """Return what the method needs for a tensor beside its inputs; None where it is merged by slices."""
    count = len(blend.weights)
    if is_low_rank(blend, spec):
        adapted = [checkpoint for checkpoint in blend.inputs if is_adapted(checkpoint)]
        rank = sum(delta.rank for checkpoint in adapted for delta in checkpoint.deltas_of(spec.name))
        return blend.method.work(spec.shape, count, rank)
    return blend.method.work(spec.shape, count) if takes_whole(blend, spec) else None


def decomposition_seconds(blend: Blend, tensors: Sequence[TensorSpec], threads: int) -> float | None:
    """Estimate how long the decompositions of these tensors take on this machine; None where there are none.

    Args:
        blend: How they are merged.
        tensors: The tensors, as the first input has them.
        threads: How many tensors are merged at a time.
    """
    operations = [work.operations for work in _works(blend, tensors)]
    if not any(operations):
        return None
    seconds = _seconds_per_operation(blend.method, len(blend.weights))
    return seconds * max(sum(operations) / min(threads, count_cores()), *operations)


def _works(blend: Blend, tensors: Sequence[TensorSpec]) -> Iterator[Work]:
    for spec in tensors:
        if (work := work_on(blend, spec)) is not None:
            yield work


def _seconds_per_operation(method: Method, count: int) -> float:
    """Merge a small matrix of `count` ingredients twice, on one thread, and take the second time."""
    import torch

    random, shape = torch.Generator().manual_seed(0), (SIDE, SIDE)
    base, *tuned = (torch.randn(shape, generator=random) for _ in range(count + 1))
    block = Block("matrix.weight", (1.0,) * count, tuple(tuned), torch.float32, base)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        method(block)
        began = time.perf_counter()
        method(block)
        return (time.perf_counter() - began) / method.work(shape, count).operations
    finally:
        torch.set_num_threads(before)
