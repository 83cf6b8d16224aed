"""What a checkpoint's weights are, as one short name that does not depend on paths, shards or the order of files.

    leaf     xxh3-128 of the bytes of `LEAF_ELEMENTS` elements of a tensor
    tensor   xxh3-128 of its leaves' digests
    content  xxh3-128 of one line per tensor, sorted: name, dtype, shape, tensor digest

xxh3 runs at memory speed, so that every merge can name what it read. It tells checkpoints apart; it is no signature
and no defence against somebody who forges a collision.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from soup.checkpoints.dtypes import LEAF_ELEMENTS, TensorSpec
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError
from soup.support.atomic_files import write_atomic
from soup.support.threads import default_threads

__all__ = ["ContentDigest", "DigestCache", "LeafDigests", "digest_checkpoint", "leaves", "side_digest"]

ByteProgress = Callable[[int], None]
"""Called with the number of bytes done since the last call."""


@dataclass(frozen=True)
class ContentDigest:
    """The digest of a checkpoint's weights, and of each tensor."""

    content: str
    tensors: Mapping[str, str]


def leaves(spec: TensorSpec) -> Iterator[tuple[int, int]]:
    """The (first element, number of elements) of each leaf of a tensor; one empty leaf for an empty tensor."""
    if spec.elements == 0:
        yield 0, 0
    for start in range(0, spec.elements, LEAF_ELEMENTS):
        yield start, min(LEAF_ELEMENTS, spec.elements - start)


class LeafDigests:
    """Collects the digests of a checkpoint's leaves, in any order and from several threads: 16 bytes a leaf."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._leaves: dict[str, bytearray] = {}
        self._lock = threading.Lock()

    def put(self, name: str, start: int, digest: bytes) -> None:
        """The digest of the leaf of tensor `name` whose first element is `start`."""
        with self._lock:
            if name not in self._leaves:
                count = max(1, -(-self._checkpoint.tensors[name].elements // LEAF_ELEMENTS))
                self._leaves[name] = bytearray(16 * count)
        place = start // LEAF_ELEMENTS * 16
        self._leaves[name][place : place + 16] = digest

    def close(self) -> ContentDigest:
        """The content digest; tensors that nobody read (dropped ones) are read now."""
        specs = self._checkpoint.tensors
        _read_leaves(self._checkpoint, [spec for name, spec in specs.items() if name not in self._leaves], self, None)
        tensors = {name: xxhash.xxh3_128_hexdigest(self._leaves[name]) for name in specs}
        lines = [f"{name}\0{spec.dtype.code}\0{list(spec.shape)}\0{tensors[name]}\n" for name, spec in specs.items()]
        return ContentDigest("xxh3:" + xxhash.xxh3_128_hexdigest("".join(sorted(lines)).encode()), tensors)


def digest_checkpoint(checkpoint: Checkpoint, progress: ByteProgress | None = None) -> ContentDigest:
    """Read a whole checkpoint once, at disk speed, and name its content.

    Raises:
        CheckpointError: a file could not be read to its end.
    """
    digests = LeafDigests(checkpoint)
    _read_leaves(checkpoint, list(checkpoint.tensors.values()), digests, progress)
    return digests.close()


def _read_leaves(
    checkpoint: Checkpoint, specs: Sequence[TensorSpec], into: LeafDigests, progress: ByteProgress | None
) -> None:
    def read_tensor(spec: TensorSpec) -> None:
        buffer = bytearray(min(spec.elements, LEAF_ELEMENTS) * spec.dtype.bits // 8)
        for start, count in leaves(spec):
            view = memoryview(buffer)[: count * spec.dtype.bits // 8]
            checkpoint.read_into(spec.name, start * spec.dtype.bits // 8, view)
            into.put(spec.name, start, xxhash.xxh3_128_digest(view))
            if progress:
                progress(len(view))

    threads = ThreadPoolExecutor(default_threads())
    try:
        for _ in threads.map(read_tensor, specs):
            pass
    finally:
        threads.shutdown(cancel_futures=True)


def side_digest(checkpoint: Checkpoint) -> str:
    """The digest of the files that a soup takes along from this checkpoint: config, tokenizer, processor, code."""
    total = hashlib.sha256()
    for name in checkpoint.side_files.carried:
        data = (checkpoint.path / name).read_bytes()
        total.update(f"{name}\0{len(data)}\n".encode() + data)
    return "sha256:" + total.hexdigest()


class DigestCache:
    """Remembers content digests in one JSON file, so that a pool is read once and not at every command.

    An entry holds while every file's size, inode, and times of change and of last inode change are the same.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = self._load()

    def get(self, checkpoint: Checkpoint, progress: ByteProgress | None = None) -> ContentDigest:
        """The digest, remembered or read now; a read one is remembered on disk."""
        stamp, key = _stamp(checkpoint), str(checkpoint.path.resolve())
        entry = self._entries.get(key)
        if entry and entry["stamp"] == stamp:
            return ContentDigest(entry["content"], entry["tensors"])
        digest = digest_checkpoint(checkpoint, progress)
        if _stamp(checkpoint) != stamp:
            raise CheckpointError(
                f"{checkpoint.path}: its files changed while they were read. Wait until they are complete."
            )
        self._entries[key] = {"stamp": stamp, "content": digest.content, "tensors": dict(digest.tensors)}
        self._save()
        return digest

    def knows(self, checkpoint: Checkpoint) -> bool:
        """Whether the digest is remembered, so that asking for it reads nothing."""
        entry = self._entries.get(str(checkpoint.path.resolve()))
        return entry is not None and bool(entry["stamp"] == _stamp(checkpoint))

    def _load(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # a cache that can't be read is an empty one
        return entries if isinstance(entries, dict) else {}

    def _save(self) -> None:
        write_atomic(self.path, json.dumps(self._entries))


def _stamp(checkpoint: Checkpoint) -> list[list[Any]]:
    stats = [(file, (checkpoint.path / file).stat()) for file in checkpoint.files]
    return [[file, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns] for file, stat in stats]
