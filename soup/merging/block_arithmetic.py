"""One block's arithmetic, around the method: equal bytes are copied, the sum is rounded once, what can't be is said.

The contract (each line has its tests): 16-bit inputs are added up in float32, the others in float64, in recipe order,
and cast once. Where all inputs hold the same bits those bits stay. A result at one place depends on the inputs at
that place alone, so that the size of blocks changes no byte.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from soup.checkpoints.dtypes import Dtype, TensorSpec
from soup.checkpoints.reader import Checkpoint
from soup.errors import RecipeError
from soup.merging.mean_kernel import MeanKernel
from soup.merging.methods.base import Block, Method
from soup.merging.methods.linear import Linear

if TYPE_CHECKING:
    import torch

__all__ = ["Blend"]


class _Memory(threading.local):
    """Each thread's memory for values, used again from block to block."""

    def __init__(self) -> None:
        self._held: dict[tuple[torch.dtype, int], torch.Tensor] = {}

    def like(self, dtype: torch.dtype, slot: int, other: torch.Tensor) -> torch.Tensor:
        """Memory of a slot for values of that dtype, in the shape of `other`; it holds what an earlier block left."""
        held = self._held.get((dtype, slot))
        if held is None or held.numel() < other.numel():
            held = self._held[dtype, slot] = other.new_empty(other.numel(), dtype=dtype)
        return held[: other.numel()].view(other.shape)


@dataclass(frozen=True)
class Blend:
    """What to blend: the method, the open inputs with their weights, and the dtype of the result (None: theirs).

    The base, if the method reads one, is the last of `inputs` and has no weight. `wrong` collects what can't be
    merged: a reason by tensor name. `mean_kernel`, for a plain mean alone, merges bfloat16 values in one pass; the
    bytes are those of the method.
    """

    method: Method
    inputs: tuple[Checkpoint, ...]
    names: tuple[str, ...]
    weights: tuple[float, ...]
    dtype: Dtype | None = None
    allow_nonfinite: bool = False
    wrong: dict[str, str] = field(default_factory=dict)
    mean_kernel: MeanKernel | None = None
    _memory: _Memory = field(default_factory=lambda: _Memory(), repr=False, compare=False)

    @property
    def is_plain_mean(self) -> bool:
        """Whether all that is asked for is the mean of the inputs, each counting as much."""
        return type(self.method) is Linear and self.method.keeps_equal(self.weights)

    def __call__(self, specs: Sequence[TensorSpec], views: Sequence[memoryview]) -> torch.Tensor:
        """One block from the inputs' bytes: specs and bytes in the order of `inputs`, at least one element.

        Returns the values, [elements], in memory that this thread's next block uses again.
        """
        import torch

        raw = [torch.frombuffer(view, dtype=spec.dtype.torch) for spec, view in zip(specs, views, strict=True)]
        alike = all(spec.dtype == specs[0].dtype for spec in specs)
        # Trained weights differ at the first place: a look at the head spares the calls that would find that out.
        heads = {bytes(view[:64]) for view in views} if alike else set()
        equal = len(heads) == 1 and all(_same_bytes(raw[0], other) for other in raw[1:])
        if specs[0].dtype.kind != "float":
            if not equal:
                self._integers_differ(specs[0], raw)
            return raw[0]
        target = specs[0].cast(self.dtype)
        if equal and target == specs[0]:
            if not _finite(raw[0]):
                self._nonfinite(target, raw)
            return raw[0]
        if alike and target == specs[0] and (plain := self._plain_mean(raw)) is not None:
            return plain
        accumulate = max((spec.dtype.accumulates_in for spec in specs), key=lambda dtype: dtype.bits)
        return self._floats(raw, target, accumulate, bits_may_stay=alike and target == specs[0])

    def _plain_mean(self, raw: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """The mean at once, where that is all that is asked for and every value is finite."""
        import torch

        if self.mean_kernel is None or raw[0].dtype != torch.bfloat16:
            return None
        result = self._memory.like(torch.bfloat16, -1, raw[0])
        return result if self.mean_kernel(raw, result) else None

    def _floats(
        self, raw: Sequence[torch.Tensor], target: TensorSpec, accumulate: Dtype, *, bits_may_stay: bool
    ) -> torch.Tensor:
        import torch

        block = self._block(raw, target, accumulate.torch)
        values = self._call(block)
        # A mean of equal weights is no larger than its largest term: a sum tells whether all is well, at half the cost.
        mean = bits_may_stay and self.method.keeps_equal(self.weights)
        largest = 0.0 if mean and math.isfinite(values.sum().item()) else _largest(values)
        finite = largest <= torch.finfo(accumulate.torch).max
        if not finite:
            self._nonfinite(target, raw)
            values = self._rescue(block, values)
        flat = values.reshape(-1)
        result = self._memory.like(target.dtype.torch, -1, flat).copy_(flat)
        # Where all inputs agree their bits stay. Mostly the cast sees to it; in these cases it might not.
        doubtful = not finite or target.dtype == accumulate or not mean
        if bits_may_stay and doubtful:
            result = torch.where(_agree(raw), raw[0], result)
        if not largest <= torch.finfo(target.dtype.torch).max and not torch.isfinite(result).all():
            self._overflow(target, result)
        return result

    def _block(self, raw: Sequence[torch.Tensor], target: TensorSpec, dtype: torch.dtype) -> Block:
        shape = target.shape if self.method.granularity == "tensor" else (-1,)
        shaped = tuple(values.reshape(shape) for values in raw)
        count = len(self.weights)
        base = shaped[count] if len(shaped) > count else None
        lend = partial(self._memory.like, dtype)
        return Block(target.name, self.weights, shaped[:count], dtype, base, lend)

    def _call(self, block: Block) -> torch.Tensor:
        values = self.method(block)
        expected = (tuple(block.raw[0].shape), block.accumulate_in)
        if (tuple(values.shape), values.dtype) != expected:
            raise RecipeError(
                f"{type(self.method).__name__} on {block.tensor_name}: expected a tensor of shape and dtype "
                f"{expected}, found {(tuple(values.shape), values.dtype)}."
            )
        return values

    def _rescue(self, block: Block, values: torch.Tensor) -> torch.Tensor:
        """Where finite inputs overflowed float32 on the way (3e38 + 3e38 in bfloat16): again in float64."""
        import torch

        if block.accumulate_in == torch.float64:
            return values
        finite = torch.stack([torch.isfinite(raw) for raw in block.raw]).all(dim=0)
        wide = self._call(replace(block, accumulate_in=torch.float64))
        return torch.where(finite & ~torch.isfinite(values), wide, values.double())

    def _nonfinite(self, target: TensorSpec, raw: Sequence[torch.Tensor]) -> None:
        bad = [name for name, values in zip(self.names, raw, strict=True) if not _finite(values)]
        if bad and not self.allow_nonfinite:
            why = f"NaN or infinity in {', '.join(bad)} (--allow-nonfinite merges them all the same)"
            self.wrong.setdefault(target.name, why)

    def _overflow(self, target: TensorSpec, result: torch.Tensor) -> None:
        if not self.allow_nonfinite and target.name not in self.wrong:
            why = f"the result is too large for {target.dtype.name} (a wider --dtype may hold it)"
            if result.isnan().any():
                why = f"{type(self.method).__name__} makes NaN of finite values"
            self.wrong.setdefault(target.name, why)

    def _integers_differ(self, spec: TensorSpec, raw: Sequence[torch.Tensor]) -> None:
        other = [name for name, values in zip(self.names, raw, strict=True) if not _same_bytes(raw[0], values)]
        why = f"{spec.dtype.name} values can't be averaged, and {', '.join(other)} differ from {self.names[0]}"
        self.wrong.setdefault(spec.name, why)


def _same_bytes(left: torch.Tensor, right: torch.Tensor) -> bool:
    import torch

    # Eight bytes at a time where the length allows; torch.equal stops at the first that differs.
    word = torch.int64 if left.numel() * left.element_size() % 8 == 0 else torch.uint8
    return torch.equal(left.view(torch.uint8).view(word), right.view(torch.uint8).view(word))


def _agree(raw: Sequence[torch.Tensor]) -> torch.Tensor:
    """Where all inputs hold the same bits, [elements] of bool."""
    import torch

    word = {2: torch.int16, 4: torch.int32, 8: torch.int64}[raw[0].element_size()]
    first, *others = (values.view(word) for values in raw)
    agree = torch.ones_like(first, dtype=torch.bool)
    for other in others:
        agree &= first == other
    return agree


def _largest(values: torch.Tensor) -> float:
    """The largest absolute value, or NaN where there is one; a single pass."""
    import torch

    low, high = torch.aminmax(values)
    return max(-low.item(), high.item())


def _finite(values: torch.Tensor) -> bool:
    import torch

    return _largest(values) <= torch.finfo(values.dtype).max
