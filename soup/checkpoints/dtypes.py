"""Dtypes and tensor specs of the safetensors format. Importing this module does not import torch."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from soup.errors import RecipeError
from soup.support.text import did_you_mean

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "LEAF_ELEMENTS", "Dtype", "TensorSpec", "named_dtype"]

Kind = Literal["float", "integer", "complex", "packed"]

LEAF_ELEMENTS = 2**19
"""A tensor is read, hashed and merged in leaves of this many elements (1 MiB of bfloat16): large enough that the work
in Python per leaf does not count, small enough to stay in a core's cache."""


@dataclass(frozen=True)
class Dtype:
    """One row of the dtype table.

    Args:
        code: The name in a safetensors header.
        name: The name in torch and config.json.
        bits: What an element takes.
        kind: What an element is: only `float` is averaged; `packed` holds several numbers in a byte.
        rank: The order in which safetensors lays tensors out: those of the highest rank come first.
    """

    code: str
    name: str
    bits: int
    kind: Kind
    rank: int

    @property
    def torch(self) -> torch.dtype:
        """The torch dtype of that name."""
        import torch  # here, so that headers are read without waiting a second for torch

        dtype = getattr(torch, self.name)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def accumulates_in(self) -> Dtype:
        """The dtype in which values of this one are added up: float32 for 16 bits, float64 for 32 and 64."""
        return DTYPES["F32" if self.bits == 16 else "F64"]


# In the order in which safetensors lays dtypes out, the last first (its own `Dtype` enumeration, version 0.8).
_ROWS: tuple[tuple[str, str, int, Kind], ...] = (
    ("BOOL", "bool", 8, "integer"),
    ("F4", "float4_e2m1fn_x2", 4, "packed"),
    ("F6_E2M3", "float6_e2m3", 6, "packed"),
    ("F6_E3M2", "float6_e3m2", 6, "packed"),
    ("U8", "uint8", 8, "integer"),
    ("I8", "int8", 8, "integer"),
    ("F8_E5M2", "float8_e5m2", 8, "packed"),
    ("F8_E4M3", "float8_e4m3fn", 8, "packed"),
    ("F8_E8M0", "float8_e8m0fnu", 8, "packed"),
    ("F8_E4M3FNUZ", "float8_e4m3fnuz", 8, "packed"),
    ("F8_E5M2FNUZ", "float8_e5m2fnuz", 8, "packed"),
    ("I16", "int16", 16, "integer"),
    ("U16", "uint16", 16, "integer"),
    ("F16", "float16", 16, "float"),
    ("BF16", "bfloat16", 16, "float"),
    ("I32", "int32", 32, "integer"),
    ("U32", "uint32", 32, "integer"),
    ("F32", "float32", 32, "float"),
    ("C64", "complex64", 64, "complex"),
    ("F64", "float64", 64, "float"),
    ("I64", "int64", 64, "integer"),
    ("U64", "uint64", 64, "integer"),
)

DTYPES = {code: Dtype(code, name, bits, kind, rank) for rank, (code, name, bits, kind) in enumerate(_ROWS)}

_SHORT = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}


def named_dtype(name: str) -> Dtype:
    """Find the floating dtype that a user names: `bfloat16`, `float16`, `float32`, `float64`, or `bf16`, `fp16`, ...

    Raises:
        RecipeError: No such dtype, or one that holds no ordinary floating-point numbers.
    """
    floats = {dtype.name: dtype for dtype in DTYPES.values() if dtype.kind == "float"}
    full = _SHORT.get(name, name)
    if full not in floats:
        raise RecipeError(f"Unknown dtype '{name}'.{did_you_mean(name, floats)}")
    return floats[full]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's name, dtype and shape. Two specs are equal where their tensors can be averaged as they are."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements: 1 for a 0-d tensor, 0 for an empty one."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """The size in a file, without padding."""
        return (self.elements * self.dtype.bits + 7) // 8

    @property
    def is_frequencies(self) -> bool:
        """Whether it is a buffer of a rotary embedding, whatever dtype the model has."""
        return self.name.endswith("inv_freq")

    def cast(self, dtype: Dtype | None) -> TensorSpec:
        """Give the spec with another floating dtype; other kinds of tensors keep theirs, and all do for None.

        A rotary embedding's frequencies keep theirs too, as in transformers, where they are computed in float32: in
        bfloat16 their phases are off by radians after some thousand tokens.
        """
        if dtype is None or self.dtype.kind != "float" or self.is_frequencies:
            return self
        return TensorSpec(self.name, dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


if sys.byteorder != "little":
    raise ImportError("soup reads and writes safetensors blocks in place, which needs a little-endian machine.")
