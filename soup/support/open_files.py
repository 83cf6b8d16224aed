"""Keep files open between reads and writes, but never more than the process may have.

A pool of 8 ingredients in 200 shards is 1,600 files, and many systems allow 1,024. So files stay open as long as there
is room, and the one that was not used for longest makes room for the next.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]  # Windows has none, and no such limit

from soup.errors import SoupError

__all__ = ["ReopenedFile", "most_open_files", "open_descriptors", "read_errors", "real_path", "refuse_irregular"]

_WANTED = 4096
"""How many descriptors are asked for; none of the programs that a harness starts minds so many."""


@cache
def most_open_files() -> int:
    """Tell how many files may stay open here: half of what the process may have. Raises that limit if it can."""
    if "resource" not in sys.modules:
        return 128
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (ValueError, OSError):  # a sandbox may forbid it
            pass
    return max(1, (_WANTED if soft == resource.RLIM_INFINITY else min(soft, _WANTED)) // 2)


def real_path(path: Path) -> Path:
    """Follow all links, as `Path.resolve` does, which before Python 3.13 fails where they lead in a circle."""
    return Path(os.path.realpath(path))


def refuse_irregular(path: Path, error: type[SoupError]) -> None:
    """Refuse to open a pipe, which may wait for ever, a device, which may never end, or a folder.

    Raises:
        SoupError: Of the class `error`.
    """
    if path.exists() and not path.is_file():
        raise error(f"{path}: can't be read: expected a regular file, found a pipe, a device or a folder.")


@contextmanager
def read_errors(path: Path, error: type[SoupError]) -> Iterator[None]:
    """Turn what fails while a file is read into an error that names it: the system's own does so only for paths.

    Raises:
        SoupError: Of the class `error`.
    """
    try:
        yield
    except OSError as cause:
        raise error(f"{path}: can't be read ({cause.strerror or cause}).") from cause


_lock = threading.Lock()
_idle: OrderedDict[ReopenedFile, None] = OrderedDict()  # open and not in use, the least recently used first
_open_count = 0


class ReopenedFile:
    """A file that is open while it is used, and after that while there is room; several threads may use it at once.

    Args:
        path: The file; whatever lies there when it is opened again.
        flags: For `os.open`.
    """

    def __init__(self, path: Path, flags: int) -> None:
        self._path, self._flags = path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        self._fd = -1
        self._users = 0
        self._closing = False

    @contextmanager
    def descriptor(self) -> Iterator[int]:
        """Lend the open descriptor.

        Raises:
            OSError: The file can't be opened.
        """
        with _lock:
            descriptor = self._acquire()
        try:
            yield descriptor
        finally:
            with _lock:
                self._release()

    def close(self) -> None:
        """Close the file as soon as nobody uses it; the next use opens it again."""
        with _lock:
            if self._users:
                self._closing = True
            elif self._fd >= 0:
                self._shut()

    def _acquire(self) -> int:
        """Open the file for one more user; the lock is held."""
        self._open()
        self._users += 1
        _idle.pop(self, None)
        return self._fd

    def _release(self) -> None:
        """Take back what was lent; the lock is held."""
        self._users -= 1
        if not self._users:
            _idle[self] = None
            if self._closing:
                self._shut()

    def _open(self) -> None:
        global _open_count
        if self._fd >= 0:
            return
        while _idle and _open_count >= most_open_files():
            next(iter(_idle))._shut()
        try:
            self._fd = os.open(self._path, self._flags)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not _idle:
                raise
            for file in list(_idle):  # others in this process, or on this machine, took the rest
                file._shut()
            self._fd = os.open(self._path, self._flags)
        _open_count += 1

    def _shut(self) -> None:
        """Close an idle file; the lock is held."""
        global _open_count
        _idle.pop(self, None)
        fd, self._fd, self._closing = self._fd, -1, False
        _open_count -= 1
        os.close(fd)


@contextmanager
def open_descriptors(files: Sequence[ReopenedFile]) -> Iterator[list[int]]:
    """Lend the open descriptors of several files at once.

    Raises:
        OSError: One can't be opened.
    """
    descriptors: list[int] = []
    try:
        with _lock:
            for file in files:
                descriptors.append(file._acquire())
        yield descriptors
    finally:
        with _lock:
            for file in files[: len(descriptors)]:
                file._release()
