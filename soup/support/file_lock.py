"""One process at a time: an advisory lock on an open file or directory, which dies with its process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock: two runs on one folder are then the user's to avoid
    fcntl = None  # type: ignore[assignment]  # and flock is then never called

__all__ = ["FileLock"]


class FileLock:
    """Holds a file or a directory for this process until `release`; kill -9 releases it too."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, path: Path) -> FileLock | None:
        """A lock on an existing file or directory; None if another process (or another `FileLock`) holds it."""
        if "fcntl" not in sys.modules:
            return cls(-1)
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return cls(fd)

    def is_on(self, path: Path) -> bool:
        """Whether `path` still names what is locked: it may have been renamed while we waited for it."""
        if self._fd < 0:
            return True
        try:
            return os.path.samestat(os.fstat(self._fd), path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let the next one have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
