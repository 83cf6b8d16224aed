"""How one tensor's inputs are read: each file once, whatever number of adapters stand on it.

A whole model's block is its bytes. An adapter's is the base's block plus rows of a product. Under the mean, adapters on
the same base are one input: the base plus one product of all their factors, which costs one pass. So they are by a
method that merges products into a product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from soup.checkpoints.adapted import is_adapted
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.problem import Problem
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.shard import FilePlace
from soup.merging.block_arithmetic import Blend
from soup.merging.compiled import Arithmetic, merge_block, merge_cached, read_cached, same_bytes
from soup.merging.compiled_products import MeanBlock
from soup.merging.dora import Dora
from soup.merging.low_rank import Product, is_finite
from soup.merging.methods.linear import Linear
from soup.merging.scratch import Scratch
from soup.merging.stacked_products import StackedProducts
from soup.merging.token_rows import TokenRows

if TYPE_CHECKING:
    import torch

__all__ = ["Source", "TensorInputs", "blame", "is_low_rank", "stored_checkpoints", "takes_whole", "tensor_inputs"]


class Source(NamedTuple):
    """A tensor in the files of a checkpoint."""

    checkpoint: Checkpoint
    spec: TensorSpec


class _Term(NamedTuple):
    """One input of the method: a source by its number, and what is added to it."""

    source: int
    product: Product | StackedProducts | Dora | TokenRows | None


@dataclass(frozen=True)
class TensorInputs:
    """The inputs of one tensor.

    Args:
        blend: The arithmetic, with adapters that were joined as one input.
        specs: The tensor's spec in each input of `blend`.
        sources: What is read.
        terms: What each input is made of.
    """

    blend: Blend
    specs: tuple[TensorSpec, ...]
    sources: tuple[Source, ...]
    terms: tuple[_Term, ...]

    @property
    def element_bytes(self) -> int:
        """What an element takes: its bytes in each source, its sum with a product, its value while it is added up."""
        read = sum(source.spec.dtype.bits // 8 for source in self.sources)
        summed = sum(8 for term in self.terms if term.product)
        return read + summed + sum(spec.dtype.accumulates_in.bits // 8 for spec in self.specs)

    @cached_property
    def arithmetic(self) -> Arithmetic | None:
        """What is done with the tensor's blocks; None where the method can't say."""
        return self.blend.arithmetic(self.specs)

    @cached_property
    def are_stored(self) -> bool:
        """Whether the inputs are bytes of files: no adapter adds to them, or holds them in another dtype."""
        return not any(term.product for term in self.terms) and all(
            self.sources[term.source].spec.dtype == spec.dtype
            for term, spec in zip(self.terms, self.specs, strict=True)
        )

    @cached_property
    def mean_of_product(self) -> int | None:
        """The number of the input that has a product, where the result is their mean and no other has one.

        None: in torch.
        """
        numbers = [number for number, term in enumerate(self.terms) if term.product]
        kinds = {self.sources[term.source].spec.dtype for term in self.terms} | {spec.dtype for spec in self.specs}
        if len(numbers) != 1 or len(kinds) != 1 or self.specs[0].dtype.bits not in (16, 32):
            return None
        is_mean = self.arithmetic is not None and self.arithmetic.form in ("mean", "sum")
        is_product = isinstance(self.terms[numbers[0]].product, Product | StackedProducts)
        return numbers[0] if is_mean and is_product else None

    def merge_bytes(self, views: Sequence[memoryview], first: int, out: memoryview) -> memoryview | None:
        """Merge a block without torch: by a compiled pass, or by a copy where all inputs are equal.

        Args:
            views: The block's bytes in each source.
            first: The index of its first element.
            out: Memory for the result.

        Returns:
            The result's bytes, in `out` or one of the views; None where torch has to do it.
        """
        inputs = [views[term.source] for term in self.terms]
        if self.mean_of_product is not None:
            return out if out and self._add_product(self.mean_of_product, inputs, first, out) else None
        if not self.are_stored:
            return None
        if self.specs[0].dtype.kind != "float":
            return inputs[0] if len({*self.specs}) == 1 and same_bytes(inputs) else None
        name, dtype = self.specs[0].name, self.specs[0].dtype
        alike = all(spec.dtype == dtype for spec in self.specs)
        if alike and self.blend.method.take_bytes(name, dtype, inputs, first):
            return inputs[0]
        done = merge_block(self.arithmetic, dtype, inputs, first, out)
        return None if done == "left" else out if done == "merged" else inputs[0]

    @cached_property
    def places(self) -> tuple[FilePlace, ...]:
        """Where the tensor begins in the file of each source."""
        return tuple(source.checkpoint.place_of(source.spec.name) for source in self.sources)

    def read(self, views: Sequence[memoryview], first: int) -> None:
        """Read a block of every source.

        What the page cache has comes at once. For the rest, all reads of disks are under way before one is waited for.

        Args:
            views: The memory, of the blocks' sizes.
            first: The index of the first element.

        Raises:
            CheckpointError: A file ends too early, or the disk failed.
        """
        starts = [first * source.spec.dtype.bits // 8 for source in self.sources]
        try:
            done = read_cached([place.moved(start) for place, start in zip(self.places, starts, strict=True)], views)
        except OSError:  # reading it in the other way tells what is wrong
            done = [0] * len(views)
        missing = [
            (source, start + count, view[count:])
            for source, start, count, view in zip(self.sources, starts, done, views, strict=True)
            if count < len(view)
        ]
        for source, start, view in missing:
            source.checkpoint.expect(source.spec.name, start, len(view))
        for source, start, view in missing:
            source.checkpoint.read_into(source.spec.name, start, view)

    def merge_cached(self, views: Sequence[memoryview], first: int, out: memoryview) -> int:
        """Read elements and merge them in one compiled call, block by block, as far as the page cache has them.

        Args:
            views: Memory for a block of each source.
            first: The index of the first element.
            out: Memory for the result.

        Returns:
            How many elements are in `out`; the next ones are to be read, and to be merged by `merge_bytes`.
        """
        if not out or not self.are_stored or self.arithmetic is None:
            return 0
        blocks = [views[term.source] for term in self.terms]
        places = [self.places[term.source] for term in self.terms]
        try:
            return merge_cached(self.arithmetic, self.specs[0].dtype, places, blocks, first, out)
        except OSError:  # reading it in the other way tells what is wrong
            return 0

    def _add_product(self, number: int, inputs: Sequence[memoryview], first: int, out: memoryview) -> bool:
        product, arithmetic = self.terms[number].product, self.arithmetic
        assert isinstance(product, Product | StackedProducts), "such is the input of that number"
        assert arithmetic is not None, "it is a mean"
        is_sum = arithmetic.form == "sum"
        weights, divisor = (arithmetic.weights, arithmetic.divisor) if is_sum else ((), float(len(inputs)))
        return product.add_to_bytes(self.specs[0].dtype, MeanBlock(inputs, number, weights, divisor), first, out)

    def values(self, views: Sequence[memoryview], first: int, scratch: Scratch) -> list[torch.Tensor]:
        """Make each input's values of a block, [elements].

        Args:
            views: The block's bytes in each source.
            first: The index of its first element.
            scratch: Lends memory for sums.
        """
        import torch

        raw = [
            torch.frombuffer(view, dtype=source.spec.dtype.torch)
            for view, source in zip(views, self.sources, strict=True)
        ]
        return [
            raw[term.source]
            if term.product is None
            else term.product.add_to(raw[term.source], first, 2 * slot, scratch)
            for slot, term in enumerate(self.terms)
        ]


def takes_whole(blend: Blend, spec: TensorSpec) -> bool:
    """Whether a tensor is merged as a whole, and not by slices."""
    return blend.takes_whole(spec) and not is_low_rank(blend, spec)


def is_low_rank(blend: Blend, spec: TensorSpec) -> bool:
    """Whether the method merges what adapters add to one base as a product."""
    name = spec.name
    if spec.dtype.kind != "float" or not blend.method.takes_low_rank(name, spec.shape):
        return False
    adapted = [checkpoint for checkpoint in blend.inputs[: len(blend.weights)] if is_adapted(checkpoint)]
    deltas = [delta for checkpoint in adapted for delta in checkpoint.deltas_of(name)]
    return (
        len(adapted) == len(blend.weights)
        and len({checkpoint.source_of(name) for checkpoint in blend.inputs}) == 1
        and bool(deltas)
        and all(delta.is_sum and delta.index is None for delta in deltas)
    )


def tensor_inputs(blend: Blend, name: str) -> TensorInputs:
    """Plan how the inputs of tensor `name` are read."""
    spec = blend.inputs[0].tensors[name]
    if is_low_rank(blend, spec):
        return _merged_products(blend, spec)
    sources: dict[tuple[Checkpoint, str], int] = {}
    numbers = [sources.setdefault(checkpoint.source_of(name), len(sources)) for checkpoint in blend.inputs]
    terms, weights, names, specs = [], [], [], []
    count = len(blend.weights)
    for members in _groups(blend, name, numbers):
        spec = blend.inputs[members[0]].tensors[name]
        shares = [blend.weights[i] if i < count else 1.0 for i in members]
        terms.append(_Term(numbers[members[0]], _product(blend, name, members, shares, spec)))
        specs.append(spec)
        names.append(", ".join(blend.names[i] for i in members))
        if members[0] < count:
            weights.append(math.fsum(shares))
    if len(terms) < len(blend.inputs):
        blend = replace(blend, names=tuple(names), weights=tuple(weights))
    read = tuple(Source(checkpoint, checkpoint.tensors[stored_as]) for checkpoint, stored_as in sources)
    return TensorInputs(blend, tuple(specs), read, tuple(terms))


def _merged_products(blend: Blend, spec: TensorSpec) -> TensorInputs:
    """Plan a tensor that becomes the base plus one product, which the method makes of the adapters'."""
    adapted = [checkpoint for checkpoint in blend.inputs if is_adapted(checkpoint)]
    groups = [checkpoint.deltas_of(spec.name) for checkpoint in adapted]
    product = Product(groups, blend.weights, _bits(blend, spec), blend.method.merge_low_rank)
    checkpoint, stored_as = adapted[0].source_of(spec.name)
    sole = replace(blend, method=Linear(), inputs=blend.inputs[:1], names=(", ".join(blend.names),), weights=(1.0,))
    source = Source(checkpoint, checkpoint.tensors[stored_as])
    return TensorInputs(sole, (spec,), (source,), (_Term(0, product),))


def blame(blend: Blend, name: str, problem: Problem) -> Problem:
    """Name the adapters whose factors are not finite, of those that were joined where a tensor is not."""
    if problem.kind != "nonfinite":
        return problem
    factors = {
        label: [factor for delta in checkpoint.deltas_of(name) for factor in delta.factors]
        for label, checkpoint in zip(blend.names, blend.inputs, strict=True)
        if is_adapted(checkpoint) and checkpoint.deltas_of(name)
    }
    bad = {label for label, parts in factors.items() if not all(map(is_finite, parts))}
    base = blend.names[len(blend.weights) :] if is_low_rank(blend, blend.inputs[0].tensors[name]) else ()
    joined = {*factors, *base}
    labels = [label for label in problem.ingredient.split(", ") if not bad or label not in joined or label in bad]
    return replace(problem, ingredient=", ".join(labels))


def stored_checkpoints(blend: Blend) -> Iterator[Checkpoint]:
    """Yield the checkpoints whose files the inputs are made of: each input's own, then a base that adapters read."""
    stored = [checkpoint.stored for checkpoint in blend.inputs]
    yield from stored
    bases = {checkpoint.base.stored for checkpoint in blend.inputs if is_adapted(checkpoint)}
    yield from bases - set(stored)


def _groups(blend: Blend, name: str, source_numbers: Sequence[int]) -> list[list[int]]:
    """Group the inputs by their own numbers: adapters on one source that are joined, and all others alone.

    Where no adapter adds anything, sums of the plain values stay: in them a tie is a tie, and is rounded to even.
    """
    changed = any(is_adapted(checkpoint) and checkpoint.deltas_of(name) for checkpoint in blend.inputs)
    joined = changed and type(blend.method) is Linear and not blend.method.components
    groups: dict[tuple[int, int], list[int]] = {}
    for i, checkpoint in enumerate(blend.inputs):
        joins = joined and is_adapted(checkpoint) and all(delta.is_sum for delta in checkpoint.deltas_of(name))
        groups.setdefault((source_numbers[i], -1 if joins else i), []).append(i)
    split = []
    for members in groups.values():
        weights = [blend.weights[i] for i in members] if len(members) > 1 else []
        cancel = abs(math.fsum(weights)) < 1e-6 * math.fsum(map(abs, weights))
        split += [[i] for i in members] if cancel else [members]
    return split


def _product(
    blend: Blend, name: str, members: Sequence[int], shares: Sequence[float], spec: TensorSpec
) -> Product | StackedProducts | Dora | TokenRows | None:
    """Return the mean of what the members add, by their shares; None where none of them adds anything."""
    total = math.fsum(shares)
    groups, weights = [], []
    for i, share in zip(members, shares, strict=True):
        checkpoint = blend.inputs[i]
        deltas = checkpoint.deltas_of(name) if is_adapted(checkpoint) else ()
        if deltas and deltas[0].tokens:
            return TokenRows(deltas[0])
        if deltas and deltas[0].magnitude:
            source, stored_as = checkpoint.source_of(name)
            return Dora(deltas[0], source, source.tensors[stored_as])
        groups.append(deltas)
        weights.append(share / total if len(members) > 1 else 1.0)
    if any(delta.index is not None for group in groups for delta in group):
        return StackedProducts(groups, weights, _bits(blend, spec), spec.elements // spec.shape[0])
    return Product(groups, weights, _bits(blend, spec)) if any(groups) else None


def _bits(blend: Blend, spec: TensorSpec) -> int:
    return max(spec.dtype.bits, spec.cast(blend.dtype).dtype.bits)
