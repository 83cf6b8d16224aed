"""Write a checkpoint as a stream: sizes first, blocks in any order, header and index last, a sync, one atomic rename.

Until that rename everything lies in `.NAME.partial` beside the destination, and `.NAME.lock` is locked by the process
that writes it. A kill leaves these two and nothing under the final name; the next run empties the folder and uses it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.early_sync import EarlySync
from soup.checkpoints.weight_files import INDEX, WEIGHTS
from soup.errors import OutputError
from soup.support.atomic_files import sync, sync_tree
from soup.support.open_files import ReopenedFile
from soup.support.text import format_bytes

if TYPE_CHECKING:
    import torch

__all__ = [
    "CheckpointWriter",
    "FilePlan",
    "header_bytes",
    "plan_files",
    "view_bytes",
]


@dataclass(frozen=True)
class FilePlan:
    """A shard to be written: its name, and its tensors in the order in which safetensors itself would lay them out."""

    name: str
    tensors: tuple[TensorSpec, ...]

    @property
    def data_bytes(self) -> int:
        """The size of all its tensors."""
        return sum(spec.bytes for spec in self.tensors)


def plan_files(
    tensors: Sequence[TensorSpec], layout: Mapping[str, str] | None, max_shard_bytes: int | None = None
) -> tuple[FilePlan, ...]:
    """Decide which tensor goes into which file.

    Args:
        tensors: The tensors to write.
        layout: The file of each tensor in an existing sharded checkpoint; None for a single file.
        max_shard_bytes: Overrides `layout`: tensors fill files in the given order, and one that is larger than a file
            gets a file of its own.
    """
    if max_shard_bytes is not None:
        return _pack(tensors, max_shard_bytes)
    files: dict[str, list[TensorSpec]] = {}
    for spec in tensors:
        files.setdefault(layout[spec.name] if layout else WEIGHTS, []).append(spec)
    return tuple(FilePlan(name, _ordered(specs)) for name, specs in sorted(files.items()))


def _pack(tensors: Sequence[TensorSpec], max_shard_bytes: int) -> tuple[FilePlan, ...]:
    files: list[list[TensorSpec]] = []
    filled = 0
    for spec in tensors:
        if not files or filled + spec.bytes > max_shard_bytes:
            files.append([])
            filled = 0
        files[-1].append(spec)
        filled += spec.bytes
    if len(files) == 1:
        return (FilePlan(WEIGHTS, _ordered(files[0])),)
    names = [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    return tuple(FilePlan(name, _ordered(specs)) for name, specs in zip(names, files, strict=True))


def _ordered(specs: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(sorted(specs, key=lambda spec: (-spec.dtype.rank, spec.name.encode())))


def header_bytes(plan: FilePlan, metadata: Mapping[str, str]) -> bytes:
    """Format a safetensors header, length and padding included, as `safetensors.torch.save_file` writes it."""
    text = bytearray(b'{"__metadata__":' + _compact(dict(metadata)) + b"," if metadata else b"{")
    begin = 0
    for spec in plan.tensors:  # one by one: the objects of all would take several times the header's size
        offsets = [begin, begin + spec.bytes]
        entry = {"dtype": spec.dtype.code, "shape": list(spec.shape), "data_offsets": offsets}
        text += _compact(spec.name) + b":" + _compact(entry) + b","
        begin = offsets[1]
    if text.endswith(b","):
        del text[-1]
    text += b"}"
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def _compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


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
        refuse_small_disk(self.out, sum(plan.data_bytes for plan in files))
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

    def link_file(self, name: str, source: Path) -> None:
        """Add a file that is the same as `source`: a hard link, or a copy where the file system has no links.

        Raises:
            OutputError: The disk is full or failed.
        """
        self._put(name, lambda path: _link(source, path))

    def _put(self, name: str, put: Callable[[Path], object]) -> None:
        path = self._partial / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            put(path)
        except OSError as error:
            raise self._failure(f"writing {name} failed", error) from error

    def commit(self, metadata: Mapping[str, str], index_of: Sequence[FilePlan] | None = None) -> None:
        """Write headers and index, sync all, and give the checkpoint its final name. The last step is one rename.

        Args:
            metadata: The final metadata of the headers.
            index_of: The files that the index names (default: those written here); linked ones among them.

        Raises:
            OutputError: The destination was made by somebody else meanwhile, or the disk failed.
        """
        try:
            self._finish(metadata, tuple(index_of or self._files))
        except OSError as error:
            raise self._failure("can't be completed", error) from error

    def _failure(self, what: str, error: OSError) -> OutputError:
        return OutputError(f"{self.out}: {what} ({error.strerror or error}). {disk_advice(self.out)}")

    def _finish(self, metadata: Mapping[str, str], files: Sequence[FilePlan]) -> None:
        for file, plan, size in zip(self._weights, self._files, self._header_sizes, strict=True):
            head = header_bytes(plan, metadata)
            assert len(head) == size, "metadata must keep their length"
            with file.descriptor() as fd:
                _write_at(fd, memoryview(head), 0)
        self._early_sync.close()
        self._close()
        if [plan.name for plan in files] not in ([WEIGHTS], [ADAPTER_WEIGHTS]):
            self.add_file(INDEX, _index(files))
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


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source.resolve(), path)
    except OSError:
        shutil.copyfile(source, path)


def view_bytes(values: torch.Tensor) -> memoryview:
    """View the bytes of a contiguous tensor, without a copy and without numpy (which has no bfloat16)."""
    import ctypes

    size = values.numel() * values.element_size()
    data = (ctypes.c_char * size).from_address(values.data_ptr())
    data.values = values  # type: ignore[attr-defined]  # keeps the memory for as long as the view
    return memoryview(data).cast("B")


def _index(files: Sequence[FilePlan]) -> bytes:
    """Format the index of a sharded checkpoint, as transformers writes it."""
    weight_map = {spec.name: plan.name for plan in files for spec in plan.tensors}
    total = sum(plan.data_bytes for plan in files)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
