"""Lock a file or directory for one process at a time. The lock is advisory, and ends when its process does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock: the user must avoid two runs on one folder
    fcntl = None  # type: ignore[assignment]  # and flock is then never called

__all__ = ["FileLock"]


class FileLock:
    """An exclusive lock on a file or directory, held until `release`; the end of the process releases it, too.

    Args:
        fd: The open file descriptor that carries the lock; -1 where the platform has no locks.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, path: Path) -> FileLock | None:
        """Lock an existing file or directory, without waiting.

        Returns:
            None where another process (or another `FileLock` of this one) holds it.
        """
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
        """Whether `path` names the file that is locked: it may have been renamed before the lock was taken."""
        if self._fd < 0:
            return True
        try:
            return os.path.samestat(os.fstat(self._fd), path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release the lock, so that another process can take it; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
