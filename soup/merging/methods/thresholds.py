"""The least magnitude of each ingredient's deltas that belongs to their largest share, exactly, by counting.

The bits of a float32 magnitude are ordered as the magnitudes are. A sample of every block says about where a threshold
lies; one pass over the inputs counts each number there, and how many lie above. Where the sample was not like the
whole, or thresholds are those of single tensors, the upper bits of all are counted instead of a sample's.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from soup.merging.compiled import Magnitudes, add_counts, magnitudes
from soup.merging.methods.base import Block, FirstPass
from soup.merging.methods.deltas import delta
from soup.merging.methods.dot_products import lane_sum
from soup.merging.scratch import Scratch
from soup.support.torch_threads import single_threaded_torch

if TYPE_CHECKING:
    import torch

__all__ = ["Thresholds", "bits_of_deltas", "find_thresholds", "scattered"]

LOWER, LAST = 15, 2**31 - 1
"""How many of the bits are not upper ones, and the largest bits of a magnitude."""
SAMPLE, AROUND = 8192, 8
"""How many elements of a leaf are a sample, and how many numbers of upper bits around what it says are searched: 1.5
to 3 % of the magnitude."""


class Thresholds(NamedTuple):
    """Each ingredient's least magnitude that is kept, by key, and the sign of each tensor's sum of weighted deltas."""

    thresholds: dict[str, list[float]]
    signs: dict[str, float]


class _Interval(NamedTuple):
    """An interval of the bits of magnitudes, both ends included, without 0."""

    low: int
    last: int


class _Counted(NamedTuple):
    """What was counted of an ingredient's magnitudes, in the tensors in which it differs from the base.

    Args:
        kept: How many are to be kept.
        moved: How many are not 0.
        over: How many lie above the interval.
        counts: How often each number in the interval occurs, at its `scattered` index.
    """

    kept: int
    moved: int
    over: int
    counts: torch.Tensor


def find_thresholds(
    first_pass: FirstPass,
    key_of: Callable[[str], str],
    density: float,
    weights_of: Callable[[Block], Sequence[float]],
    *,
    sampled: bool,
) -> Thresholds:
    """Find the magnitudes that leave the largest share.

    Args:
        first_pass: Reads the inputs; once where a sample serves, and else twice more.
        key_of: Tensors in a row of the same key have one threshold.
        density: The share.
        weights_of: The ingredients' weights in a block's tensor.
        sampled: Whether a sample is tried.
    """
    with single_threaded_torch() as prepare:
        prepare()  # counters are few: torch's own threads would take longer, and wait for more beside the next read
        exact = _search(first_pass, key_of, density, weights_of, SAMPLE) if sampled else None
        exact = exact or _search(first_pass, key_of, density, weights_of, None)
    assert exact is not None, "all magnitudes were counted"
    return exact


def _search(
    first_pass: FirstPass,
    key_of: Callable[[str], str],
    density: float,
    weights_of: Callable[[Block], Sequence[float]],
    sample: int | None,
) -> Thresholds | None:
    """Search where the upper bits of a sample, or of all, say that the thresholds lie; None: they lie elsewhere."""
    around = 1 if sample is None else AROUND
    uppers = _count(first_pass, key_of, density, weights_of, None, LOWER, 1 << (31 - LOWER), sample)
    intervals = {key: [_interval(each, around) for each in counted] for key, counted, _ in uppers}
    result = Thresholds({}, {})
    for key, counted, signs in _count(first_pass, key_of, density, weights_of, intervals, 0, around << LOWER, None):
        thresholds = [_threshold(each, interval) for each, interval in zip(counted, intervals[key], strict=True)]
        result.thresholds[key] = [threshold for threshold in thresholds if threshold is not None]
        result.signs.update(signs)
        if len(result.thresholds[key]) < len(thresholds):
            return None
    return result


def _count(
    first_pass: FirstPass,
    key_of: Callable[[str], str],
    density: float,
    weights_of: Callable[[Block], Sequence[float]],
    intervals: Mapping[str, Sequence[_Interval]] | None,
    shift: int,
    size: int,
    sample: int | None,
) -> Iterator[tuple[str, list[_Counted], dict[str, float]]]:
    """Count the bits of magnitudes.

    Args:
        first_pass: Reads the inputs.
        key_of: See `find_thresholds`.
        density: See `find_thresholds`.
        weights_of: See `find_thresholds`.
        intervals: The bits that are counted, for each key and ingredient; None: all.
        shift: By how many bits they are shifted.
        size: How many counters that makes, a power of two.
        sample: See `FirstPass.sums`.

    Yields:
        A key, what was counted for each ingredient, and the sign of each tensor's sum.
    """
    import torch

    counts_by_key: dict[str, torch.Tensor] = {}
    count, lock, scratch = len(first_pass.weights), threading.Lock(), Scratch()

    def statistic(block: Block) -> torch.Tensor:
        key = key_of(block.tensor_name)
        magnitudes = bits_of_deltas(block, intervals[key] if intervals else [_Interval(1, LAST)] * count, scratch)
        inside = [each.inside for each in magnitudes]
        with lock:
            counts = counts_by_key[key] = (
                counts_by_key[key] if key in counts_by_key else torch.zeros(count, size, dtype=torch.int64)
            )
            if not add_counts(inside, shift, counts):
                for row, numbers in zip(counts, inside, strict=True):
                    row += torch.bincount(scattered(numbers >> shift), minlength=size)
        rows = [(each.moved, each.over, block.raw[0].numel()) for each in magnitudes]
        total = 0.0
        for each, weight in zip(magnitudes, weights_of(block), strict=True):
            total += each.total * weight
        return torch.tensor([*(number for row in rows for number in row), total], dtype=torch.float64)

    for key, tensors in groupby(first_pass.sums(statistic, sample), lambda pair: key_of(pair[0])):
        moved, over, sizes, signs = [0] * count, [0] * count, [0] * count, {}
        for name, value in tensors:
            signs[name] = float(torch.sign(value[-1]))
            for index, row in enumerate(value[:-1].long().reshape(count, 3).tolist()):
                if row[0]:  # else the ingredient left the tensor as it was
                    moved[index] += row[0]
                    over[index] += row[1]
                    sizes[index] += row[2]
        kept = [math.ceil(density * elements) for elements in sizes]
        yield key, [_Counted(*each) for each in zip(kept, moved, over, counts_by_key.pop(key), strict=True)], signs


def bits_of_deltas(block: Block, intervals: Sequence[tuple[int, int]], scratch: Scratch) -> list[Magnitudes]:
    """Look at the bits of all float32 magnitudes; see `soup.merging.compiled.magnitudes`."""
    import torch

    assert block.raw_base is not None
    if (compiled := magnitudes(block.raw, block.raw_base, intervals, scratch)) is not None:
        return compiled
    counted = []
    for index, (low, last) in enumerate(intervals):
        values = delta(block, index).reshape(-1)
        total = lane_sum(values.double())
        bits = values.abs_().float().view(torch.int32)
        moved, over = int(torch.count_nonzero(bits)), int(torch.count_nonzero(bits > last))
        counted.append(Magnitudes(moved, over, bits[(bits >= low) & (bits <= last)] - low, total))
    return counted


def scattered(numbers: torch.Tensor) -> torch.Tensor:
    """Return where the counters of numbers are; see `soup.merging.compiled.add_counts`."""
    return numbers ^ (numbers >> 9)


def _interval(counted: _Counted, around: int) -> _Interval:
    """Return the bits whose upper ones are those of the threshold, or near them, by counts of upper bits."""
    upper = _find(counted.counts, counted.kept) if 0 < counted.kept < counted.moved else 0
    low = (max(0, upper - around // 2) << LOWER) + 1  # 1 was subtracted before the upper bits were taken
    return _Interval(low, min(LAST, low + (around << LOWER) - 1))


def _threshold(counted: _Counted, interval: _Interval) -> float | None:
    """Return the least magnitude that is kept; None: it is not in the interval."""
    if counted.kept == 0:  # nothing differs from the base: there is nothing to keep
        return math.inf
    if counted.kept >= counted.moved:
        return 0.0
    if not counted.over < counted.kept <= counted.over + int(counted.counts.sum()):
        return None
    bits = interval.low + _find(counted.counts, counted.kept - counted.over)
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def _find(counts: torch.Tensor, kept: int) -> int:
    """Find the number that the `kept`-th largest is, by how often each occurs."""
    import torch

    larger = counts[scattered(torch.arange(len(counts)))].flip(0).cumsum(0)
    return len(counts) - 1 - int((larger >= kept).nonzero()[0])
