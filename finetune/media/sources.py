"""Where a picture comes from: a path, bytes, base64, or the dictionary that `datasets` makes of an image.

Every error names its source, and never prints bytes or base64.
"""

from __future__ import annotations

import ast
import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

from soup.errors import FinetuneError

__all__ = ["ImageSource", "image_source", "looks_like_base64", "shown"]

LONGEST_PATH = 4096
SHOWN = 120  # characters of a text that an error shows
# Also of the URL-safe alphabet, percent-encoded, without padding, or as Python prints bytes: b'...'.
BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+(?:=|%3D){0,2}\s*|(?:[A-Za-z0-9+/_\-\s]|%2[BFbf]|%3[Dd]|%0[ADad])+")
PRINTED_BYTES = re.compile(r"b['\"].*", re.DOTALL)
SHORTEST_BASE64 = 64  # characters; shorter texts are paths, unless they begin as pictures do
URL_SAFE = str.maketrans("-_", "+/")
# How PNG, JPEG, GIF, WebP (and AVI), BMP, TIFF and MP4 begin in base64: a path can't well be taken for one of them.
BEGINNINGS = ("iVBORw0KGg", "/9j/", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0A", "AAAA")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class ImageSource:
    """What a decoder reads (`file`), and its name in errors (`name`)."""

    file: Path | BytesIO
    name: str

    def fault(self, what: str) -> FinetuneError:
        """Make an error that names this source."""
        return FinetuneError(f"{self.name}: {what}")


def image_source(content: object, name: str | None = None) -> ImageSource:
    """Recognise where a picture is.

    Args:
        content: a path, bytes, base64 text, a data URI, or {"bytes": ..., "path": ...}. A text is a path if there is
            such a file; else base64 if it looks like it.
        name: its name in errors, in place of the path, or of the kind and length of the content.

    Raises:
        FinetuneError: nothing there, a URL, base64 that is none, or none of the forms.
    """
    if isinstance(content, Mapping):
        return _of_mapping(content, name)
    if isinstance(content, os.PathLike):
        return _of_path(Path(content), name)
    if isinstance(content, bytes | bytearray | memoryview):
        return _of_bytes(bytes(content), name or f"{len(content):,} bytes in memory")
    if isinstance(content, str):
        return _of_text(content, name)
    raise FinetuneError(
        f"{name or 'a picture'}: expected a path, bytes, base64, or a mapping of bytes and path, found "
        f"{type(content).__name__}."
    )


def looks_like_base64(text: str) -> bool:
    """Whether a text can be a picture in base64, or bytes as Python prints them, rather than a path."""
    return bool(PRINTED_BYTES.fullmatch(text) or (len(text) >= SHORTEST_BASE64 and BASE64.fullmatch(text)))


def _of_mapping(mapping: Mapping[str, object], name: str | None) -> ImageSource:
    path, content = mapping.get("path"), mapping.get("bytes")
    if content is not None:
        # `datasets` keeps the file's name as the path even where the bytes are at hand.
        return image_source(content, name or (f"{shown(str(path))} (its bytes)" if path else None))
    if path is None:
        raise FinetuneError(
            f"{name or 'a picture'}: expected a mapping with bytes or path, found "
            f"{', '.join(map(str, mapping)) or 'an empty one'}, neither of them filled."
        )
    return image_source(path, name)


def _of_text(text: str, name: str | None) -> ImageSource:
    if text[:5].lower() == "data:":
        return _of_data_uri(text, name)
    if URL.match(text):
        raise FinetuneError(
            f"{name or shown(text)}: a URL; pictures are read from files, bytes or base64 alone. Download it first, "
            "and give the path."
        )
    if len(text) <= LONGEST_PATH and "\0" not in text and os.path.lexists(text):
        return _of_path(Path(text), name)
    if looks_like_base64(text) or (text.startswith(BEGINNINGS) and BASE64.fullmatch(text)):
        return _of_base64(text, name or f"base64 text of {len(text):,} characters")
    return _of_path(Path(text), name)


def _of_data_uri(text: str, name: str | None) -> ImageSource:
    name = name or f"data URI of {len(text):,} characters"
    head, comma, body = text.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise FinetuneError(f"{name}: expected data:TYPE;base64,... and found no base64 in it.")
    return _of_base64(body, name)


def _of_base64(text: str, name: str) -> ImageSource:
    if PRINTED_BYTES.fullmatch(text):
        printed = _printed_bytes(text, name)
        if not BASE64.fullmatch(text := printed.decode("latin-1")):
            return _of_bytes(printed, name)
    body = "".join(unquote(text).split()).translate(URL_SAFE).rstrip("=")
    try:
        content = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except ValueError as error:
        raise FinetuneError(f"{name}: not base64 ({error}); is it cut off?") from error
    return _of_bytes(content, name)


def _printed_bytes(text: str, name: str) -> bytes:
    try:
        content = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:  # all that it documents
        raise FinetuneError(f"{name}: bytes as Python prints them, and not whole; is it cut off?") from error
    return content if isinstance(content, bytes) else b""


def _of_bytes(content: bytes, name: str) -> ImageSource:
    if not content:
        raise FinetuneError(f"{name}: empty; expected the content of a picture's file.")
    return ImageSource(BytesIO(content), name)


def _of_path(path: Path, name: str | None) -> ImageSource:
    name = name or shown(str(path))
    # os.path's is False, not an error, for a name that no file can have
    if not os.path.exists(path):  # noqa: PTH110  # pathlib raises where a name is too long
        raise FinetuneError(f"{name}: no such file; expected the path of a picture.")
    if not path.is_file() and not path.is_dir():  # whose files may be the frames of a video
        raise FinetuneError(f"{name}: a pipe or a device; expected the file of a picture.")
    if path.is_file() and path.stat().st_size == 0:
        raise FinetuneError(f"{name}: an empty file; expected a picture.")
    return ImageSource(path, name)


def shown(text: str) -> str:
    """Give the beginning of any text, for errors."""
    start = text[:SHOWN] if text[:SHOWN].isprintable() else repr(text[:SHOWN])
    return start if len(text) <= SHOWN else f"{start}... ({len(text):,} characters)"
