"""One block's arithmetic, around the method, in torch: equal bytes are copied, other values are merged, rounded once.

The contract (each line has its tests): 16-bit inputs are added up in float32, the others in float64, in recipe order,
and cast once. Where all inputs hold the same bits those bits stay. An element of the result depends on the same element
of the inputs alone, so that the size of blocks changes no byte. What can't be merged comes back with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from soup.checkpoints.dtypes import Dtype, TensorSpec
from soup.checkpoints.problem import Problem
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.tensor_names import is_counter
from soup.checkpoints.writer import view_bytes
from soup.errors import RecipeError
from soup.hf.places import Place, places_of
from soup.merging.compiled import Arithmetic
from soup.merging.integer_tensors import not_averaged
from soup.merging.methods.base import Block, MergedTensor, Method
from soup.merging.scratch import Scratch
from soup.support.options import option_name

if TYPE_CHECKING:
    import torch

__all__ = ["Blend", "BlendResult"]


class BlendResult(NamedTuple):
    """One merged block: its values [elements], and the reason why its tensor can't be merged (None: it can)."""

    values: torch.Tensor
    rejection: Problem | None = None


@dataclass(frozen=True)
class Blend:
    """How blocks are merged; a call merges one.

    Args:
        method: The arithmetic.
        inputs: The open checkpoints, in recipe order; the base, if the method reads one, comes last.
        names: A short name for each input, for the reasons of rejections.
        weights: A weight for each input but the base.
        dtype: The dtype of the result; None keeps the inputs'.
        allow_nonfinite: Whether NaN, infinity and overflow are merged instead of rejected.
        digests: The digests of the ingredients' weights, where the method needs them.
        constants: What the method's `prepare` returned; see `prepared`.
    """

    method: Method
    inputs: tuple[Checkpoint, ...]
    names: tuple[str, ...]
    weights: tuple[float, ...]
    dtype: Dtype | None = None
    allow_nonfinite: bool = False
    digests: tuple[str, ...] = ()
    constants: Any = None
    _scratch: Scratch = field(default_factory=Scratch, repr=False, compare=False)

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """Where the tensors stand in the model, for a method that uses it."""
        return places_of(self.inputs[0].tensors) if self.method.uses_places else {}

    def takes_whole(self, spec: TensorSpec) -> bool:
        """Whether the method merges this tensor as a whole, and not by slices."""
        return spec.dtype.kind == "float" and self.method.granularity_of(spec.name, spec.shape) == "tensor"

    def arithmetic(self, specs: Sequence[TensorSpec]) -> Arithmetic | None:
        """Return what is done with the blocks of a tensor, if a compiled pass may do it: no cast, and one dtype.

        Args:
            specs: The tensor's spec in each input.
        """
        if "arithmetic" not in vars(type(self.method)):  # a subclass may do something else
            return None
        alike = all(spec.dtype == specs[0].dtype for spec in specs)
        if specs[0].dtype.kind != "float" or not alike or specs[0].cast(self.dtype) != specs[0]:
            return None
        if self.takes_whole(specs[0]):
            return None
        arithmetic = self.method.arithmetic(self._tensor(specs[0].name))
        accumulates = specs[0].dtype == specs[0].dtype.accumulates_in  # then no cast sees to it that equals stay
        return replace(arithmetic, keep_equal=True) if arithmetic and accumulates else arithmetic

    def _tensor(self, name: str) -> MergedTensor:
        return MergedTensor(
            name, self.weights, place=self.places.get(name), digests=self.digests, constants=self.constants
        )

    def block(self, specs: Sequence[TensorSpec], raw: Sequence[torch.Tensor], first: int) -> Block:
        """Return the method's view of a block of a floating tensor; see `__call__` for the arguments."""
        accumulate = max((spec.dtype.accumulates_in for spec in specs), key=lambda dtype: dtype.bits)
        return self._block(raw, specs[0].cast(self.dtype), accumulate.torch, first)

    def __call__(self, specs: Sequence[TensorSpec], raw: Sequence[torch.Tensor], first: int = 0) -> BlendResult:
        """Merge one block.

        Args:
            specs: The tensor's spec in each input, in the order of `inputs`.
            raw: The block's values in each input, [elements], at least one; in the spec's dtype, or in a wider one
                where an adapter adds to them, so that they are rounded once.
            first: The index of the block's first element in its tensor.

        Returns:
            Values in memory that this thread's next block uses again, and what speaks against merging them.
        """
        if specs[0].dtype.kind != "float":
            return self._copied(specs[0], raw[: len(self.weights)])  # whatever the base has
        alike = all(spec.dtype == specs[0].dtype for spec in specs) and all(v.dtype == raw[0].dtype for v in raw)
        # Trained weights differ from the first element on: comparing the heads spares a comparison of all.
        heads = {bytes(view_bytes(values[:32])) for values in raw} if alike else set()
        equal = len(heads) == 1 and all(other is raw[0] or _same_bytes(raw[0], other) for other in raw[1:])
        target = specs[0].cast(self.dtype)
        if equal and target == specs[0] and raw[0].dtype == target.dtype.torch:
            return BlendResult(raw[0], None if _finite(raw[0]) else self._nonfinite(target, raw))
        accumulate = max((spec.dtype.accumulates_in for spec in specs), key=lambda dtype: dtype.bits)
        return self._floats(raw, target, accumulate, first, bits_may_stay=alike and target == specs[0])

    def _floats(
        self, raw: Sequence[torch.Tensor], target: TensorSpec, accumulate: Dtype, first: int, *, bits_may_stay: bool
    ) -> BlendResult:
        """Merge floating values by the method; `bits_may_stay` where all inputs and the result have one dtype."""
        import torch

        block = self._block(raw, target, accumulate.torch, first)
        values = self._call(block)
        # A mean of equal weights is no larger than its largest term: a finite sum shows that all are, at half the cost.
        # What an adapter adds to may be larger than the dtype that it is rounded to.
        mean = bits_may_stay and self.method.keeps_equal(self.weights)
        bounded = mean and raw[0].dtype == target.dtype.torch
        largest = 0.0 if bounded and math.isfinite(values.sum().item()) else _largest(values)
        finite = largest <= torch.finfo(accumulate.torch).max
        rejection = None if finite else self._nonfinite(target, raw)
        if not finite:
            values = self._rescue(block, values)
        flat = values.reshape(-1)
        result = self._scratch.like(target.dtype.torch, -1, flat).copy_(flat)
        # Where all inputs agree their bits stay. Mostly the cast sees to it; in these cases it might not.
        doubtful = not finite or target.dtype == accumulate or not mean
        if bits_may_stay and doubtful:
            result = torch.where(_agree(raw), raw[0].to(result.dtype), result)
        if not largest <= torch.finfo(target.dtype.torch).max and not torch.isfinite(result).all():
            rejection = rejection or self._overflow(target, result)
        return BlendResult(result, rejection)

    def _block(self, raw: Sequence[torch.Tensor], target: TensorSpec, dtype: torch.dtype, first: int) -> Block:
        shape = target.shape if self.takes_whole(target) else (-1,)
        shaped = tuple(values.reshape(shape) for values in raw)
        count = len(self.weights)
        base = shaped[count] if len(shaped) > count else None
        return Block(
            target.name,
            self.weights,
            shaped[:count],
            dtype,
            base,
            first,
            lend=partial(self._scratch.like, dtype),
            place=self.places.get(target.name),
            digests=self.digests,
            constants=self.constants,
        )

    def _call(self, block: Block) -> torch.Tensor:
        """Call the method, and check that it keeps to shape and dtype."""
        values = self.method(block)
        expected = (tuple(block.raw[0].shape), block.accumulate_in)
        if (tuple(values.shape), values.dtype) != expected:
            raise RecipeError(
                f"{type(self.method).__name__} on {block.tensor_name}: expected a tensor of shape and dtype "
                f"{expected}, found {(tuple(values.shape), values.dtype)}."
            )
        return values

    def _rescue(self, block: Block, values: torch.Tensor) -> torch.Tensor:
        """Merge again in float64 where finite inputs overflowed float32 on the way (3e38 + 3e38 in bfloat16)."""
        import torch

        if block.accumulate_in == torch.float64:
            return values
        finite = torch.stack([torch.isfinite(raw) for raw in block.raw]).all(dim=0)
        wide = self._call(replace(block, accumulate_in=torch.float64))
        return torch.where(finite & ~torch.isfinite(values), wide, values.double())

    def _nonfinite(self, spec: TensorSpec, raw: Sequence[torch.Tensor]) -> Problem | None:
        """Name the inputs that hold NaN or infinity; None where there is none, or they are allowed."""
        bad = [name for name, values in zip(self.names, raw, strict=True) if not _finite(values)]
        if not bad or self.allow_nonfinite:
            return None
        cure = f"{option_name('allow_nonfinite')} merges them all the same"
        return Problem("nonfinite", "NaN or infinity", ", ".join(bad), (spec.name,), cure=cure)

    def _overflow(self, target: TensorSpec, result: torch.Tensor) -> Problem | None:
        if self.allow_nonfinite:
            return None
        if result.isnan().any():
            why, cure = f"{type(self.method).__name__} makes NaN of finite values", ""
        else:
            why, cure = (
                f"the result is too large for {target.dtype.name}",
                f"A wider {option_name('dtype')} may hold it",
            )
        single = self.names[0] if len(self.names) == 1 else ""
        return Problem("overflow", why, single, (target.name,), cure=cure)

    def _copied(self, spec: TensorSpec, raw: Sequence[torch.Tensor]) -> BlendResult:
        """Copy the first ingredient's whole numbers, which are the others', too, unless they count something."""
        others = [
            name for name, values in zip(self.names, raw, strict=False) if not _same_bytes(raw[0], values)
        ]  # the names go on with the base's
        mergeable = not others or is_counter(spec)
        return BlendResult(raw[0], None if mergeable else not_averaged(spec, self.names[0], others))


def _same_bytes(left: torch.Tensor, right: torch.Tensor) -> bool:
    import torch

    # Eight bytes at a time where the length allows; torch.equal stops at the first that differs.
    word = torch.int64 if left.numel() * left.element_size() % 8 == 0 else torch.uint8
    return torch.equal(left.view(torch.uint8).view(word), right.view(torch.uint8).view(word))


def _agree(raw: Sequence[torch.Tensor]) -> torch.Tensor:
    """Compare the inputs bit by bit: where all are the same, [elements] of bool."""
    import torch

    word = {2: torch.int16, 4: torch.int32, 8: torch.int64}[raw[0].element_size()]
    first, *others = (values.view(word) for values in raw)
    agree = torch.ones_like(first, dtype=torch.bool)
    for other in others:
        agree &= first == other
    return agree


def _largest(values: torch.Tensor) -> float:
    """Find the largest absolute value in a single pass; NaN where there is one."""
    import torch

    low, high = torch.aminmax(values)
    return max(-low.item(), high.item())


def _finite(values: torch.Tensor) -> bool:
    import torch

    return _largest(values) <= torch.finfo(values.dtype).max
