"""Merging into memory what the page cache holds already, as a search does with one candidate after another.

Reading and adding alternate in one compiled call, and Python has no part in it: threads wait for its lock longer than
for the memory. What the page cache lacks, what is not finite, and what such a call has no words for is left to the loop
over blocks (`soup.merging.block_loop`), which gives the same bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

from soup.checkpoints.dtypes import LEAF_ELEMENTS, TensorSpec
from soup.merging.block_arithmetic import Blend
from soup.merging.block_loop import BLOCK_BUDGET_BYTES
from soup.merging.tensor_inputs import TensorInputs, tensor_inputs
from soup.support.threads import default_threads, run_on_threads

__all__ = ["merge_cached_tensors"]

UNIT_ELEMENTS = 8 * LEAF_ELEMENTS
"""How many elements of a tensor a thread merges before it takes others: a few milliseconds' work."""

BLOCK_BYTES = 2**19
"""How much of an input is read at once; less where the inputs are so many that their blocks would fill the budget."""


def merge_cached_tensors(blend: Blend, tensors: Sequence[TensorSpec], memory: Mapping[str, memoryview]) -> set[str]:
    """Merge tensors straight into memory, as far as the page cache has their inputs.

    Args:
        blend: How they are merged, and from which inputs.
        tensors: The tensors, as the first input has them.
        memory: The bytes of those that have plain memory, by name.

    Returns:
        The names of those that are merged; the others' memory holds nothing of use.
    """
    left, local = {spec.name for spec in tensors}, threading.local()

    def units() -> Iterator[tuple[TensorInputs, int]]:
        for spec in tensors:
            if memory.get(spec.name):
                left.remove(spec.name)
                inputs = tensor_inputs(blend, spec.name)
                yield from ((inputs, first) for first in range(0, spec.elements, UNIT_ELEMENTS))

    def merge(unit: tuple[TensorInputs, int]) -> None:
        inputs, first = unit
        if (name := inputs.specs[0].name) in left:
            return
        width, count = inputs.specs[0].dtype.bits // 8, len(inputs.sources)
        out = memory[name][first * width : (first + UNIT_ELEMENTS) * width]
        blocks = getattr(local, "blocks", [])
        if len(blocks) < count:
            size = min(BLOCK_BYTES, BLOCK_BUDGET_BYTES // count // 4096 * 4096)
            blocks = local.blocks = [memoryview(bytearray(size)) for _ in range(count)]
        if inputs.merge_cached(blocks, first, out) * width < len(out):
            left.add(name)

    if memory:
        run_on_threads(merge, units(), default_threads())
    return {spec.name for spec in tensors} - left
