"""The mean of bfloat16 values in one pass, compiled by numba: widen, add, divide, round.

torch has no such kernel: it widens each input into memory and adds it from there, so that a mean of seven takes four
times as long. The bytes are the same: float32 sums in recipe order, one division, one rounding to nearest even; and
since no operation is fused with another, they are the same on every machine. NaN, infinity and results that round to it
are left to torch. numba is optional: pip install 'vlm-soup[fast]'. `soup.merging.mean_kernel` decides when it is used.

Importing this module compiles the kernel, once per machine: numba keeps it in its cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["mean_of_bfloat16"]

CHUNK = 2048
"""Elements that are added up at a time: their float32 sums (8 KiB) stay in the processor's first cache."""

_SIGN, _HALF, _TOO_LARGE = 0x7FFFFFFF, 0x7FFF, 0x7F7F8000
"""All bits but the sign; just below half of bfloat16's last place; the first float32 that rounds to infinity in it."""


def mean_of_bfloat16(values: Sequence[torch.Tensor], out: torch.Tensor) -> bool:
    """Write the mean of `values` (contiguous bfloat16, [elements] each) into `out` (of the same dtype and shape).

    Returns:
        False where a sum or a result is not finite; what `out` holds then is of no use.
    """
    addresses = np.array([tensor.data_ptr() for tensor in values], dtype=np.uint64)
    return int(_mean(addresses, out.data_ptr(), out.numel())) < _TOO_LARGE


@intrinsic
def _pointer(typing: object, address: object) -> tuple[object, Callable[..., object]]:
    """Turn an address into a pointer to 16-bit words."""
    kind = types.CPointer(types.uint16)
    return kind(address), lambda context, builder, _, args: builder.inttoptr(args[0], context.get_value_type(kind))


def _bit_cast(source: Callable[[object], object], target: Callable[[object], object]) -> Any:
    """Make a compiled function that reads the bits of a number of type `source` as one of type `target`."""

    def bits(typing: object, value: object) -> tuple[object, Callable[..., object]]:
        return target(source), lambda context, builder, _, args: builder.bitcast(
            args[0], context.get_value_type(target)
        )

    return intrinsic(bits)


_as_float = _bit_cast(types.uint32, types.float32)
_as_bits = _bit_cast(types.float32, types.uint32)


@njit(inline="always")
def _widen(half: np.uint16) -> Any:
    """Turn a bfloat16's bits into the float32 whose upper half they are."""
    return _as_float(np.uint32(half) << np.uint32(16))


@njit("uint32(uint64[::1], uint64, int64)", nogil=True, cache=True, error_model="numpy")
def _mean(addresses: NDArray[np.uint64], out: int, elements: int) -> np.uint32:
    """Write the mean of the inputs at `addresses` to the address `out`.

    Returns:
        The bits of the largest absolute value before rounding. Bits sort as the values do, NaN after infinity.
    """
    count, largest = np.float32(addresses.size), np.uint32(0)
    sums = np.empty(CHUNK, np.float32)
    result = carray(_pointer(out), elements)
    for start in range(0, elements, CHUNK):
        end = min(start + CHUNK, elements)
        total, rounded = sums[: end - start], result[start:end]
        first = carray(_pointer(addresses[0]), elements)[start:end]
        for i in range(total.size):
            total[i] = _widen(first[i])
        k = 1
        while k < addresses.size:  # three inputs a pass where there are three: the sums are touched less often
            second = carray(_pointer(addresses[k]), elements)[start:end]
            if k + 2 < addresses.size:
                third = carray(_pointer(addresses[k + 1]), elements)[start:end]
                fourth = carray(_pointer(addresses[k + 2]), elements)[start:end]
                for i in range(total.size):
                    total[i] = ((total[i] + _widen(second[i])) + _widen(third[i])) + _widen(fourth[i])
                k += 3
            else:
                for i in range(total.size):
                    total[i] += _widen(second[i])
                k += 1
        for i in range(total.size):
            bits = _as_bits(total[i] / count)
            largest = max(largest, bits & np.uint32(_SIGN))
            even = (bits >> np.uint32(16)) & np.uint32(1)
            rounded[i] = np.uint16((bits + np.uint32(_HALF) + even) >> np.uint32(16))
    return largest
