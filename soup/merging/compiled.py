"""A block's arithmetic as one compiled pass over its bytes, where a method can say what it does in these words.

torch has no such kernels: it widens each input into memory and works on it there, operation by operation. The bytes are
torch's: sums in recipe order, one rounding each for every product, sum and quotient, one rounding to nearest even at
the end. What is not finite, casts and other dtypes are left to torch. A merge that needs nothing else never imports
torch, which takes longer than the merge of a small model.

The library is plain C, `soup/merging/kernels`, compiled when soup is installed; without a compiler torch does it all.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Literal

from soup.checkpoints.dtypes import Dtype

__all__ = ["Arithmetic", "Form", "MergeResult", "has_kernels", "merge_block", "same_bytes"]

Form = Literal["mean", "sum", "deltas", "consensus", "elect"]
MergeResult = Literal["merged", "equal", "left"]

_FORMS: tuple[Form, ...] = ("mean", "sum", "deltas", "consensus", "elect")
_RESULTS: tuple[MergeResult, ...] = ("merged", "equal", "left")
_DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Arithmetic:
    """What is done with the blocks of a tensor: x_i the inputs, b the base, w the weights, d_i = x_i - b.

    Args:
        form: `mean`: sum x_i / k. `sum`: sum w_i x_i. All others give b + scale * total; `deltas`: total = sum w_i d_i;
            `consensus`: the same where at least `agree` of |d_i| > threshold |sum d_j - d_i|, else 0; `elect`: the d_i
            of the sign that their weighted sum has, times w_i, summed up, or averaged with `mean`.
        weights: One for each input.
        scale: See above.
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
            self.threshold,
            self.majority,
            self.grown,
            self.dropped,
        )


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("form", "keep_equal", "mean", "agree")),
        ("weights", ctypes.POINTER(ctypes.c_double)),
        ("thresholds", ctypes.POINTER(ctypes.c_double)),
        ("keys", ctypes.POINTER(ctypes.c_uint64)),
        *((name, ctypes.c_double) for name in ("scale", "threshold", "majority", "grown")),
        ("dropped", ctypes.c_uint64),
    )


@cache
def _library() -> ctypes.CDLL | None:
    """Load the compiled library; None where it was not built, or is for another machine."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernels{suffix}")
        if path.is_file():
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                return None
            pointer, number = ctypes.c_void_p, ctypes.c_int64
            library.soup_merge.argtypes = (
                ctypes.POINTER(_Job), ctypes.c_int, number, pointer, pointer, pointer, number, ctypes.c_uint64,
            )  # fmt: skip
            library.soup_same_bytes.argtypes = (number, pointer, number)
            return library
    return None


def has_kernels() -> bool:
    """Whether the compiled library is here."""
    return _library() is not None


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
    """
    library = _library()
    if library is None or arithmetic is None or dtype.name not in _DTYPES:
        return "left"
    if {*map(len, inputs)} != {len(out)}:
        raise ValueError(f"expected memory of one size, found {[*map(len, inputs), len(out)]} bytes")
    addresses = _addresses(inputs)
    count = len(inputs) - arithmetic.reads_base
    base = addresses[count] if arithmetic.reads_base else None
    elements = len(inputs[0]) * 8 // dtype.bits
    code = _DTYPES.index(dtype.name)
    done: int = library.soup_merge(
        ctypes.byref(arithmetic.job), code, count, addresses, base, _address(out), elements, first
    )
    return _RESULTS[done]


def same_bytes(inputs: Sequence[memoryview]) -> bool:
    """Whether all inputs, of one size in writable memory, are known to hold the same bytes; needs the library."""
    library = _library()
    return library is not None and bool(library.soup_same_bytes(len(inputs), _addresses(inputs), len(inputs[0])))


def _addresses(views: Sequence[memoryview]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(views))(*map(_address, views))


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view)) if len(view) else 0
