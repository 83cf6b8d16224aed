"""The compiled library: plain C, `soup/merging/kernels`, compiled when soup is installed.

Without a compiler torch does all of it.
"""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

__all__ = ["DTYPE_NAMES", "address_of", "has_kernels", "load_library"]

DTYPE_NAMES = ("bfloat16", "float16", "float32", "float64")
"""The dtypes that it knows, in the order of their numbers in C."""


@cache
def load_library() -> ctypes.CDLL | None:
    """Load it; None where it was not built, or is for another machine or an earlier version of soup.

    Beside its sources, in a checkout, it has to be made of them: a function that takes other arguments would read
    memory that is none of its own.
    """
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernels{suffix}")
        if path.is_file():
            try:
                return _declared(ctypes.CDLL(str(path)))
            except (AttributeError, OSError):
                return None
    return None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Say what its functions take."""
    library.soup_sources.restype = ctypes.c_char_p
    sources = sorted(Path(__file__).parent.glob("kernels/*.[ch]"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    if sources and library.soup_sources().decode() != digest:
        raise OSError("made of other sources")
    code, pointer, number = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64
    library.soup_merge.argtypes = (pointer, code, number, pointer, pointer, pointer, number, ctypes.c_uint64)
    library.soup_merge_cached.argtypes = (
        *(pointer, code, number, code, pointer, pointer, pointer, number, pointer, number, ctypes.c_uint64),
    )
    library.soup_merge_cached.restype = number
    library.soup_read_cached.argtypes = (number, *(pointer,) * 5)
    library.soup_read_cached.restype = None
    library.soup_same_bytes.argtypes = (number, pointer, number)
    library.soup_dots.argtypes = (code, code, code, number, pointer, pointer, number, pointer, pointer)
    library.soup_magnitudes.argtypes = (code, number, pointer, pointer, number, pointer, pointer, pointer, pointer)
    library.soup_count.argtypes = (number, pointer, pointer, code, pointer, number)
    library.soup_count.restype = None
    library.soup_cut_right.argtypes = (pointer, *(number,) * 5, pointer, pointer)
    library.soup_add_product.argtypes = (pointer, code, pointer, pointer, number, number)
    library.soup_sum_deltas.argtypes = (code, number, pointer, pointer, number, pointer, pointer, pointer)
    return library


def has_kernels() -> bool:
    """Whether it is here."""
    return load_library() is not None


def address_of(memory: bytearray | memoryview) -> int:
    """Return where writable memory begins; 0 where it is empty."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory)) if len(memory) else 0
