"""One `.safetensors` file: its header read and checked, its tensors read in blocks, by several threads at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.header import read_header
from soup.errors import CheckpointError
from soup.support.open_files import ReopenedFile

__all__ = ["FilePlace", "Shard"]


class FilePlace(NamedTuple):
    """A place in a file.

    Args:
        file: The file.
        offset: The bytes before the place.
    """

    file: ReopenedFile
    offset: int

    def moved(self, count: int) -> FilePlace:
        """Return the place `count` bytes further on."""
        return FilePlace(self.file, self.offset + count)


class Shard:
    """A safetensors file that stays open between block reads while there is room; several threads may read at once.

    Raises:
        CheckpointError: See `read_header`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_header(path)
        self._file = ReopenedFile(path, os.O_RDONLY)

    @property
    def name(self) -> str:
        """The file's name, as an index gives it."""
        return self.path.name

    def __iter__(self) -> Iterator[TensorSpec]:
        """Yield the specs of its tensors, in file order."""
        return (placement.spec for placement in self.header.tensors.values())

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """Fill `view` with the tensor's bytes from byte `start` on.

        Raises:
            CheckpointError: The file ends before the view is full, or the disk failed.
        """
        offset = self.header.tensors[name].offset + start
        try:
            with self._file.descriptor() as fd:
                count = _read_at(fd, view, offset)
        except OSError as error:
            raise CheckpointError(f"{self.path}: reading {name} failed ({error.strerror or error}).") from error
        if count < len(view):
            raise CheckpointError(
                f"{self.path}: {name} ends {len(view) - count} bytes early: the file changed or shrank."
            )

    def place_of(self, name: str) -> FilePlace:
        """Return where the tensor begins."""
        return FilePlace(self._file, self.header.tensors[name].offset)

    def expect(self, name: str, start: int, count: int) -> None:
        """Tell the operating system that these bytes are read soon, so that a disk has several reads in flight."""
        if hasattr(os, "posix_fadvise"):  # Linux; elsewhere the threads' own reads have to do
            offset = self.header.tensors[name].offset + start
            with suppress(OSError), self._file.descriptor() as fd:  # the read itself tells what is wrong
                os.posix_fadvise(fd, offset, count, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        self._file.close()


_seek_lock = threading.Lock()


def _read_at(fd: int, view: memoryview, offset: int) -> int:
    """Read into `view` from `offset` until it is full or the file ends, also on Windows; returns the bytes read."""
    done = 0
    while done < len(view):
        if hasattr(os, "preadv"):
            count = os.preadv(fd, [view[done:]], offset + done)
        else:
            with _seek_lock:  # seek and read are two calls, and threads share the position
                os.lseek(fd, offset + done, os.SEEK_SET)
                data = os.read(fd, len(view) - done)
            count = len(data)
            view[done : done + count] = data
        if count == 0:
            break
        done += count
    return done
