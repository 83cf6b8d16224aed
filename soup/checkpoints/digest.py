"""Digest a checkpoint's weights: one short name that does not depend on paths, shards or the order of files.

    leaf     xxh3-128 of the bytes of `LEAF_ELEMENTS` elements of a tensor
    tensor   xxh3-128 of its leaves' digests
    content  xxh3-128 of one line per tensor, sorted: name, dtype, shape, tensor digest

xxh3 runs at memory speed, so that every merge can digest what it reads. It tells checkpoints apart; it is no signature
and no defence against somebody who forges a collision.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import xxhash

from soup.checkpoints.dtypes import LEAF_ELEMENTS, TensorSpec
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.side_files import complete_side_files
from soup.errors import CheckpointError
from soup.support.atomic_files import write_atomic
from soup.support.json_text import read_json
from soup.support.open_files import read_errors
from soup.support.threads import default_threads, run_on_threads

__all__ = [
    "ContentDigest",
    "DigestCache",
    "FileStamp",
    "LeafDigests",
    "close_digests",
    "digest_checkpoint",
    "digest_files",
    "leaves",
    "side_digest",
]

MAX_CACHE_BYTES = 512_000_000  # some 50 checkpoints of 100,000 tensors

ByteProgress = Callable[[int], None]
"""Called with the number of bytes done since the last call."""


@dataclass(frozen=True)
class ContentDigest:
    """The digest of a checkpoint's weights, and that of each tensor by name."""

    content: str
    tensors: Mapping[str, str]


def leaves(spec: TensorSpec) -> Iterator[tuple[int, int]]:
    """Yield the (first element, number of elements) of each leaf of a tensor; one empty leaf for an empty tensor."""
    if spec.elements == 0:
        yield 0, 0
    for start in range(0, spec.elements, LEAF_ELEMENTS):
        yield start, min(LEAF_ELEMENTS, spec.elements - start)


class LeafDigests:
    """The digests of a checkpoint's leaves, put in any order and by several threads: 16 bytes per leaf.

    Args:
        tensors: The tensors, by name.
        facts: What counts besides; see `Checkpoint.facts`.
    """

    def __init__(self, tensors: Mapping[str, TensorSpec], facts: Sequence[str] = ()) -> None:
        self._tensors, self._facts = tensors, facts
        self._leaves: dict[str, bytes | bytearray] = {}
        self._lock = threading.Lock()

    def put(self, name: str, start: int, digest: bytes) -> None:
        """Store the digest of the leaf of tensor `name` whose first element is `start`."""
        count = -(-self._tensors[name].elements // LEAF_ELEMENTS)
        if count <= 1:  # most tensors of a model of many, whose memory counts
            self._leaves[name] = digest
            return
        with self._lock:
            held = self._leaves.get(name)
            if not isinstance(held, bytearray):
                held = self._leaves[name] = bytearray(16 * count)
        offset = start // LEAF_ELEMENTS * 16
        held[offset : offset + 16] = digest

    def missing(self) -> list[TensorSpec]:
        """Return the tensors without leaves."""
        return [spec for name, spec in self._tensors.items() if name not in self._leaves]

    def close(self) -> ContentDigest:
        """Combine the leaves, which are all there, to the content digest."""
        specs = self._tensors
        tensors = {name: xxhash.xxh3_128_hexdigest(self._leaves.pop(name)) for name in specs}

        def line(name: str) -> str:
            spec = specs[name]
            return f"{name}\0{spec.dtype.code}\0{list(spec.shape)}\0{tensors[name]}\n"

        content = xxhash.xxh3_128()
        # Lines are sorted as their names are, but for names that hold the sign between. All lines at once take memory.
        for name in sorted(specs, key=line if any("\0" in name for name in specs) else None):
            content.update(line(name).encode())
        for fact in sorted(self._facts):
            content.update(fact.encode())
        return ContentDigest(f"xxh3:{content.hexdigest()}", tensors)


def digest_checkpoint(checkpoint: Checkpoint, progress: ByteProgress | None = None) -> ContentDigest:
    """Read a whole checkpoint once, at disk speed, and digest its content; of an adapter, without its base.

    Raises:
        CheckpointError: A file could not be read to its end.
    """
    checkpoint = checkpoint.stored
    return close_digests(checkpoint, LeafDigests(checkpoint.tensors, checkpoint.facts), progress)


def close_digests(checkpoint: Checkpoint, digests: LeafDigests, progress: ByteProgress | None = None) -> ContentDigest:
    """Return the content digest of a checkpoint, some of whose leaves are known; the others are read now.

    Raises:
        CheckpointError: A file could not be read to its end.
    """
    _read_leaves(checkpoint, digests.missing(), digests, progress)
    return digests.close()


def _read_leaves(
    checkpoint: Checkpoint, specs: Sequence[TensorSpec], digests: LeafDigests, progress: ByteProgress | None
) -> None:
    """Read tensors, and put the digests of their leaves into `digests`."""
    local = threading.local()

    def prepare() -> None:
        local.buffer = bytearray()

    def read_leaf(leaf: tuple[TensorSpec, int, int]) -> None:
        spec, start, count = leaf
        size = count * spec.dtype.bits // 8
        local.buffer = local.buffer if len(local.buffer) >= size else bytearray(size)
        view = memoryview(local.buffer)[:size]
        checkpoint.read_into(spec.name, start * spec.dtype.bits // 8, view)
        digests.put(spec.name, start, xxhash.xxh3_128_digest(view))
        if progress:
            progress(len(view))

    run_on_threads(read_leaf, ((spec, *leaf) for spec in specs for leaf in leaves(spec)), default_threads(), prepare)


def side_digest(lead: Checkpoint, *others: Checkpoint, tokenizer: Checkpoint | None = None) -> str:
    """Digest the files that a soup takes along: config, tokenizer, processor, code; see `complete_side_files`."""
    return digest_files(complete_side_files(lead, *others, tokenizer=tokenizer))


def digest_files(files: Mapping[str, Path]) -> str:
    """Digest names, sizes and contents of files, read in pieces.

    Args:
        files: Where each lies, by its name.

    Raises:
        CheckpointError: One can't be read.
    """
    total = hashlib.sha256()
    for name, path in files.items():
        with read_errors(path, CheckpointError), path.open("rb") as file:
            total.update(f"{name}\0{os.fstat(file.fileno()).st_size}\n".encode())
            while block := file.read(1 << 20):
                total.update(block)
    return "sha256:" + total.hexdigest()


class FileStamp(NamedTuple):
    """What tells that a file is still the same one, without reading it."""

    file: str
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int


class _CacheEntry(NamedTuple):
    stamps: tuple[FileStamp, ...]
    digest: ContentDigest

    def as_json(self) -> dict[str, object]:
        return {"stamp": self.stamps, "content": self.digest.content, "tensors": dict(self.digest.tensors)}


class DigestCache:
    """Remembers content digests in one JSON file, so that a pool is read once and not at every command.

    An entry holds while the `FileStamp` of every weight file stays the same. A file or an entry that can't be read
    counts as empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = _read_entries(path)

    def get(self, checkpoint: Checkpoint, progress: ByteProgress | None = None) -> ContentDigest:
        """Look a digest up, or read the checkpoint now and remember its digest on disk.

        Raises:
            CheckpointError: A file could not be read to its end, or changed meanwhile.
        """
        stamps, key = _stamps(checkpoint), _key(checkpoint)
        if entry := self._entry(checkpoint, stamps):
            return entry.digest
        digest = digest_checkpoint(checkpoint, progress)
        if _stamps(checkpoint) != stamps:
            raise CheckpointError(
                f"{checkpoint.path}: its files changed while they were read. Wait until they are complete."
            )
        self._entries[key] = _CacheEntry(stamps, digest)
        write_atomic(self.path, json.dumps({key: entry.as_json() for key, entry in self._entries.items()}))
        return digest

    def knows(self, checkpoint: Checkpoint) -> bool:
        """Whether the digest is remembered, so that `get` reads no weights."""
        return self._entry(checkpoint, _stamps(checkpoint)) is not None

    def _entry(self, checkpoint: Checkpoint, stamps: tuple[FileStamp, ...]) -> _CacheEntry | None:
        """Look up the entry of a checkpoint; None where there is none, or it is of other files or other tensors."""
        entry = self._entries.get(_key(checkpoint))
        if entry is None or entry.stamps != stamps or entry.digest.tensors.keys() != checkpoint.tensors.keys():
            return None
        return entry


def _read_entries(path: Path) -> dict[str, _CacheEntry]:
    try:
        document = read_json(path, CheckpointError, MAX_CACHE_BYTES)
    except CheckpointError:
        return {}
    entries = {}
    for key, row in document.items() if isinstance(document, dict) else ():
        with suppress(KeyError, TypeError, ValueError):
            stamps = tuple(FileStamp(*stamp) for stamp in row["stamp"])
            content, tensors = row["content"], dict(row["tensors"])
            if all(isinstance(digest, str) for digest in (content, *tensors.values())):
                entries[key] = _CacheEntry(stamps, ContentDigest(content, tensors))
    return entries


def _key(checkpoint: Checkpoint) -> str:
    return str(checkpoint.path.resolve())


def _stamps(checkpoint: Checkpoint) -> tuple[FileStamp, ...]:
    stats = [(file, (checkpoint.path / file).stat()) for file in checkpoint.stored.watched]
    return tuple(FileStamp(file, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns) for file, stat in stats)
