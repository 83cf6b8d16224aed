"""One pass over a pool and its base, block by block, for what is to be known of its deltas."""

from __future__ import annotations

from typing import NamedTuple

from soup.checkpoints.dtypes import TensorSpec
from soup.evaluation.progress import Progress
from soup.merging.block_arithmetic import Blend
from soup.merging.block_loop import Options, ScanResult, scan_blocks
from soup.merging.ingredient import untied_together
from soup.merging.options import MergeOptions
from soup.merging.pool import Pool
from soup.report.pool_distances import PoolMeasure

__all__ = ["Deltas", "read_deltas"]


class Deltas(NamedTuple):
    """What a pass found.

    Args:
        specs: The floating tensors that were read.
        measure: Dot products and moved elements of the blocks in which the inputs differ.
        unmoved: The squared norm of what all inputs agree on, by tensor.
        scan: Digests, and why tensors can't be merged.
    """

    specs: list[TensorSpec]
    measure: PoolMeasure
    unmoved: dict[str, float]
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
    progress.on_phase("reading the pool", sum(part.checkpoint.bytes for part in parts))
    measure, count = PoolMeasure(pool.base is not None), len(pool)
    inputs = tuple(part.checkpoint for part in parts)
    names = tuple(part.name for part in parts)
    blend = Blend(measure, inputs, names, (1 / count,) * count, allow_nonfinite=options.allow_nonfinite)
    specs = [spec for spec in parts[0].tensors(options.drop) if spec.dtype.kind == "float"]
    dtypes = {spec.name: spec.dtype for spec in specs}
    equal: dict[tuple[str, int], float] = {}

    def keep_norm(name: str, first: int, data: memoryview) -> None:
        if (name, first) not in measure.products:  # all inputs are equal here: the method was not asked
            import torch

            values = torch.frombuffer(data, dtype=dtypes[name].torch)
            equal[name, first] = float(values.double().square().sum())

    scan = scan_blocks(blend, specs, keep_norm, Options(progress=progress.on_bytes), hashing=True)
    for checkpoint in inputs:
        checkpoint.refuse_changed()
    unmoved: dict[str, float] = {}
    for (name, _), squared in sorted(equal.items()):
        unmoved[name] = unmoved.get(name, 0.0) + squared
    return Deltas(specs, measure, unmoved, scan)
