"""Write a checkpoint whose tensors are slices of other checkpoints' tensors, streamed: no tensor is ever held whole.

A slice is a stretch of elements of one tensor. A tensor that is only renamed is one slice; one that is cut out of a
fused tensor is several, a head each. Files appear all at once, when complete (`soup/checkpoints/writer.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from soup.checkpoints.destination import refuse_destination
from soup.checkpoints.dtypes import LEAF_ELEMENTS, TensorSpec
from soup.checkpoints.file_plan import FilePlan, plan_files
from soup.checkpoints.hub import fetch_checkpoint, is_hub_id
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.writer import CheckpointWriter, view_bytes
from soup.errors import FinetuneError, OutputError
from soup.support.text import bullet_list
from soup.support.threads import default_threads, run_on_threads
from soup.support.torch_threads import single_threaded_torch

__all__ = [
    "NewValues",
    "Progress",
    "TensorSlice",
    "TensorTarget",
    "mean_row",
    "open_source",
    "plan_targets",
    "write_targets",
]

Progress = Callable[[int], object]
"""Called with the number of bytes written since its last call."""


@dataclass(frozen=True)
class TensorSlice:
    """Elements `start` to `start + count` of one tensor of a checkpoint."""

    source: Checkpoint
    name: str
    start: int
    count: int


@dataclass(frozen=True)
class NewValues:
    """Values that come from no checkpoint [elements]."""

    values: torch.Tensor

    @property
    def count(self) -> int:
        """The number of elements."""
        return self.values.numel()


@dataclass(frozen=True)
class TensorTarget:
    """A tensor to be written; its slices fill it from the first element to the last.

    `file` is the file that it goes into, where all tensors of the checkpoint have one.
    """

    spec: TensorSpec
    slices: tuple[TensorSlice | NewValues, ...]
    file: str | None = None


def open_source(location: str) -> Checkpoint:
    """Open a checkpoint by its directory or Hub id.

    Raises:
        CheckpointError: it is not to be had, or damaged.
    """
    if is_hub_id(location) and not Path(location).exists():
        return Checkpoint(fetch_checkpoint(location)[0])
    return Checkpoint(location)


def plan_targets(targets: Sequence[TensorTarget], max_shard_bytes: int | None = None) -> tuple[FilePlan, ...]:
    """Plan which tensor goes into which file: as the targets have it, if all of them do."""
    file_of = {target.spec.name: target.file for target in targets if target.file is not None}
    layout = file_of if len(file_of) == len(targets) else None
    return plan_files([target.spec for target in targets], layout, max_shard_bytes)


def write_targets(
    out: Path,
    targets: Sequence[TensorTarget],
    side_files: Mapping[str, bytes],
    *,
    max_shard_bytes: int | None = None,
    progress: Progress | None = None,
) -> tuple[FilePlan, ...]:
    """Write a checkpoint.

    Args:
        out: its directory.
        targets: its tensors.
        side_files: what stands beside them, by file name.
        max_shard_bytes: of a file.
        progress: called with the bytes written since its last call.

    Raises:
        OutputError: the destination exists, holds a source, is being written by another run, or the disk is too small.
        CheckpointError: a source could not be read.
        FinetuneError: values that are too large for the dtype that is written.
    """
    _refuse_sources(
        out, {part.source.path for target in targets for part in target.slices if isinstance(part, TensorSlice)}
    )
    refuse_destination(out, overwrite=False)
    files = plan_targets(targets, max_shard_bytes)
    metadata = {"format": "pt"}
    with CheckpointWriter(out, files, metadata) as writer:
        copy = _CopyUnit(writer, progress or (lambda count: None), set())
        with single_threaded_torch() as prepare:
            run_on_threads(lambda unit: copy(*unit), _units(targets), default_threads(), prepare)
        if copy.overflown:
            raise FinetuneError(f"Values too large for the dtype to be written:\n{bullet_list(sorted(copy.overflown))}")
        for name, data in side_files.items():
            writer.add_file(name, data)
        writer.commit(metadata)
    return files


def _refuse_sources(out: Path, sources: set[Path]) -> None:
    for source in sources:
        inside, outside = source.resolve(), Path(out).resolve()
        if inside.is_relative_to(outside) or outside.is_relative_to(inside):
            raise OutputError(f"{out}: is or contains the source {inside}, or lies in it. Choose another -o/--out.")


def _units(targets: Sequence[TensorTarget]) -> Iterator[tuple[TensorSpec, int, TensorSlice | NewValues, int, int]]:
    """Work in small pieces: which tensor, at which element, from which slice, from which element of it, how many."""
    for target in targets:
        offset = 0
        for part in target.slices:
            for begin in range(0, part.count, LEAF_ELEMENTS):
                yield target.spec, offset + begin, part, begin, min(LEAF_ELEMENTS, part.count - begin)
            offset += part.count
        assert offset == target.spec.elements, f"{target.spec.name}: slices of {offset} for {target.spec.elements}"


@dataclass(frozen=True)
class _CopyUnit:
    writer: CheckpointWriter
    progress: Progress
    overflown: set[str]

    def __call__(self, spec: TensorSpec, offset: int, part: TensorSlice | NewValues, begin: int, count: int) -> None:
        values = part.values[begin : begin + count] if isinstance(part, NewValues) else _read(part, begin, count)
        cast = values.to(spec.dtype.torch).contiguous()
        if cast.dtype != values.dtype and bool((cast.isinf() & ~values.isinf()).any()):
            self.overflown.add(spec.name)
        self.writer.write(spec.name, offset, view_bytes(cast))
        self.progress(cast.numel() * cast.element_size())


def _read(part: TensorSlice, begin: int, count: int) -> torch.Tensor:
    """Elements of a slice, from its own `begin` on [count]."""
    dtype = part.source.tensors[part.name].dtype
    width = dtype.bits // 8
    buffer = bytearray(count * width)
    part.source.read_into(part.name, (part.start + begin) * width, memoryview(buffer))
    return torch.frombuffer(buffer, dtype=dtype.torch)


def mean_row(source: Checkpoint, name: str) -> torch.Tensor:
    """Give the mean over the rows of a matrix, or over a vector [columns], added up in float64."""
    rows, columns = (*source.tensors[name].shape, 1)[:2]
    step = max(1, LEAF_ELEMENTS // columns)
    total = torch.zeros(columns, dtype=torch.float64)
    for row in range(0, rows, step):
        height = min(step, rows - row)
        total += (
            _read(TensorSlice(source, name, row * columns, height * columns), 0, height * columns)
            .double()
            .view(height, -1)
            .sum(0)
        )
    return total / rows
