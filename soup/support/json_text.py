"""Read JSON that may be damaged or hostile: in bounded time and memory, and with one error for all that is wrong.

Python's own reader takes what later fails elsewhere: nesting that no recursion survives, half of a surrogate pair that
can't be written, a number of thousands of digits, a key that stands twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import IO

from soup.errors import SoupError
from soup.support.open_files import refuse_irregular

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_TEXT_BYTES",
    "check_kinds",
    "log_lines",
    "parse_json",
    "parse_json_object",
    "read_json",
    "read_json_object",
    "read_text",
]

MAX_JSON_BYTES = 64_000_000
"""Twice the largest tokenizer.json that is known."""
MAX_TEXT_BYTES = 1_000_000  # of a text that people wrote: a recipe of some thousand ingredients, a prompt
MAX_CONTAINERS = 2_000_000  # lists and objects; each takes some 100 bytes, for two in the file
MAX_DEPTH = 100
MAX_DIGITS = 300
"""The most digits of a number; more would not fit into a float. A tokenizer's `model_max_length` has 31."""

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, error: type[SoupError], most_bytes: int = MAX_JSON_BYTES) -> object:
    """Read a JSON file.

    Args:
        path: The file.
        error: The class of error to raise.
        most_bytes: How large it may be.

    Raises:
        SoupError: Of the class `error`: it can't be read, or see `parse_json`.
    """
    return parse_json(read_text(path, error, most_bytes), path, error, most_bytes)


def parse_json(
    data: bytes | str,
    source: object,
    error: type[SoupError],
    most_bytes: int = MAX_JSON_BYTES,
    *,
    may_halve: bool = False,
) -> object:
    """Parse JSON.

    Args:
        data: The text; bytes are UTF-8.
        source: The file, or what else it comes from, for the error.
        error: The class of error to raise.
        most_bytes: How long it may be.
        may_halve: Whether its texts may hold half of a surrogate pair, which whoever asks for them replaces then.

    Raises:
        SoupError: Of the class `error`: no JSON, too large, nested too deep, a number of too many digits, half of a
            surrogate pair, or a key that stands twice in one object with two values.
    """
    try:
        if len(data) > most_bytes:
            raise ValueError(f"expected at most {most_bytes:,} bytes, found {len(data):,}")
        text = data if isinstance(data, str) else data.decode("utf-8")
        if (count := text.count("[") + text.count("{")) > MAX_CONTAINERS:
            raise ValueError(f"expected at most {MAX_CONTAINERS:,} lists and objects, found {count:,}")
        document: object = json.loads(text, object_pairs_hook=_unique, parse_int=_bounded_int)
        _refuse_odd(document, has_surrogates=not may_halve and _ESCAPED_SURROGATE.search(text) is not None)
    except RecursionError as cause:
        raise error(f"{source}: not readable as JSON (nested more than {MAX_DEPTH} deep).") from cause
    except ValueError as cause:
        raise error(f"{source}: not readable as JSON ({cause}).") from cause
    return document


def read_json_object(path: Path, error: type[SoupError]) -> dict[str, object]:
    """Read the object in a JSON file; see `read_json`.

    Raises:
        SoupError: Of the class `error`: see `read_json`, or it is something else than an object.
    """
    return parse_json_object(read_text(path, error, MAX_JSON_BYTES), path, error)


def parse_json_object(data: bytes | str, source: object, error: type[SoupError]) -> dict[str, object]:
    """Parse a JSON object; see `parse_json`.

    Raises:
        SoupError: Of the class `error`: see `parse_json`, or it is something else than an object.
    """
    document = parse_json(data, source, error)
    if not isinstance(document, dict):
        raise error(f"{source}: expected a JSON object, found {type(document).__name__}.")
    return document


def log_lines(path: Path) -> Iterator[dict[str, object]]:
    """Yield the objects of a log in JSON lines; what is none, as a last line that is half written, is passed over.

    Args:
        path: The file; none is an empty one.
    """
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                with suppress(SoupError):
                    yield parse_json_object(line, path, SoupError)


def check_kinds(
    document: Mapping[str, object],
    kinds: Mapping[str, type | UnionType],
    items: Mapping[str, type | UnionType] | None = None,
) -> None:
    """Check what an object holds that a file may have in any other form.

    Args:
        document: The object.
        kinds: What each of its keys must hold; one that is not there holds None.
        items: What the list or the object under a key must hold.

    Raises:
        ValueError: Naming what holds something else.
    """
    wrong = [key for key, kind in kinds.items() if not isinstance(document.get(key), kind)]
    wrong += [
        key
        for key, kind in (items or {}).items()
        if not all(isinstance(item, kind) for item in _values(document.get(key)))
    ]
    if wrong:
        raise ValueError(f"no values of the right kind under {', '.join(dict.fromkeys(wrong))}")


def read_text(path: Path, error: type[SoupError], most_bytes: int) -> bytes:
    """Read a file of text, as bytes, and no further than it may be large; pipes and devices are not waited for.

    Raises:
        SoupError: Of the class `error`: it can't be read, is no regular file, or is too large.
    """
    try:
        refuse_irregular(path, error)
        with path.open("rb") as file:
            data = _read_to_end(file, most_bytes + 1)
    except (OSError, ValueError) as cause:  # a name that holds a NUL is a ValueError
        raise error(f"{path}: can't be read ({getattr(cause, 'strerror', None) or cause}).") from cause
    if len(data) > most_bytes:
        raise error(f"{path}: expected at most {most_bytes:,} bytes of text, found more.")
    return data


def _read_to_end(file: IO[bytes], most_bytes: int) -> bytes:
    """Read in pieces: `read(n)` would take n bytes of memory at once, for a small file, too."""
    data = bytearray()
    while piece := file.read(min(2**20, most_bytes - len(data))):
        data += piece
    return bytes(data)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) < len(pairs) and (twice := [key for key, value in pairs if entries[key] != value]):
        raise ValueError(f"the key {twice[0]!r:.80} stands twice in one object, with two values")
    return entries


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits, {text[:10]}...")
    return int(text)


def _refuse_odd(document: object, *, has_surrogates: bool) -> None:
    """Refuse deep nesting and half surrogate pairs, level by level and so without recursion."""
    level = [document]
    for _ in range(MAX_DEPTH + 1):
        children: list[object] = []
        for parent in level:
            children += (*parent, *parent.values()) if has_surrogates and isinstance(parent, dict) else _values(parent)
        if has_surrogates:
            _refuse_surrogates([text for text in [*level[:1], *children] if isinstance(text, str)])
        level = [child for child in children if isinstance(child, (dict, list))]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _values(parent: object) -> list[object]:
    if isinstance(parent, dict):
        return list(parent.values())
    return parent if isinstance(parent, list) else []


def _refuse_surrogates(texts: list[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"half of a surrogate pair in the text {text!r:.80}") from error
