"""Checks that a method keeps its contract; soup's own pass them. AssertionError says what is wrong."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from soup.checkpoints.dtypes import named_dtype
from soup.checkpoints.writer import view_bytes
from soup.errors import RecipeError
from soup.hf.places import Place, places_of
from soup.merging.compiled import merge_block
from soup.merging.kernel_library import has_kernels
from soup.merging.methods.base import Block, Method
from soup.testing.tiny_checkpoints import tiny_tensor

if TYPE_CHECKING:
    import torch

__all__ = ["check_method"]

TENSOR_NAME = "layers.1.weight"


def check_method(method: Method, *, seed: int = 0) -> None:
    """Check that a method keeps the contract of `soup.merging.methods.base.Method`.

    It is tried with 1 to 5 ingredients, all floating dtypes, several shapes, uniform and random weights. It must be a
    frozen dataclass. Its result must have the block's shape and `accumulate_in`, be finite where the inputs are, and be
    the same at every call; the inputs must stay as they were. Copies of one model must give that model. Where its
    granularity is `element` it must give the same bits however the tensor is cut. NaN in an ingredient must be NaN in
    the result, which is how soup finds it and names the ingredient. What `arithmetic` says must give the bytes of the
    call, rounded; that is tried where soup's compiled library is installed. What `prepare` asks of all inputs it gets
    of the tensors that are tried.

    Args:
        method: An instance with its parameters set.
        seed: Seeds the random tensors and weights.

    Raises:
        AssertionError: The method breaks the contract.
    """
    import torch

    what = type(method).__name__
    params = getattr(method, "__dataclass_params__", None)
    assert params is not None, f"{what}: must be a dataclass, whose fields are the method's parameters"
    assert params.frozen, f"{what}: must be frozen: @dataclass(frozen=True)"
    rng = random.Random(seed)
    whole = _granularity(method, (7, 33)) == "tensor"
    shapes = [(1,), (96,), (7, 33) if whole else (231,)]
    usable = 0
    for count, dtype, shape in itertools.product((1, 2, 3, 5), ("bfloat16", "float16", "float32", "float64"), shapes):
        for weights in ((1 / count,) * count, tuple(rng.uniform(0.1, 2.0) for _ in range(count))):
            try:
                method.check(weights)
            except RecipeError:
                continue
            usable += 1
            block = _random_block(method, dtype, shape, weights, rng.randrange(2**32))
            _check_call(method, block)
            _check_copies(method, block)
            _check_nan(method, block)
            _check_arithmetic(method, block)
            if _granularity(method, shape) == "element":
                uncut = method(block)
                cuts = sorted({0, *(rng.randrange(1, shape[0] + 1) for _ in range(4)), shape[0]})
                pieces = [method(_sliced(block, begin, end)) for begin, end in itertools.pairwise(cuts)]
                assert _same_bits(torch.cat(pieces), uncut), (
                    f"{what}: {dtype}, {count} ingredients: cut at {cuts} the result has other bits than in one "
                    'piece. If it needs the whole tensor, say granularity = "tensor".'
                )
    assert usable, f"{what}: check() refused all weights that were tried, uniform ones too"


def _granularity(method: Method, shape: tuple[int, ...]) -> str:
    granularity = method.granularity_of(TENSOR_NAME, shape)
    what = type(method).__name__
    assert granularity in ("element", "tensor"), f"{what}: unknown granularity {granularity!r}"
    return granularity


@dataclasses.dataclass(frozen=True)
class _OneTensor:
    """A `FirstPass` over a single block that is a whole tensor."""

    block: Block

    @property
    def weights(self) -> tuple[float, ...]:
        return self.block.weights

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {TENSOR_NAME: tuple(self.block.raw[0].shape)}

    @property
    def places(self) -> Mapping[str, Place]:
        return places_of([TENSOR_NAME])

    def sums(
        self, statistic: Callable[[Block], torch.Tensor], sample: int | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        yield TENSOR_NAME, statistic(self.block)

    def with_constants(self, constants: object) -> _OneTensor:
        return _OneTensor(dataclasses.replace(self.block, constants=constants))


def _random_block(method: Method, dtype: str, shape: tuple[int, ...], weights: tuple[float, ...], seed: int) -> Block:
    raw = tuple(tiny_tensor(f"ingredient {i}", shape, seed=seed, dtype=dtype) for i in range(len(weights)))
    base = tiny_tensor("base", shape, seed=seed, dtype=dtype) if method.needs_base else None
    digests = tuple(f"digest {i}" for i in range(len(weights))) if method.needs_digests else ()
    accumulate_in = named_dtype(dtype).accumulates_in.torch
    place = places_of([TENSOR_NAME])[TENSOR_NAME] if method.uses_places else None
    return _prepared(method, Block(TENSOR_NAME, weights, raw, accumulate_in, base, place=place, digests=digests))


def _prepared(method: Method, block: Block) -> Block:
    return dataclasses.replace(block, constants=method.prepare(_OneTensor(block)))


def _sliced(block: Block, begin: int, end: int) -> Block:
    base = block.raw_base[begin:end] if block.raw_base is not None else None
    return dataclasses.replace(block, raw=tuple(raw[begin:end] for raw in block.raw), raw_base=base, first=begin)


def _check_call(method: Method, block: Block) -> None:
    import torch

    what = f"{type(method).__name__}: {len(block)} ingredients of {block.raw[0].dtype}{list(block.raw[0].shape)}"
    inputs = [*block.raw, *([block.raw_base] if block.raw_base is not None else [])]
    before = [tensor.clone() for tensor in inputs]
    first = method(block)
    assert isinstance(first, torch.Tensor), f"{what}: expected a tensor, found {type(first).__name__}"
    assert first.shape == block.raw[0].shape, f"{what}: found shape {list(first.shape)}"
    assert first.dtype == block.accumulate_in, f"{what}: expected {block.accumulate_in}, found {first.dtype}"
    assert torch.isfinite(first).all(), f"{what}: NaN or infinity from finite inputs"
    assert all(map(_same_bits, inputs, before)), f"{what}: changed its inputs; take block[i], a fresh copy"
    kept = first.clone()
    assert _same_bits(method(block), kept), f"{what}: the second call gave other bits than the first"


def _check_arithmetic(method: Method, block: Block) -> None:
    """Check that the compiled pass does what the call does, but for elements on which all inputs agree."""
    import torch

    if "arithmetic" not in vars(type(method)) or not has_kernels() or len(block) == 1:
        return
    arithmetic = method.arithmetic(block)
    inputs = [*block.raw, *([block.raw_base] if block.raw_base is not None else [])]
    dtype = named_dtype(str(inputs[0].dtype).removeprefix("torch."))
    views = [memoryview(bytearray(view_bytes(values))) for values in inputs]
    out = memoryview(bytearray(len(views[0])))
    if merge_block(arithmetic, dtype, views, block.first, out) != "merged":
        return
    words = [values.contiguous().view(-1).view(torch.uint8).view(-1, dtype.bits // 8) for values in inputs]
    agree = torch.stack([(word == words[0]).all(1) for word in words]).all(0)
    expected = torch.where(agree, inputs[0].reshape(-1), method(block).to(inputs[0].dtype).reshape(-1))
    same = _same_bits(torch.frombuffer(out, dtype=inputs[0].dtype), expected)
    what = f"{type(method).__name__}: {len(block)} ingredients of {inputs[0].dtype}"
    assert same, f"{what}: the compiled pass of `arithmetic` gives other bytes than the call"


def _check_copies(method: Method, block: Block) -> None:
    """Check that copies of a model (and of its base) give that model: bit for bit where `keeps_equal`, else nearly."""
    import torch

    copy = block.raw[0]
    base = copy if block.raw_base is not None else None
    copies = _prepared(method, dataclasses.replace(block, raw=(copy,) * len(block), raw_base=base))
    values = method(copies)
    what = f"{type(method).__name__}: {len(block)} copies of one {copy.dtype} tensor, weights {block.weights}"
    near = math.sqrt(torch.finfo(block.accumulate_in).eps)
    assert torch.allclose(values, copy.to(values.dtype), rtol=near, atol=near * 0.02), f"{what} gave another tensor"
    if method.keeps_equal(block.weights) and copy.dtype != block.accumulate_in:
        same = _same_bits(values.to(copy.dtype), copy)
        assert same, f"{what}: other bits, and keeps_equal() says that there are none"


def _check_nan(method: Method, block: Block) -> None:
    """Check that NaN in the last element of any ingredient leaves its mark: a result without hides it from soup."""
    import torch

    what = f"{type(method).__name__}: {len(block)} ingredients of {block.raw[0].dtype}"
    for index, values in enumerate(block.raw):
        spoilt = values.clone()
        spoilt.view(-1)[-1] = math.nan
        raw = (*block.raw[:index], spoilt, *block.raw[index + 1 :])
        try:
            result = method(_prepared(method, dataclasses.replace(block, raw=raw)))
        except Exception as error:
            raise AssertionError(f"{what}: NaN in one raised {error!r:.200}; give NaN, which soup tells") from error
        assert torch.isnan(result).any(), f"{what}: NaN in one is gone from the result, so that soup can't tell it"


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    import torch

    return torch.equal(left.contiguous().view(-1).view(torch.uint8), right.contiguous().view(-1).view(torch.uint8))
