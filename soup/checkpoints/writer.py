"""Write a checkpoint as a stream: sizes first, blocks in any order, header and index last, a sync, one atomic rename.

Until that rename everything lies in `.NAME.partial` beside the destination, and `.NAME.lock` is locked by the process
that writes it. A kill leaves these two and nothing under the final name; the next run empties the folder and uses it.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from soup.checkpoints.adapter import ADAPTER_WEIGHTS
from soup.checkpoints.destination import (
    claim,
    disk_advice,
    move_aside,
    refuse_destination,
    refuse_small_disk,
    remove_replaced,
)
from soup.checkpoints.early_sync import EarlySync
from soup.checkpoints.file_plan import FilePlan, header_bytes, index_bytes
from soup.checkpoints.weight_files import INDEX, WEIGHTS
from soup.errors import OutputError
from soup.support.atomic_files import sync, sync_tree
from soup.support.open_files import ReopenedFile
from soup.support.text import format_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["CheckpointWriter", "view_bytes"]


class _WritePlacement(NamedTuple):
    """Where a tensor is written: the file, the offset of the tensor's first byte in it, the bits of an element."""

    file: ReopenedFile
    offset: int
    bits: int


class CheckpointWriter:
    """Writes one checkpoint. As a context manager it removes all that was written unless `commit` was called.

    Args:
        out: The destination.
        files: The shards to write.
        metadata: The free metadata of each shard's header; `commit` may change values, but not their lengths.
        overwrite: Whether an earlier soup at `out` is replaced.
        durable: Whether the checkpoint survives a power cut; one that is removed again soon need not.

    Raises:
        OutputError: The destination exists, another run is writing it, or the disk is too small.
    """

    def __init__(
        self,
        out: Path,
        files: Sequence[FilePlan],
        metadata: Mapping[str, str],
        *,
        overwrite: bool = False,
        durable: bool = True,
    ) -> None:
        self.out = Path(out).absolute()
        self._files, self._metadata = tuple(files), dict(metadata)
        self._overwrite, self._durable = overwrite, durable
        refuse_destination(self.out, overwrite=overwrite)
        needed_bytes = sum(plan.data_bytes for plan in files)
        refuse_small_disk(self.out, needed_bytes, "out" if durable else "run_dir")  # a candidate is for its evaluation
        self._partial, self._lock = claim(self.out)
        self._placements: dict[str, _WritePlacement] = {}
        self._weights: list[ReopenedFile] = []
        self._header_sizes: list[int] = []
        self._open, self._early_sync = True, EarlySync()
        try:
            for plan in self._files:
                self._create(plan)
        except BaseException:
            self.abort()
            raise

    def _create(self, plan: FilePlan) -> None:
        """Create a shard in its full size, and place its tensors."""
        path, begin = self._partial / plan.name, len(header_bytes(plan, self._metadata))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            try:
                _preallocate(fd, begin + plan.data_bytes)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._failure(f"no place for {plan.name}, {format_bytes(begin + plan.data_bytes)}", error) from error
        file = ReopenedFile(path, os.O_RDWR)
        self._weights.append(file)
        self._header_sizes.append(begin)
        for spec in plan.tensors:
            self._placements[spec.name] = _WritePlacement(file, begin, spec.dtype.bits)
            begin += spec.bytes

    def write(self, name: str, start: int, data: memoryview) -> None:
        """Write a block of tensor `name`; several threads may call at once.

        Args:
            name: The tensor.
            start: The index of the block's first element.
            data: The bytes of the block's values, in the tensor's dtype.

        Raises:
            OutputError: The disk is full or failed.
        """
        file, offset, bits = self._placements[name]
        try:
            with file.descriptor() as fd:
                _write_at(fd, data, offset + start * bits // 8)
            if self._durable:
                self._early_sync.count(file, len(data))
        except OSError as error:
            raise self._failure(f"writing {name} failed", error) from error

    def add_file(self, name: str, data: bytes) -> None:
        """Write a side file; `name` is its path in the checkpoint.

        Raises:
            OutputError: The disk is full or failed.
        """
        self._put(name, lambda path: path.write_bytes(data))

    def copy_file(self, name: str, source: Path) -> None:
        """Copy a side file, in a stream; `name` is its path in the checkpoint.

        Raises:
            OutputError: The disk is full or failed.
        """
        self._put(name, lambda path: shutil.copyfile(source, path))

    def _put(self, name: str, put: Callable[[Path], object]) -> None:
        path = self._partial / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            put(path)
        except OSError as error:
            raise self._failure(f"writing {name} failed", error) from error

    def commit(self, metadata: Mapping[str, str]) -> None:
        """Write headers and index, sync all, and give the checkpoint its final name. The last step is one rename.

        Args:
            metadata: The final metadata of the headers.

        Raises:
            OutputError: The destination was made by somebody else meanwhile, or the disk failed.
        """
        try:
            self._finish(metadata)
        except OSError as error:
            raise self._failure("can't be completed", error) from error

    def _failure(self, what: str, error: OSError) -> OutputError:
        return OutputError(f"{self.out}: {what} ({error.strerror or error}). {disk_advice(self.out, error)}")

    def _finish(self, metadata: Mapping[str, str]) -> None:
        for file, plan, size in zip(self._weights, self._files, self._header_sizes, strict=True):
            head = header_bytes(plan, metadata)
            assert len(head) == size, "metadata must keep their length"
            with file.descriptor() as fd:
                _write_at(fd, memoryview(head), 0)
        self._early_sync.close()
        self._close()
        if [plan.name for plan in self._files] not in ([WEIGHTS], [ADAPTER_WEIGHTS]):
            self.add_file(INDEX, index_bytes(self._files))
        if self._durable:
            sync_tree(self._partial)  # before the rename: a name that is there after a power cut stands for its bytes
        refuse_destination(self.out, overwrite=self._overwrite)
        old = move_aside(self.out)
        self._partial.rename(self.out)
        self._open = False
        if self._durable:
            sync(self.out.parent)
        self._lock.release()
        if old:
            remove_replaced(self.out)

    def abort(self) -> None:
        """Remove what was written so far; after a commit, nothing."""
        with suppress(OSError):
            self._early_sync.close()
        self._close()
        if self._open:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._open = False
        self._lock.release()  # again, if a signal came while the commit did it

    def _close(self) -> None:
        while self._weights:
            self._weights.pop().close()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()  # does nothing after a commit


def _preallocate(fd: int, size: int) -> None:
    """Reserve the file's bytes, so that a full disk is an error before the first block and not after the last."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
            return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    os.ftruncate(fd, size)


_seek_lock = threading.Lock()


def _write_at(fd: int, view: memoryview, offset: int) -> None:
    """Write all of `view` at `offset`, also on Windows."""
    while len(view):
        if hasattr(os, "pwrite"):
            count = os.pwrite(fd, view, offset)
        else:
            with _seek_lock:  # seek and write are two calls, and threads share the position
                os.lseek(fd, offset, os.SEEK_SET)
                count = os.write(fd, view)
        view = view[count:]
        offset += count


def view_bytes(values: torch.Tensor) -> memoryview:
    """View the bytes of a contiguous tensor, without a copy and without numpy (which has no bfloat16)."""
    import ctypes

    size = values.numel() * values.element_size()
    data = (ctypes.c_char * size).from_address(values.data_ptr())
    data.values = values  # type: ignore[attr-defined]  # keeps the memory for as long as the view
    return memoryview(data).cast("B")
