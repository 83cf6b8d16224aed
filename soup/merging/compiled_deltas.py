"""The deltas of a block in one compiled pass over its bytes: all dot products, and how many elements moved.

Deltas are taken as `soup.merging.methods.dot_products` takes them, and rounded to float32. Their products are added up
in float32 a few at a time, and these sums in float64: a dot product is within 1e-5 |d_i| |d_j| of the exact one, and
mostly within 1e-7. Numbers that are too large or too small for float32 are added up in float64 throughout.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from soup.checkpoints.dtypes import Dtype
from soup.merging import kernel_library
from soup.merging.kernel_library import DTYPE_NAMES, address_of

__all__ = ["DeltaSums", "sum_deltas"]

_MERGED = 0


class DeltaSums(NamedTuple):
    """What is added up over the elements of a block.

    Args:
        center: The squared norm of the base, or of the mean that stands in for it.
        products: The dot products of deltas 0 and 0, 0 and 1, .. 1 and 1, ..
        moved: How many elements of each delta are not 0.
    """

    center: float
    products: Sequence[float]
    moved: Sequence[int]


def sum_deltas(dtype: Dtype, inputs: Sequence[memoryview], base: memoryview | None) -> DeltaSums | None:
    """Add up what is to be known of the deltas of a block.

    Args:
        dtype: The dtype of all.
        inputs: The block's bytes in each ingredient, writable memory of one size.
        base: Its bytes in the base; without one the ingredients' mean stands in for it.

    Returns:
        The sums; None: torch has to do it, for there is no such library or dtype, or something is not finite.
    """
    library = kernel_library.load_library()
    if library is None or dtype.name not in DTYPE_NAMES:
        return None
    count, elements = len(inputs), len(inputs[0]) * 8 // dtype.bits
    addresses = (ctypes.c_void_p * count)(*map(address_of, inputs))
    center, moved = ctypes.c_double(), (ctypes.c_int64 * count)()
    products = (ctypes.c_double * (count * (count + 1) // 2))()
    code, start = DTYPE_NAMES.index(dtype.name), None if base is None else address_of(base)
    done: int = library.soup_sum_deltas(code, count, addresses, start, elements, ctypes.byref(center), products, moved)
    return DeltaSums(center.value, list(products), list(moved)) if done == _MERGED else None
