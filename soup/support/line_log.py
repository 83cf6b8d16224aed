"""An append-only file of lines, of one writer: a line is on the disk before whoever wrote it goes on.

A torn last line (it has no end, for the process was killed while it wrote) is dropped: nobody went on from it.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path

from soup.errors import SoupError
from soup.support.atomic_files import make_folders, sync
from soup.support.file_lock import FileLock
from soup.support.open_files import read_errors, refuse_irregular

__all__ = ["LineLog", "whole_lines"]


def whole_lines(path: Path, error: type[SoupError]) -> list[bytes]:
    """Read the whole lines of a log, with their ends; none where there is no file.

    Raises:
        SoupError: of the class `error`: it can't be read.
    """
    refuse_irregular(path, error)
    with read_errors(path, error):
        lines = list(io.BytesIO(path.read_bytes())) if path.exists() else []  # not splitlines, which cuts at \r, too
    return [line for line in lines if line.endswith(b"\n")]


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
        end = self._end
        try:
            self.file.truncate(end)  # only now: who opened the log may have found its lines damaged
            while line:
                line = line[self.file.write(line) :]
            os.fsync(self.file.fileno())
            self._end = self.file.tell()
        except OSError as cause:
            with suppress(OSError):
                self.file.truncate(end)  # else the line is torn, and dropped when the log is opened again
            raise self.error(f"{self.path}: can't be appended to ({cause.strerror or cause}).") from cause

    def close(self) -> None:
        """Close the file and release its lock, so that another process can write it."""
        if self.file is not None:
            self.file.close()
            self.file = None
        self._lock.release()
