"""Which tensor of a checkpoint goes into which file, and the header and the index that say so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.weight_files import WEIGHTS

__all__ = ["FilePlan", "header_bytes", "index_bytes", "plan_files"]


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


def index_bytes(files: Sequence[FilePlan]) -> bytes:
    """Format the index of a sharded checkpoint, as transformers writes it."""
    weight_map = {spec.name: plan.name for plan in files for spec in plan.tensors}
    total = sum(plan.data_bytes for plan in files)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
