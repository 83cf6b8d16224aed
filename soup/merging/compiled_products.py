"""Base plus product, or its mean with whole models, in one compiled pass over the bytes of 16- and 32-bit tensors.

The bits are those of torch's operations in float64, as `soup.merging.low_rank` defines them; the C says how.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from soup.checkpoints.dtypes import Dtype
from soup.merging import kernel_library
from soup.merging.kernel_library import DTYPE_NAMES, address_of

__all__ = ["CompiledProduct", "MeanBlock", "StoredFactor", "compile_product"]

PANEL = 32
"""How many columns of the right factors lie together, TILE_COLUMNS in C."""

_ALIGNMENT = 64
_MERGED = 0


class StoredFactor(NamedTuple):
    """A factor as it lies in a file: element (i, k) is number `i * stride + k * step`.

    Args:
        data: Its bytes, in writable memory.
        dtype: Of its numbers.
        shape: Of the matrix.
        stride: See above.
        step: See above.
    """

    data: bytearray
    dtype: Dtype
    shape: tuple[int, int]
    stride: int
    step: int

    @property
    def transposed(self) -> StoredFactor:
        """The matrix the other way round, of the same bytes."""
        return self._replace(shape=self.shape[::-1], stride=self.step, step=self.stride)


@dataclass(frozen=True)
class MeanBlock:
    """A block of every input of a mean.

    Args:
        inputs: Their bytes, of one size, in writable memory.
        place: Which of them the product is added to.
        weights: Their weights; nothing where all weigh the same.
        divisor: What the sum is divided by.
    """

    inputs: Sequence[memoryview]
    place: int
    weights: Sequence[float]
    divisor: float

    def __getitem__(self, piece: slice) -> MeanBlock:
        return replace(self, inputs=[view[piece] for view in self.inputs])


class _Mean(ctypes.Structure):
    _fields_ = (
        ("x", ctypes.POINTER(ctypes.c_void_p)),
        *((name, ctypes.c_int64) for name in ("count", "place")),
        ("weights", ctypes.POINTER(ctypes.c_double)),
        ("divisor", ctypes.c_double),
    )


class _Part(ctypes.Structure):
    _fields_ = (
        ("values", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("rank", "stride", "step")),
        ("scale", ctypes.c_double),
        ("dtype", ctypes.c_int64),
    )


class _Product(ctypes.Structure):
    _fields_ = (
        ("lefts", ctypes.POINTER(_Part)),
        *((name, ctypes.c_int64) for name in ("parts", "columns", "rank", "bits", "slices")),
        ("right", ctypes.c_void_p),
        ("lengths", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class CompiledProduct:
    """A product of factors, the right ones cut.

    Args:
        product: The same for C.
        memory: What it points to.
    """

    product: _Product
    memory: Sequence[object]

    def add_to(self, dtype: Dtype, block: MeanBlock, first: int, out: memoryview) -> bool:
        """Add it to a block, take the mean, and round.

        Args:
            dtype: Of the inputs and of the result.
            block: The inputs, at least one element.
            first: The index of the block's first element in the tensor.
            out: Memory for the result.

        Returns:
            Whether it is done; False: torch has to do it, for something is not finite, too large or too small.
        """
        library = kernel_library.load_library()
        assert library is not None, "it was compiled"
        count = len(block.inputs)
        addresses = (ctypes.c_void_p * count)(*map(address_of, block.inputs))
        weights = (ctypes.c_double * count)(*block.weights) if block.weights else None
        mean = _Mean(addresses, count, block.place, weights, block.divisor)
        elements, code = len(out) * 8 // dtype.bits, DTYPE_NAMES.index(dtype.name)
        done: int = library.soup_add_product(
            ctypes.byref(self.product), code, ctypes.byref(mean), address_of(out), first, elements
        )
        return done == _MERGED


def compile_product(
    lefts: Sequence[StoredFactor], rights: Sequence[StoredFactor], scales: Sequence[float], bits: int, slices: int
) -> CompiledProduct | None:
    """Prepare sum_j scale_j left_j right_j; None where torch has to do it.

    Args:
        lefts: [rows, rank_j].
        rights: [rank_j, columns].
        scales: One for each pair.
        bits: To how many the numbers of a row on the left, or a column on the right, are cut.
        slices: How often: 1 for tensors of 16 bits, 2 for those of 32.
    """
    library = kernel_library.load_library()
    if library is None or any(factor.dtype.name not in DTYPE_NAMES for factor in (*lefts, *rights)):
        return None
    columns, rank = rights[0].shape[1], sum(right.shape[0] for right in rights)
    panels = bytearray(-(-columns // PANEL) * PANEL * slices * rank * ctypes.sizeof(ctypes.c_float) + _ALIGNMENT)
    right = address_of(panels)
    right += -right % _ALIGNMENT
    lengths = (ctypes.c_float * (slices * columns))()
    columns_first = [factor.transposed for factor in rights]
    if not library.soup_cut_right(
        _parts(columns_first, [1.0] * len(rights)), len(rights), columns, rank, bits, slices, right, lengths
    ):
        return None
    parts = _parts(lefts, scales)
    product = _Product(parts, len(lefts), columns, rank, bits, slices, right, ctypes.addressof(lengths))
    return CompiledProduct(product, (lefts, parts, panels, lengths))


def _parts(factors: Sequence[StoredFactor], scales: Sequence[float]) -> ctypes.Array[_Part]:
    """Say how the rows of factors [rows, rank] lie in memory."""

    def part(factor: StoredFactor, scale: float) -> _Part:
        code = DTYPE_NAMES.index(factor.dtype.name)
        return _Part(address_of(factor.data), factor.shape[1], factor.stride, factor.step, scale, code)

    return (_Part * len(factors))(*map(part, factors, scales))
