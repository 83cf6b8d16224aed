"""A block's arithmetic as one compiled pass over its bytes, where a method can say what it does in these words.

torch has no such kernels: it widens each input into memory and works on it there, operation by operation. The bytes are
torch's: sums in recipe order, one rounding each for every product, sum and quotient, one rounding to nearest even at
the end. What is not finite, casts and other dtypes are left to torch. A merge that needs nothing else never imports
torch, which takes longer than the merge of a small model.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from soup.checkpoints.dtypes import Dtype
from soup.checkpoints.shard import FilePlace
from soup.merging import kernel_library
from soup.merging.kernel_library import DTYPE_NAMES, address_of
from soup.merging.scratch import Scratch
from soup.support.open_files import open_descriptors

if TYPE_CHECKING:
    import torch

__all__ = [
    "Arithmetic",
    "Around",
    "Form",
    "Magnitudes",
    "MergeResult",
    "add_counts",
    "magnitudes",
    "merge_block",
    "merge_cached",
    "pair_sums",
    "read_cached",
    "same_bytes",
]

Around = Literal["zero", "base", "mean"]
Form = Literal["mean", "sum", "deltas", "consensus", "elect"]
MergeResult = Literal["merged", "equal", "left"]

_FORMS: tuple[Form, ...] = ("mean", "sum", "deltas", "consensus", "elect")
_AROUND: tuple[Around, ...] = ("zero", "base", "mean")
_RESULTS: tuple[MergeResult, ...] = ("merged", "equal", "left")


@dataclass(frozen=True)
class Arithmetic:
    """What is done with the blocks of a tensor: x_i the inputs, b the base, w the weights, d_i = x_i - b.

    Args:
        form: `mean`: sum x_i / k. `sum`: sum w_i x_i / divisor. All others give b + scale * total; `deltas`: total is
            sum w_i d_i / divisor; `consensus`: the same where at least `agree` of |d_i| > threshold |sum d_j - d_i|,
            else 0; `elect`: the d_i of the sign that their weighted sum has, times w_i, summed up over the divisor, or
            averaged with `mean`.
        weights: One for each input.
        scale: See above.
        divisor: See above.
        keep_equal: Whether elements whose bits are the same in all inputs and the base are copied.
        keys: DARE's: an element of d_i is kept where its keyed number is `dropped` or more, and multiplied by `grown`.
        dropped: Of 2^24.
        grown: See `keys`.
        thresholds: TIES': an element of d_i is kept where its float32 magnitude reaches the threshold.
        majority: The sign that is elected where the sum is 0.
        mean: See `elect`.
        threshold: See `consensus`.
        agree: See `consensus`.
    """

    form: Form
    weights: Sequence[float]
    scale: float = 1.0
    divisor: float = 1.0
    keep_equal: bool = True
    keys: Sequence[int] = ()
    dropped: int = 0
    grown: float = 1.0
    thresholds: Sequence[float] = ()
    majority: float = 0.0
    mean: bool = True
    threshold: float = 0.0
    agree: int = 0

    @property
    def reads_base(self) -> bool:
        """Whether the last input is the base."""
        return self.form not in ("mean", "sum")

    @cached_property
    def job(self) -> _Job:
        """The same for C; the arrays live as long as this object."""
        count = len(self.weights)
        return _Job(
            _FORMS.index(self.form),
            self.keep_equal,
            self.mean,
            self.agree,
            (ctypes.c_double * count)(*self.weights),
            (ctypes.c_double * count)(*self.thresholds) if self.thresholds else None,
            (ctypes.c_uint64 * count)(*self.keys) if self.keys else None,
            self.scale,
            self.divisor,
            self.threshold,
            self.majority,
            self.grown,
            self.dropped,
        )


class Magnitudes(NamedTuple):
    """What the bits of an input's differences to the base say, as float32 numbers without their signs.

    Args:
        moved: How many are not 0.
        over: How many lie above the interval that was looked for.
        inside: Those in it, less its least, [any] of int32.
        total: The sum of the differences.
    """

    moved: int
    over: int
    inside: torch.Tensor
    total: float


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("form", "keep_equal", "mean", "agree")),
        ("weights", ctypes.POINTER(ctypes.c_double)),
        ("thresholds", ctypes.POINTER(ctypes.c_double)),
        ("keys", ctypes.POINTER(ctypes.c_uint64)),
        *((name, ctypes.c_double) for name in ("scale", "divisor", "threshold", "majority", "grown")),
        ("dropped", ctypes.c_uint64),
    )


def merge_block(
    arithmetic: Arithmetic | None, dtype: Dtype, inputs: Sequence[memoryview], first: int, out: memoryview
) -> MergeResult:
    """Merge the bytes of a block.

    Args:
        arithmetic: What is done; None where the method has no words for it.
        dtype: The dtype of the inputs and of the result.
        inputs: Their bytes, writable memory of one size; the base, if it is read, comes last.
        first: The index of the block's first element in its tensor.
        out: Memory for the result.

    Returns:
        `merged`: the result is in `out`. `equal`: all inputs hold the same finite values, and nothing was written.
        `left`: torch has to do it, and what `out` holds is of no use.

    Raises:
        ValueError: Inputs and result are not of one size.
    """
    library = kernel_library.load_library()
    if library is None or arithmetic is None or dtype.name not in DTYPE_NAMES:
        return "left"
    if {*map(len, inputs)} != {len(out)}:
        raise ValueError(f"expected memory of one size, found {[*map(len, inputs), len(out)]} bytes")
    addresses = _addresses(inputs)
    count = len(inputs) - arithmetic.reads_base
    base = addresses[count] if arithmetic.reads_base else None
    elements = len(inputs[0]) * 8 // dtype.bits
    code = DTYPE_NAMES.index(dtype.name)
    done: int = library.soup_merge(
        ctypes.byref(arithmetic.job), code, count, addresses, base, address_of(out), elements, first
    )
    return _RESULTS[done]


def read_cached(places: Sequence[FilePlace], views: Sequence[memoryview]) -> list[int]:
    """Fill memory from files as far as the page cache reaches: nothing waits for the disk.

    Args:
        places: What is read, in each file.
        views: The memory.

    Returns:
        How many bytes of each are there.

    Raises:
        OSError: A file can't be opened.
    """
    library, count = kernel_library.load_library(), len(places)
    if library is None:
        return [0] * count
    with open_descriptors([place.file for place in places]) as files:
        done, numbers = (ctypes.c_int64 * count)(), ctypes.c_int64 * count
        offsets, sizes = numbers(*(place.offset for place in places)), numbers(*map(len, views))
        library.soup_read_cached(count, (ctypes.c_int * count)(*files), offsets, _addresses(views), sizes, done)
    return list(done)


def merge_cached(
    arithmetic: Arithmetic,
    dtype: Dtype,
    places: Sequence[FilePlace],
    blocks: Sequence[memoryview],
    first: int,
    out: memoryview,
) -> int:
    """Read elements of a tensor and merge them, block by block, as far as the page cache has them.

    Nothing waits for the disk, and for Python between two blocks.

    Args:
        arithmetic: See `merge_block`.
        dtype: The dtype of the inputs and of the result.
        places: Where the tensor begins in each input's file.
        blocks: Memory for a block of each, of one size; there may be more of it.
        first: The index of the first element.
        out: Memory for the result.

    Returns:
        How many elements are in `out`; what is the matter with the next is for `merge_block` to find out.

    Raises:
        OSError: A file can't be opened.
    """
    library = kernel_library.load_library()
    if library is None or dtype.name not in DTYPE_NAMES:
        return 0
    count, width = len(places), dtype.bits // 8
    with open_descriptors([place.file for place in places]) as files:
        merged: int = library.soup_merge_cached(
            ctypes.byref(arithmetic.job),
            DTYPE_NAMES.index(dtype.name),
            count - arithmetic.reads_base,
            arithmetic.reads_base,
            (ctypes.c_int * count)(*files),
            (ctypes.c_int64 * count)(*(place.offset + first * width for place in places)),
            _addresses(blocks[:count]),
            len(blocks[0]) // width,
            address_of(out),
            len(out) // width,
            first,
        )
    return merged


def pair_sums(
    inputs: Sequence[torch.Tensor], base: torch.Tensor | None, around: Around, *, with_center: bool
) -> tuple[list[float], list[int]] | None:
    """Take the dot products of all pairs; see `soup.merging.methods.dot_products`.

    Returns:
        The products of (0, 0), (0, 1), .. (1, 1), .. and how many elements of each vector are not 0; None: in torch.
    """
    library, code = kernel_library.load_library(), _tensor_code([*inputs, *([] if base is None else [base])])
    if library is None or code is None:
        return None
    vectors = len(inputs) + with_center
    products, moved = (ctypes.c_double * (vectors * (vectors + 1) // 2))(), (ctypes.c_int64 * vectors)()
    pointers = (ctypes.c_void_p * len(inputs))(*(values.data_ptr() for values in inputs))
    center = None if base is None else base.data_ptr()
    done = library.soup_dots(
        code, _AROUND.index(around), with_center, len(inputs), pointers, center, inputs[0].numel(), products, moved
    )
    return (list(products), list(moved)) if done else None


def magnitudes(
    inputs: Sequence[torch.Tensor], base: torch.Tensor, intervals: Sequence[tuple[int, int]], scratch: Scratch
) -> list[Magnitudes] | None:
    """Look at the bits of |input - base| as float32 numbers, which are ordered as the magnitudes are.

    Args:
        inputs: The ingredients' blocks.
        base: The base's.
        intervals: For each ingredient the least bits that lie inside, above 0, and the largest.
        scratch: Lends memory for those inside, until the next call.

    Returns:
        What they say, for each ingredient; None: in torch.
    """
    import torch

    library, code = kernel_library.load_library(), _tensor_code([*inputs, base])
    if library is None or code is None:
        return None
    count, elements = len(inputs), base.numel()
    pointers = (ctypes.c_void_p * count)(*(values.data_ptr() for values in inputs))
    bounds = (ctypes.c_uint32 * (2 * count))(*(bound for interval in intervals for bound in interval))
    inside = scratch.empty(torch.int32, 0, (count, elements + 1))
    numbers, totals = (ctypes.c_int64 * (3 * count))(), (ctypes.c_double * count)()
    if not library.soup_magnitudes(
        code, count, pointers, base.data_ptr(), elements, bounds, inside.data_ptr(), numbers, totals
    ):
        return None
    return [
        Magnitudes(numbers[3 * k], numbers[3 * k + 1], inside[k, : numbers[3 * k + 2]], totals[k]) for k in range(count)
    ]


def add_counts(numbers: Sequence[torch.Tensor], shift: int, counts: torch.Tensor) -> bool:
    """Count numbers, shifted to the right; False: in torch, nothing is done.

    Args:
        numbers: For each row of counts some, of int32, from 0.
        shift: By how many bits.
        counts: [rows, counters] of int64, to which is added. That of a number n is at n ^ (n >> 9): differences of
            16-bit values end in zeros, and counters at a distance of powers of two get into each other's way in the
            processor.
    """
    library, rows = kernel_library.load_library(), len(numbers)
    if library is None:
        return False
    pointers = (ctypes.c_void_p * rows)(*(row.data_ptr() for row in numbers))
    lengths = (ctypes.c_int64 * rows)(*map(len, numbers))
    library.soup_count(rows, pointers, lengths, shift, counts.data_ptr(), counts.shape[1])
    return True


def _tensor_code(tensors: Sequence[torch.Tensor]) -> int | None:
    """Return the number of the tensors' dtype; None where they have several, or one that is not compiled."""
    names = {str(values.dtype).removeprefix("torch.") for values in tensors}
    name = names.pop()
    return (
        DTYPE_NAMES.index(name)
        if not names and name in DTYPE_NAMES and all(values.is_contiguous() for values in tensors)
        else None
    )


def same_bytes(inputs: Sequence[memoryview]) -> bool:
    """Whether all inputs, of one size in writable memory, are known to hold the same bytes; needs the library."""
    library = kernel_library.load_library()
    return library is not None and bool(library.soup_same_bytes(len(inputs), _addresses(inputs), len(inputs[0])))


def _addresses(views: Sequence[memoryview]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(views))(*map(address_of, views))
