"""An append-only file of lines, of one writer or of several: a line is on the disk before whoever wrote it goes on.

A torn last line (it has no end, for the process was killed while it wrote) is dropped: nobody went on from it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from soup.errors import SoupError
from soup.support.atomic_files import make_folders, sync
from soup.support.file_lock import FileLock
from soup.support.open_files import read_errors, refuse_irregular

__all__ = ["LineLog", "SharedLineLog", "whole_lines"]

PATIENCE_SECONDS = 30.0
"""How long a line waits for those of other processes, each of which takes as long as the disk needs to sync."""


def whole_lines(path: Path, error: type[SoupError]) -> list[bytes]:
    """Read the whole lines of a log, with their ends; none where there is no file.

    Raises:
        SoupError: of the class `error`: it can't be read.
    """
    refuse_irregular(path, error)
    with read_errors(path, error):
        return _whole(path.read_bytes()) if path.exists() else []


def _whole(data: bytes) -> list[bytes]:
    return [line for line in io.BytesIO(data) if line.endswith(b"\n")]  # not splitlines, which cuts at \r, too


class LineLog:
    """A log that this process alone writes, until it is closed.

    Args:
        path: The file, which is made with its folders.
        error: The class of error to raise.
        in_use: What an error says of a file that another process writes, after its path.
        advice: What to do where it can't be written.

    Raises:
        SoupError: of the class `error`: another process is writing it, or it can't be read or written.
    """

    def __init__(self, path: Path, error: type[SoupError], in_use: str, advice: str = "") -> None:
        self.path, self.error = path, error
        self.file: io.FileIO | None = None
        refuse_irregular(path, error)
        try:
            make_folders(path.parent)
            lock = FileLock.take(path)
            sync(path.parent)
        except OSError as cause:
            raise error(f"{path}: can't be written ({cause.strerror or cause}).{advice and f' {advice}'}") from cause
        if lock is None:
            raise error(f"{path}: {in_use}")
        self._lock = lock
        try:
            self.lines = whole_lines(path, error)
            self._end = sum(map(len, self.lines))
            self.file = path.open("ab", buffering=0)
        except BaseException:
            self.close()
            raise

    def append(self, line: bytes) -> None:
        """Append a line, with its end. When this returns, it survives a kill.

        Raises:
            SoupError: of the class `error`: the disk is full or failed.
        """
        assert self.file is not None, "this log is closed"
        try:
            self._end = _append(self.file, self._end, line)
        except OSError as cause:
            raise self.error(f"{self.path}: can't be appended to ({cause.strerror or cause}).") from cause

    def close(self) -> None:
        """Close the file and release its lock, so that another process can write it."""
        if self.file is not None:
            self.file.close()
            self.file = None
        self._lock.release()


class SharedLineLog:
    """A log that several processes write, each of them alone for the time of a line.

    Args:
        path: The file, which is made with its folders.
        error: The class of error to raise.
    """

    def __init__(self, path: Path, error: type[SoupError]) -> None:
        self.path, self.error = path, error
        self._end = self._inode = 0
        self._file: io.FileIO | None = None

    @contextmanager
    def turn(self) -> Iterator[list[bytes]]:
        """Have the file for oneself for the time of a `with`, which gets the lines that came since the last turn.

        After a kill in the middle of it, the others go on. Lines come again where the file was replaced, or where the
        body of the `with` raised.

        Raises:
            SoupError: of the class `error`: it can't be read or written, or others never gave it back.
        """
        refuse_irregular(self.path, self.error)
        try:
            make_folders(self.path.parent)
            lock = FileLock.wait(self.path, PATIENCE_SECONDS)
            if lock is None:
                raise self.error(f"{self.path}: another process has held it for {PATIENCE_SECONDS:g} s; look at that.")
            before = self._end, self._inode
            try:
                with self.path.open("ab+", buffering=0) as self._file:
                    yield self._new_lines(self._file)
            except BaseException:
                self._end, self._inode = before
                raise
            finally:
                self._file = None
                lock.release()
        except OSError as cause:
            raise self.error(f"{self.path}: can't be written ({cause.strerror or cause}).") from cause

    def append(self, line: bytes) -> None:
        """Append a line, with its end, within a turn. When this returns, it survives a kill.

        Raises:
            OSError: the disk is full or failed; the line is not there.
        """
        assert self._file is not None, "a line is appended within a turn"
        self._end = _append(self._file, self._end, line)

    def _new_lines(self, file: io.FileIO) -> list[bytes]:
        status = os.fstat(file.fileno())
        if status.st_ino != self._inode or status.st_size < self._end:
            sync(self.path.parent)
            self._end, self._inode = 0, status.st_ino
        file.seek(self._end)
        lines = _whole(file.readall())
        if lines:
            os.fsync(file.fileno())  # whoever wrote the last one may have been killed before its own
        self._end += sum(map(len, lines))
        return lines


def _append(file: io.FileIO, end: int, line: bytes) -> int:
    """Write a line behind the last whole one, and return where it ends; where that fails, nothing of it stays."""
    try:
        file.truncate(end)  # only now: who opened the log may have found its lines damaged
        while line:
            line = line[file.write(line) :]
        os.fsync(file.fileno())
        return file.tell()
    except OSError:
        with suppress(OSError):
            file.truncate(end)  # else the line is torn, and dropped when the log is read again
        raise
