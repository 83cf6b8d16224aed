"""The digest of a file of questions, pictures or videos: a part of what a score is remembered under."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["file_digest"]

_digests: dict[tuple[str, int, int], str] = {}


def file_digest(path: Path) -> str:
    """Return a file's SHA-256; it is read once per process for each size and time of change."""
    stat = path.stat()
    key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]
