"""The loop that all merging goes through: read a block of every input, merge it, pass it on. Out of core, on threads.

A leaf (`LEAF_ELEMENTS` elements of one tensor) is one unit of work. Leaves are independent, so that threads overlap
reading, adding and writing; what each holds is a few buffers, whatever the size of the model or the number of
ingredients. While a block is in the processor's cache it is hashed too, so that a merge knows what it read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import xxhash

from soup.checkpoints.digest import ByteProgress, ContentDigest, LeafDigests, close_digests, leaves
from soup.checkpoints.dtypes import LEAF_ELEMENTS, TensorSpec
from soup.checkpoints.problem import Problem
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.writer import view_bytes
from soup.errors import PoolError
from soup.merging.block_arithmetic import Blend
from soup.merging.scratch import Scratch
from soup.merging.tensor_inputs import TensorInputs, blame, stored_checkpoints, takes_whole, tensor_inputs
from soup.support.text import bullet_list, pluralize
from soup.support.threads import default_threads, run_on_threads
from soup.support.torch_threads import single_threaded_torch

__all__ = ["Options", "ScanResult", "Sink", "for_each_block", "scan_blocks", "thread_bytes"]

Sink = Callable[[str, int, memoryview], None]
"""Takes a block: the tensor's name, the index of its first element, the bytes of its values, valid for the call."""

BLOCK_BUDGET_BYTES = 32 * 2**20
"""The most memory for the inputs of one block in one thread; with many ingredients the blocks become smaller."""

HELD_TENSORS, UNITS_AHEAD = 4, 4
"""How many tensors' factors are in memory, for adapters; by how many units the next one begins before one ends."""

_Unit = tuple[TensorSpec, int, int]
"""A tensor, the first of some of its elements, and how many they are."""


@dataclass(frozen=True)
class Options:
    """How the loop runs; nothing here changes a byte of the result.

    Args:
        block_elements: The most elements of one tensor in a block (default: what fits `BLOCK_BUDGET_BYTES`).
        threads: The number of threads (default: `default_threads`).
        progress: Called with the number of input bytes done since its last call.
    """

    block_elements: int | None = None
    threads: int | None = None
    progress: ByteProgress | None = None


class ScanResult(NamedTuple):
    """What a pass over the inputs found: each input's digest if asked for, and why tensors can't be merged, by name."""

    digests: tuple[ContentDigest, ...]
    rejections: dict[str, Problem]


@dataclass
class _Loop:
    """One pass over the inputs: what all its threads share, and each thread's buffers."""

    blend: Blend
    options: Options
    sink: Sink
    digests: dict[Checkpoint, LeafDigests]
    prepare_torch: Callable[[], None]
    result: LeafDigests | None
    rejections: dict[str, Problem] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    scratch: Scratch = field(default_factory=Scratch)
    held: dict[str, TensorInputs] = field(default_factory=dict)

    def knows(self, name: str, reason: Problem) -> bool:
        """Whether there is a reason already why tensor `name` can't be merged, and one as good.

        An ingredient's NaN may make NaN of other blocks: then it is the reason.
        """
        known = self.rejections.get(name)
        return known is not None and (known.kind, reason.kind) != ("overflow", "nonfinite")

    def reject(self, name: str, reason: Problem) -> None:
        """Keep the first reason why tensor `name` can't be merged, or a better one."""
        with self.lock:
            if not self.knows(name, reason):
                self.rejections[name] = reason

    def inputs_of(self, name: str) -> TensorInputs:
        """Plan how a tensor is read; the plans of the last few are held, for all leaves share their factors."""
        with self.lock:
            if name not in self.held:
                while len(self.held) >= HELD_TENSORS:
                    del self.held[next(iter(self.held))]
                self.held[name] = tensor_inputs(self.blend, name)
            return self.held[name]


def for_each_block(
    blend: Blend,
    tensors: Sequence[TensorSpec],
    sink: Sink,
    options: Options | None = None,
    *,
    hashing: bool = False,
    known: Mapping[Checkpoint, ContentDigest] = MappingProxyType({}),
    result: LeafDigests | None = None,
) -> tuple[ContentDigest, ...]:
    """Merge `tensors` block by block into `sink`.

    Args:
        blend: How a block is merged, and from which inputs.
        tensors: The tensors to merge, as the first input has them.
        sink: Takes the blocks, in any order; several threads call it at once.
        options: Block size, threads and progress.
        hashing: Whether to digest the inputs on the way.
        known: Those whose digests are known, from a pass before.
        result: Takes the digests of what goes into `sink`.

    Returns:
        With `hashing` the content digest of each input, and then of the base if it is only adapters that read it;
        else nothing.

    Raises:
        PoolError: NaN, infinity, overflow, or integer tensors that differ; all such tensors are listed.
        CheckpointError: A read failed.
    """
    digests, rejections = scan_blocks(blend, tensors, sink, options, hashing=hashing, known=known, result=result)
    if rejections:
        lines = (str(rejections[name]) for name in sorted(rejections))
        raise PoolError(f"{pluralize(len(rejections), 'tensor')} can't be merged:\n{bullet_list(lines)}")
    return digests


def scan_blocks(
    blend: Blend,
    tensors: Sequence[TensorSpec],
    sink: Sink,
    options: Options | None = None,
    *,
    hashing: bool = False,
    known: Mapping[Checkpoint, ContentDigest] = MappingProxyType({}),
    result: LeafDigests | None = None,
) -> ScanResult:
    """Do as `for_each_block` does, but return what can't be merged instead of raising it.

    Raises:
        CheckpointError: A read failed.
    """
    options = options or Options()
    stored = list(stored_checkpoints(blend)) if hashing else []
    digests = {part: LeafDigests(part.tensors, part.facts) for part in stored if part not in known}
    units = _all_units(blend, tensors)
    with single_threaded_torch() as prepare:
        loop = _Loop(blend, options, sink, digests, prepare, result)
        run_on_threads(lambda unit: _merge_unit(loop, *unit), units, options.threads or default_threads())
    closed = {**known, **{part: close_digests(part, leaf_digests) for part, leaf_digests in digests.items()}}
    return ScanResult(tuple(closed[checkpoint] for checkpoint in stored), loop.rejections)


def thread_bytes(blend: Blend, tensors: Sequence[TensorSpec]) -> int:
    """Return the most memory that a thread takes for a block: the inputs, and six times the values that are merged.

    As measured: sum, summand, result, what inputs that agree are held against, and what lies idle between them.
    """

    def block_bytes(spec: TensorSpec) -> int:
        specs = [checkpoint.tensors[spec.name] for checkpoint in blend.inputs]
        accumulated = (
            6 * max(each.dtype.accumulates_in.bits // 8 for each in specs) if spec.dtype.kind == "float" else 0
        )
        if takes_whole(blend, spec):
            return spec.elements * (_element_bytes(specs) + accumulated)
        return min(BLOCK_BUDGET_BYTES, LEAF_ELEMENTS * _element_bytes(specs)) + LEAF_ELEMENTS * accumulated

    return max(map(block_bytes, tensors))


def _all_units(blend: Blend, tensors: Sequence[TensorSpec]) -> Iterator[_Unit]:
    """Yield the units of work: the leaves of each tensor, or the whole tensor.

    A tensor's first unit comes before the last few of the tensor before it: the thread that does it reads and cuts the
    factors of adapters, for which others would have to wait.
    """
    last: list[_Unit] = []
    for spec in tensors:
        pieces = [(0, spec.elements)] if takes_whole(blend, spec) else leaves(spec)
        first, *others = ((spec, start, count) for start, count in pieces)
        ahead = max(0, len(others) - UNITS_AHEAD)
        yield from (first, *last, *others[:ahead])
        last = others[ahead:]
    yield from last


def _merge_unit(loop: _Loop, spec: TensorSpec, start: int, count: int) -> None:
    """Do one unit of work: read, hash, merge and pass on every block of it."""
    inputs = loop.inputs_of(spec.name)
    hashers = {
        number: _LeafHasher(loop.digests[source.checkpoint], source.spec.name, start)
        for number, source in enumerate(inputs.sources)
        if source.checkpoint in loop.digests
    }
    output_hasher = _LeafHasher(loop.result, spec.name, start) if loop.result else None
    for first, elements in _blocks(loop, inputs, start, count):
        widths = [spec.dtype.bits // 8 for spec in (*(source.spec for source in inputs.sources), inputs.specs[0])]
        *views, out = loop.scratch.buffers([elements * width for width in widths])
        is_merged = elements > 0 and inputs.merge_cached(views, first, out) == elements
        if not is_merged:
            inputs.read(views, first)
        for number, hasher in hashers.items():
            hasher.update(views[number], widths[number])
        if is_merged:
            merged = out
        else:
            merged = inputs.merge_bytes(views, first, out) or _merge_in_torch(loop, inputs, views, first)
        if output_hasher:
            output_hasher.update(merged, len(merged) // max(elements, 1))
        loop.sink(spec.name, first, merged)
        if loop.options.progress:
            loop.options.progress(sum(map(len, views)))
    for hasher in (*hashers.values(), *([output_hasher] if output_hasher else [])):
        hasher.close()


def _merge_in_torch(loop: _Loop, inputs: TensorInputs, views: Sequence[memoryview], first: int) -> memoryview:
    """Merge a block by the method's own operations; a reason why its tensor can't be merged is kept."""
    loop.prepare_torch()
    values, rejection = inputs.blend(inputs.specs, inputs.values(views, first, loop.scratch), first)
    if rejection is not None and not loop.knows(name := inputs.specs[0].name, rejection):
        loop.reject(name, blame(loop.blend, name, rejection))
    return view_bytes(values)


def _blocks(loop: _Loop, inputs: TensorInputs, start: int, count: int) -> Iterator[tuple[int, int]]:
    """Cut a unit into blocks that fit the budget; yields their (first element, number of elements)."""
    step = min(loop.options.block_elements or count, max(4096, BLOCK_BUDGET_BYTES // inputs.element_bytes))
    if takes_whole(loop.blend, inputs.specs[0]):
        step = count
    for first in range(start, start + count, max(step, 1)):
        yield first, min(step, start + count - first)


def _element_bytes(specs: Sequence[TensorSpec]) -> int:
    """Return what an element of the inputs takes: its own bytes, and its value in the dtype that it is added up in."""
    return sum(spec.dtype.bits // 8 + spec.dtype.accumulates_in.bits // 8 for spec in specs)


class _LeafHasher:
    """Hashes the bytes of one input, block after block of a unit; the unit of a whole tensor has many leaves."""

    def __init__(self, digests: LeafDigests, name: str, start: int) -> None:
        self._digests, self._name, self._start = digests, name, start
        self._hash, self._filled = xxhash.xxh3_128(), 0

    def update(self, view: memoryview, width: int) -> None:
        """Take the next block of elements of `width` bytes."""
        while len(view) > (missing := LEAF_ELEMENTS * width - self._filled):
            self._hash.update(view[:missing])
            view = view[missing:]
            self.close()
            self._start += LEAF_ELEMENTS
            self._hash, self._filled = xxhash.xxh3_128(), 0
        self._hash.update(view)
        self._filled += len(view)

    def close(self) -> None:
        """Store the digest of the leaf: it is complete."""
        self._digests.put(self._name, self._start, self._hash.digest())
