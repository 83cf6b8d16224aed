"""One pass over a pool and its base, block by block, for what is to be known of its deltas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from soup.checkpoints.adapted import is_adapted
from soup.checkpoints.dtypes import TensorSpec
from soup.evaluation.progress import Progress
from soup.merging.block_arithmetic import Blend
from soup.merging.block_loop import Options, ScanResult, scan_blocks
from soup.merging.ingredient import untied_together
from soup.merging.options import MergeOptions
from soup.merging.pool import Pool
from soup.report.pool_measure import PoolMeasure, TensorSums

__all__ = ["Deltas", "read_deltas"]


class Deltas(NamedTuple):
    """What a pass found.

    Args:
        specs: The floating tensors that were read.
        sums: What was added up of each of them that has elements, by name in order.
        scan: Digests, and why tensors can't be merged.
    """

    specs: list[TensorSpec]
    sums: Mapping[str, TensorSums]
    scan: ScanResult

    @property
    def elements(self) -> int:
        """How many elements were read of each input."""
        return sum(spec.elements for spec in self.specs)


def read_deltas(pool: Pool, options: MergeOptions, progress: Progress) -> Deltas:
    """Read all ingredients and the base side by side, once.

    Args:
        pool: Ingredients and base whose tensors match.
        options: Which tensors are dropped, and whether NaN and infinity are allowed.
        progress: Who hears of bytes.

    Raises:
        CheckpointError: a read failed, or a file was changed meanwhile.
    """
    parts = untied_together(pool.all)
    specs = [spec for spec in parts[0].tensors(options.drop) if spec.dtype.kind == "float"]
    whole = [part.checkpoint.tensors for part in parts if not is_adapted(part.checkpoint)]
    progress.on_phase("reading the pool", sum(tensors[spec.name].bytes for tensors in whole for spec in specs))
    measure, count = PoolMeasure(pool.base is not None), len(pool)
    inputs = tuple(part.checkpoint for part in parts)
    names = tuple(part.name for part in parts)
    blend = Blend(measure, inputs, names, (1 / count,) * count, allow_nonfinite=options.allow_nonfinite)
    dtypes = {spec.name: spec.dtype for spec in specs}

    def take_equal(name: str, first: int, values: memoryview) -> None:
        measure.take_equal(name, dtypes[name], values, first, count)

    scan = scan_blocks(blend, specs, take_equal, Options(progress=progress.on_bytes), hashing=True)
    for checkpoint in inputs:
        checkpoint.refuse_changed()
    return Deltas(specs, measure.tensors, scan)
