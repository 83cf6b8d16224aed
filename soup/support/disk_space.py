"""How much a disk still holds, even for a path that is not there yet; the check before something large is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from soup.errors import SoupError

__all__ = ["FreeSpace", "free_space", "require_bytes"]


class FreeSpace(NamedTuple):
    """The free bytes of a disk, and the existing directory (or file) on it that was asked about."""

    location: Path
    bytes: int


def free_space(path: Path) -> FreeSpace:
    """Measure the disk that holds `path`, or will hold it: the one of its nearest parent that exists."""
    location = next(parent for parent in (path, *path.parents) if parent.exists())
    return FreeSpace(location, shutil.disk_usage(location).free)


def require_bytes(path: Path, needed_bytes: int, error: Callable[[FreeSpace], SoupError]) -> None:
    """Check that `needed_bytes` fit on the disk of `path`.

    Args:
        path: What is to be written, or the directory for it; it need not exist.
        needed_bytes: How much will be written.
        error: Makes the error to raise from what is free.

    Raises:
        SoupError: Less is free; what `error` made.
    """
    free = free_space(path)
    if needed_bytes > free.bytes:
        raise error(free)
