"""The mean of bfloat16 values in one pass, compiled by numba: widen, add, divide, round.

torch has no such kernel: it widens each input into memory and adds it from there, so that a mean of seven takes four
times as long. The bytes are the same (both ways keep the contract): float32 sums in recipe order, one division,
one rounding to nearest even; and since no operation is fused with another, on every machine. What is not plain (NaN,
infinity, a result that rounds to it) is left to torch. numba is optional: pip install 'vlm-soup[fast]'.

Importing this room compiles the kernel, once for a machine: numba keeps it in its cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

if TYPE_CHECKING:
    import torch

__all__ = ["mean_of_bfloat16"]

CHUNK = 2048
"""Elements that are added up at a time: their float32 sums (8 KiB) stay next to the processor."""

_SIGN, _HALF, _TOO_LARGE = 0x7FFFFFFF, 0x7FFF, 0x7F7F8000
"""All bits but the sign; just below half of bfloat16's last place; the first float32 that rounds to infinity in it."""


def mean_of_bfloat16(values: Sequence[torch.Tensor], out: torch.Tensor) -> bool:
    """Write the mean of `values` (contiguous bfloat16, [elements] each) into `out`, the same.

    Returns False, with `out` of no use, where a sum or a result is not finite.
    """
    places = np.array([each.data_ptr() for each in values], dtype=np.uint64)
    return int(_mean(places, out.data_ptr(), out.numel())) < _TOO_LARGE


@intrinsic
def _at(typing: Any, place: Any) -> Any:
    """The address as a pointer to 16-bit words."""
    pointer = types.CPointer(types.uint16)
    return pointer(place), lambda context, builder, _, args: builder.inttoptr(args[0], context.get_value_type(pointer))


def _reinterpreted(source: Any, target: Any) -> Any:
    """A compiled function that takes the bits of a number for those of another type."""

    def bits(typing: Any, value: Any) -> Any:
        return target(source), lambda context, builder, _, args: builder.bitcast(
            args[0], context.get_value_type(target)
        )

    return intrinsic(bits)


_as_float = _reinterpreted(types.uint32, types.float32)
_as_bits = _reinterpreted(types.float32, types.uint32)


@njit(inline="always")
def _wide(half: Any) -> Any:
    """A bfloat16's bits as the float32 that they are the upper half of."""
    return _as_float(np.uint32(half) << np.uint32(16))


@njit("uint32(uint64[::1], uint64, int64)", nogil=True, cache=True, error_model="numpy")
def _mean(places: Any, out: Any, elements: Any) -> Any:
    """Returns the largest absolute value before rounding, as bits: they sort as the values do, NaN after infinity."""
    count, largest = np.float32(places.size), np.uint32(0)
    sums = np.empty(CHUNK, np.float32)
    result = carray(_at(out), elements)
    for start in range(0, elements, CHUNK):
        end = min(start + CHUNK, elements)
        total, rounded = sums[: end - start], result[start:end]
        first = carray(_at(places[0]), elements)[start:end]
        for i in range(total.size):
            total[i] = _wide(first[i])
        k = 1
        while k < places.size:  # three inputs a pass where there are three: the sums are touched less often
            one = carray(_at(places[k]), elements)[start:end]
            if k + 2 < places.size:
                two = carray(_at(places[k + 1]), elements)[start:end]
                three = carray(_at(places[k + 2]), elements)[start:end]
                for i in range(total.size):
                    total[i] = ((total[i] + _wide(one[i])) + _wide(two[i])) + _wide(three[i])
                k += 3
            else:
                for i in range(total.size):
                    total[i] += _wide(one[i])
                k += 1
        for i in range(total.size):
            bits = _as_bits(total[i] / count)
            largest = max(largest, bits & np.uint32(_SIGN))
            even = (bits >> np.uint32(16)) & np.uint32(1)
            rounded[i] = np.uint16((bits + np.uint32(_HALF) + even) >> np.uint32(16))
    return largest
