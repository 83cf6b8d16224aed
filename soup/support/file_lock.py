"""Lock a file for one process at a time. The lock is advisory, and ends when its process does."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock: the user must avoid two runs on one folder
    fcntl = None  # type: ignore[assignment]  # and flock is then never called

__all__ = ["FileLock"]

log = logging.getLogger(__name__)
POLL_SECONDS = 0.003

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""What flock answers where the file system has no locks: Lustre without `-o flock`, NFS without a lock daemon, FUSE."""


class FileLock:
    """An exclusive lock on a file, held until `release`; the end of the process releases it, too.

    Args:
        fd: The open file descriptor that carries the lock; -1 where there are no locks.
        temporary: The file, if it is removed with the lock.
    """

    def __init__(self, fd: int, temporary: Path | None = None) -> None:
        self._fd, self._temporary = fd, temporary

    @classmethod
    def take(cls, path: Path, *, temporary: bool = False) -> FileLock | None:
        """Lock a file, without waiting; a missing one is made.

        Where the file system has no locks every lock is taken, and a warning says so once.

        Args:
            path: The file. It is opened for writing, since NFS locks no other; so it can't be a directory.
            temporary: Whether the file is there for the lock alone, and is removed with it.

        Returns:
            None where another process (or another `FileLock` of this one) holds it.
        """
        if "fcntl" not in sys.modules:
            return cls(-1)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            lock = cls(fd, path if temporary else None)
            try:
                if not _flock(fd):
                    os.close(fd)
                    return None
                if lock._is_on(path):  # and was not removed with the lock of another process before we had ours
                    return lock
            except OSError as error:
                lock.release()
                if error.errno not in _NO_LOCKS:
                    error.filename = str(path)  # of which flock says nothing
                    raise
                _warn_of_no_locks(error.strerror)
                return cls(-1)
            except BaseException:
                with suppress(OSError):
                    if not _flock(fd):  # then the file is another run's
                        lock._temporary = None
                lock.release()
                raise
            os.close(fd)

    @classmethod
    def wait(cls, path: Path, seconds: float, *, temporary: bool = False) -> FileLock | None:
        """Lock a file like `take`, for which others are waited so long; None where it is still held then."""
        end = time.monotonic() + seconds
        while (lock := cls.take(path, temporary=temporary)) is None and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        return lock

    def _is_on(self, path: Path) -> bool:
        """Whether `path` still names the file that is locked."""
        try:
            return os.path.samestat(os.fstat(self._fd), path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release the lock, so that another process can take it; a second call does nothing."""
        if self._fd >= 0:
            if self._temporary:
                with suppress(OSError):
                    if self._is_on(self._temporary):  # it may have got another name
                        self._temporary.unlink()  # before it is unlocked: it is nobody else's yet
            fd, self._fd = self._fd, -1  # in this order: after an interrupt the number may be another file's
            os.close(fd)


def _flock(fd: int) -> bool:
    """Whether the lock could be had, or is held by this descriptor already."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # EACCES is what NFS may say of a file that is locked
        return False
    return True


@cache
def _warn_of_no_locks(reason: str) -> None:
    log.warning(
        "warning: this file system has no locks (%s): nothing keeps two runs from the same folder. Start one at a "
        "time.",
        reason,
    )
