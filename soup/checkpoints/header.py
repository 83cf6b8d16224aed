"""The header of a `.safetensors` file, parsed and checked. The whole format:

8 bytes   length n of the header, little-endian
n bytes   JSON: {name: {"dtype", "shape", "data_offsets": [begin, end]}, ..., "__metadata__": {str: str}}
the rest  the tensors' bytes; the offsets count from here, and leave no gap and no overlap
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import mul
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, NoReturn
from weakref import WeakValueDictionary

from soup.checkpoints.dtypes import DTYPES, Dtype, TensorSpec
from soup.errors import CheckpointError
from soup.support.open_files import read_errors
from soup.support.text import bullet_list, format_bytes

__all__ = ["MAX_HEADER_BYTES", "Header", "Placement", "read_header"]

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit, so that a damaged length can't make a reader allocate all memory."""

METADATA = "__metadata__"


class Placement(NamedTuple):
    """Where a tensor lies in its file: its spec, and the offset of its first byte from the start of the file."""

    spec: TensorSpec
    offset: int


@dataclass(frozen=True)
class Header:
    """A checked header: every tensor's placement by name, in file order; the free metadata; the size of the file."""

    tensors: Mapping[str, Placement]
    metadata: Mapping[str, str]
    file_bytes: int

    @cached_property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Every tensor's spec by name, in file order."""
        return {name: placement.spec for name, placement in self.tensors.items()}


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file, without touching the tensors.

    Raises:
        CheckpointError: The file is truncated or no safetensors file, or its header is too long, not JSON, or has
            offsets that overlap, leave a gap or point out of the file. All damaged entries are listed.
    """
    with read_errors(path, CheckpointError), path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        header_bytes = int.from_bytes(_exactly(file.read(8), 8, path), "little")
        if header_bytes > MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{path}: the header claims {format_bytes(header_bytes)}, and the format allows "
                f"{format_bytes(MAX_HEADER_BYTES)}. This is no safetensors file, or its first bytes are damaged."
            )
        if 8 + header_bytes > file_bytes:
            raise CheckpointError(
                f"{path}: the header claims {header_bytes} bytes and the file has {file_bytes - 8} after its "
                "length. The file is truncated or damaged: copy or download it again."
            )
        text = _exactly(file.read(header_bytes), header_bytes, path)
    key = hashlib.sha256(text).digest(), file_bytes
    if header := _headers.get(key):
        return header
    entries = _parse(text, path)
    del text
    metadata = _metadata(entries.pop(METADATA, {}), path)
    tensors = _tensors(entries, 8 + header_bytes, file_bytes, path)
    return _headers.setdefault(key, Header(MappingProxyType(tensors), MappingProxyType(metadata), file_bytes))


_headers: WeakValueDictionary[tuple[bytes, int], Header] = WeakValueDictionary()
"""Those in use, by the digest of their text: fine-tunes of one model mostly have the same, which is held once."""


def _exactly(data: bytes, count: int, path: Path) -> bytes:
    """Return `data`, which must be `count` bytes long."""
    if len(data) < count:
        raise CheckpointError(f"{path}: truncated: expected {count} more bytes of header, found {len(data)}.")
    return data


def _parse(text: bytes, path: Path) -> dict[str, object]:
    """Parse the header as strictly as safetensors does: no name twice, no number that is not JSON.

    An entry is checked as soon as it is read, and kept as little more than its numbers: a header of 80 MB holds a
    million of them.
    """
    repeated: list[str] = []

    def compact(pairs: list[tuple[str, object]]) -> object:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            repeated.extend(sorted(name for name, count in counts.items() if count > 1))
        return _span(entries) if type(entries.get("dtype")) is str else entries

    try:
        entries = json.loads(
            text.decode("utf-8"), object_pairs_hook=compact, parse_int=_whole, parse_constant=_not_json
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is not JSON ({error}). The file is damaged.") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path}: the header must be a JSON object, found {type(entries).__name__}.")
    if repeated:
        raise CheckpointError(f"{path}: the header names the same thing twice:\n{bullet_list(repeated)}")
    return entries


def _whole(text: str) -> int:
    if text == "-0" or len(text) > 20:
        _not_json(text)
    return int(text)


def _not_json(text: str) -> NoReturn:
    raise ValueError(f"{text:.20} is no number of the format")  # Python's parser would take it, safetensors' does not


def _metadata(value: object, path: Path) -> dict[str, str]:
    """Check the free metadata: strings by name."""
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise CheckpointError(f"{path}: {METADATA} must map strings to strings, found {value!r:.80}.")
    try:
        "".join([*value, *value.values()]).encode()
    except ValueError as error:
        raise CheckpointError(f"{path}: {METADATA} holds text that is no Unicode ({error}).") from error
    return value


class _Span(NamedTuple):
    """A tensor's entry in the header; its offsets count from the end of the header."""

    begin: int
    end: int
    dtype: Dtype
    shape: tuple[int, ...]


class _Fault(NamedTuple):
    """Why an entry is none."""

    reason: str


def _tensors(entries: dict[str, object], data_start: int, file_bytes: int, path: Path) -> dict[str, Placement]:
    """Check that the tensors together fill the file without gap or overlap."""
    wrong: list[str] = []
    spans: list[tuple[_Span, str]] = []
    while entries:  # which is emptied, so that no tensor is held twice
        name, entry = entries.popitem()
        span = entry if isinstance(entry, _Span | _Fault) else _span(entry)
        if not _is_text(name):  # half a surrogate pair is a legal JSON escape, and no legal name
            wrong.append(f"{name!r}: no Unicode")
        elif isinstance(span, _Fault):
            wrong.append(f"{name}: {span.reason}")
        else:
            spans.append((span, name))
    wrong.reverse()
    spans.sort(key=lambda item: item[0][:2])
    expected = 0
    for span, name in spans:
        if span.begin != expected:
            kind = "overlaps the tensor before it" if span.begin < expected else "leaves a gap before it"
            wrong.append(f"{name}: {kind}: expected to begin at {expected}, found {span.begin}")
        expected = max(expected, span.end)
    if not wrong and data_start + expected != file_bytes:
        raise CheckpointError(
            f"{path}: the header describes {data_start + expected} bytes and the file has {file_bytes}. "
            "It is truncated or damaged: copy or download it again."
        )
    if wrong:
        raise CheckpointError(f"{path}: damaged header:\n{bullet_list(wrong)}")
    tensors: dict[str, Placement] = {}
    spans.reverse()
    while spans:  # which is emptied too
        span, name = spans.pop()
        name = sys.intern(name)  # fine-tunes of one model have the same names, whatever their files
        tensors[name] = Placement(TensorSpec(name, span.dtype, span.shape), data_start + span.begin)
    return tensors


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _span(entry: object) -> _Span | _Fault:
    """Check one tensor's entry."""
    try:
        return _checked_span(entry)
    except (ValueError, TypeError) as error:
        return _Fault(str(error))


def _checked_span(entry: object) -> _Span:
    if not isinstance(entry, dict):
        raise TypeError(f"expected an object with dtype, shape and data_offsets, found {entry!r:.80}")
    missing = [key for key in ("dtype", "shape", "data_offsets") if key not in entry]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ValueError(f"unknown dtype {entry['dtype']!r:.80}")
    shape, offsets = _naturals(entry["shape"], "shape"), _naturals(entry["data_offsets"], "data_offsets")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"data_offsets must be [begin, end] with begin <= end, found {offsets!r:.80}")
    if any(product >= 2**63 for product in accumulate(shape, mul)):  # even if a later 0 makes the tensor empty
        raise ValueError(f"shape {shape!r:.80} is too large")
    spec = TensorSpec("", DTYPES[entry["dtype"]], tuple(shape))
    if spec.bytes != offsets[1] - offsets[0]:
        raise ValueError(f"{spec} needs {spec.bytes} bytes, its data_offsets span {offsets[1] - offsets[0]}")
    return _Span(offsets[0], offsets[1], spec.dtype, spec.shape)


def _naturals(value: object, key: str) -> list[int]:
    """Check a list of whole numbers that are not negative and fit in 64 bits."""
    # `type(x) is int` and not isinstance: JSON's true would pass for 1.
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item < 2**63 for item in value):
        raise ValueError(f"{key} must be a list of non-negative whole numbers, found {value!r:.80}")
    return value
