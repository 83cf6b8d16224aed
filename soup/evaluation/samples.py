"""Points by question, benchmark by benchmark: what uncertainty is computed from.

Parts of a benchmark are about the same questions, and rise and fall with them. They are one sample of questions, in
which each question has what it adds to the parts' weighted mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from soup.evaluation.api import Score
from soup.evaluation.objective import Objective

__all__ = ["Sample", "samples_of"]


class Sample(NamedTuple):
    """A benchmark's weight, and a number of each of its questions, whose mean counts."""

    weight: float
    points: tuple[float, ...]


def samples_of(
    points: Mapping[str, Mapping[str, float]], scores: Mapping[str, Score], objective: Objective
) -> list[Sample]:
    """Return one sample for each benchmark, in order.

    Args:
        points: Of each name that counts, a number of each of its questions.
        scores: What counts, by the same names: says what is a part of which benchmark.
        objective: Weighs the names.
    """
    groups: dict[str, list[str]] = {}
    for name in points:
        groups.setdefault(scores[name].part_of or name, []).append(name)
    return [_joined({name: points[name] for name in names}, objective.shares(names)) for names in groups.values()]


def _joined(points: Mapping[str, Mapping[str, float]], shares: Mapping[str, float]) -> Sample:
    weight = math.fsum(shares.values())
    if len(points) == 1:
        return Sample(weight, tuple(next(iter(points.values())).values()))
    sums: dict[str, float] = {}
    for name, row in points.items():
        for index, value in row.items():
            sums[index] = sums.get(index, 0.0) + shares[name] / weight * value / len(row)
    return Sample(weight, tuple(len(sums) * value for value in sums.values()))
