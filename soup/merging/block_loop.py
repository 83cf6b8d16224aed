"""The loop that all merging goes through: read a block of every input, blend it, hand it on. Out of core, on threads.

A leaf (`LEAF_ELEMENTS` elements of one tensor) is one unit of work. Leaves are independent, so that threads overlap
reading, adding and writing; what each holds is a few buffers, whatever the size of the model or the number of
ingredients. While a block is in the processor's cache it is hashed too, so that a merge knows what it read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import xxhash

from soup.checkpoints.digest import ByteProgress, ContentDigest, LeafDigests, leaves
from soup.checkpoints.dtypes import LEAF_ELEMENTS, TensorSpec
from soup.errors import PoolError
from soup.merging.block_arithmetic import Blend
from soup.merging.mean_kernel import COMPILED_MEAN
from soup.support.text import bullet_list
from soup.support.threads import default_threads, run_on_threads

if TYPE_CHECKING:
    import torch

__all__ = ["Options", "Sink", "for_each_block", "scan_blocks"]

Sink = Callable[[str, int, "torch.Tensor"], None]
"""Takes a block: the tensor's name, the place of its first element, the values [elements], valid for the call."""

BLOCK_BUDGET_BYTES = 32 * 2**20
"""What the inputs of one block may take in one thread; with many ingredients the blocks become smaller."""


@dataclass(frozen=True)
class Options:
    """How to go about a merge; none of it changes a byte of the result.

    `block_elements` is the most elements to hold of one tensor (default: what fits the budget), `threads` the number
    of threads, `progress` is called with the number of input bytes done since its last call.
    """

    block_elements: int | None = None
    threads: int | None = None
    progress: ByteProgress | None = None


@dataclass
class _Run:
    blend: Blend
    options: Options
    sink: Sink
    digests: tuple[LeafDigests, ...]
    local: threading.local = field(default_factory=threading.local)

    def buffers(self, sizes: Sequence[int]) -> list[memoryview]:
        """This thread's reusable buffers, one an input, cut to size."""
        held: list[bytearray] = getattr(self.local, "buffers", [])
        if not held or any(len(buffer) < size for buffer, size in zip(held, sizes, strict=True)):
            held = [bytearray(size) for size in sizes]
            self.local.buffers = held
        return [memoryview(buffer)[:size] for buffer, size in zip(held, sizes, strict=True)]


def for_each_block(
    blend: Blend, tensors: Sequence[TensorSpec], sink: Sink, options: Options | None = None, *, hashing: bool = False
) -> tuple[ContentDigest, ...]:
    """Blend `tensors` (specs of the first input) block by block into `sink`, which several threads call at once.

    With `hashing`, returns the content digest of each input.

    Raises:
        PoolError: NaN, infinity, overflow, or integer tensors that differ; all such tensors are listed.
        CheckpointError: a read failed.
    """
    digests = scan_blocks(blend, tensors, sink, options, hashing=hashing)
    if blend.wrong:
        rows = (f"{name}: {why}" for name, why in sorted(blend.wrong.items()))
        raise PoolError(f"{len(blend.wrong)} tensors can't be merged:\n{bullet_list(rows)}")
    return digests


def scan_blocks(
    blend: Blend, tensors: Sequence[TensorSpec], sink: Sink, options: Options | None = None, *, hashing: bool = False
) -> tuple[ContentDigest, ...]:
    """The same, but what can't be merged is left in `blend.wrong` for the caller to judge."""
    import torch

    options = options or Options()
    if blend.is_plain_mean:
        planned_bytes = len(blend.inputs) * sum(spec.bytes for spec in tensors if spec.dtype.name == "bfloat16")
        blend = replace(blend, mean_kernel=COMPILED_MEAN.kernel_for(planned_bytes))
    digests = tuple(LeafDigests(checkpoint) for checkpoint in blend.inputs) if hashing else ()
    run = _Run(blend, options, sink, digests)
    jobs = ((spec, start, count) for spec in tensors for start, count in _units(spec, blend))
    threads_before = torch.get_num_threads()
    try:
        count = options.threads or default_threads()
        run_on_threads(lambda job: _unit(run, *job), jobs, count, lambda: torch.set_num_threads(1))
    finally:
        torch.set_num_threads(threads_before)  # the workers' setting would be that of later threads
    return tuple(leaf_digests.close() for leaf_digests in digests)


def _units(spec: TensorSpec, blend: Blend) -> Iterator[tuple[int, int]]:
    if blend.method.granularity == "tensor" and spec.dtype.kind == "float":
        yield 0, spec.elements
    else:
        yield from leaves(spec)


def _unit(run: _Run, spec: TensorSpec, start: int, count: int) -> None:
    """One unit of work: every block of it read, hashed, blended and handed on."""
    specs = [checkpoint.tensors[spec.name] for checkpoint in run.blend.inputs]
    hashers = [_Hasher(digests, spec.name, start) for digests in run.digests]
    for first, here in _blocks(run, specs, start, count):
        views = _read(run, specs, first, here)
        for hasher, view, own in zip(hashers, views, specs, strict=False):
            hasher.update(view, own.dtype.bits // 8)
        run.sink(spec.name, first, run.blend(specs, views))
        if run.options.progress:
            run.options.progress(sum(map(len, views)))
    for hasher in hashers:
        hasher.close()


def _blocks(run: _Run, specs: Sequence[TensorSpec], start: int, count: int) -> Iterator[tuple[int, int]]:
    # What a block's inputs take: their own bytes, and their values in the dtype that they are added up in.
    each = sum(spec.dtype.bits // 8 + spec.dtype.accumulates_in.bits // 8 for spec in specs)
    step = min(run.options.block_elements or count, max(4096, BLOCK_BUDGET_BYTES // each))
    if run.blend.method.granularity == "tensor" and specs[0].dtype.kind == "float":
        step = count
    for first in range(start, start + count, max(step, 1)):
        yield first, min(step, start + count - first)


def _read(run: _Run, specs: Sequence[TensorSpec], first: int, count: int) -> list[memoryview]:
    widths = [spec.dtype.bits // 8 for spec in specs]
    views = run.buffers([count * width for width in widths])
    # What the page cache has comes at once. For the rest, every disk read is under way before the first is waited for.
    places = [(c, specs[0].name, first * w, view) for c, w, view in zip(run.blend.inputs, widths, views, strict=True)]
    missing = [
        (checkpoint, name, start + done, view[done:])
        for checkpoint, name, start, view in places
        if (done := checkpoint.read_cached(name, start, view)) < len(view)
    ]
    for checkpoint, name, start, view in missing:
        checkpoint.expect(name, start, len(view))
    for checkpoint, name, start, view in missing:
        checkpoint.read_into(name, start, view)
    return views


class _Hasher:
    """Hashes one input's bytes of a unit as its blocks come by; the unit of a whole tensor has many leaves."""

    def __init__(self, digests: LeafDigests, name: str, start: int) -> None:
        self._digests, self._name, self._start = digests, name, start
        self._hash, self._filled = xxhash.xxh3_128(), 0

    def update(self, view: memoryview, width: int) -> None:
        """Take the next block of elements of `width` bytes."""
        while len(view) > (room := LEAF_ELEMENTS * width - self._filled):
            self._hash.update(view[:room])
            view = view[room:]
            self.close()
            self._start += LEAF_ELEMENTS
            self._hash, self._filled = xxhash.xxh3_128(), 0
        self._hash.update(view)
        self._filled += len(view)

    def close(self) -> None:
        """The leaf is complete."""
        self._digests.put(self._name, self._start, self._hash.digest())
