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

__all__ = ["Sample", "question_changes", "samples_of", "samples_of_changes"]


ROUNDING = 1e-8
"""So far a score may be from the mean of its points, both 0 to 1, and be that mean all the same."""


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


def samples_of_changes(
    scores: Mapping[str, Score], other: Mapping[str, Score], objective: Objective
) -> list[Sample] | None:
    """Return one sample for each benchmark: how many points more each question has in one model than in another.

    Args:
        scores: The one's by benchmark.
        other: The other's.
        objective: Weighs the benchmarks.

    Returns:
        None where a benchmark does not give the points of the same questions for both.
    """
    changes: dict[str, dict[str, float]] = {}
    for name, score in scores.items():
        changed = question_changes(score, other[name]) if name in other else None
        if changed is None:
            return None
        changes[name] = changed
    return samples_of(changes, scores, objective)


def question_changes(score: Score, other: Score) -> dict[str, float] | None:
    """Return how many points more each question has, in the order of their indices.

    What was added to an estimate (`Score.corrected`) counts as questions more that changed, as few as can be: nobody
    asked them, so that it is not known which. Where a metric is no plain mean of points, what its change is apart from
    theirs is shared out among all questions, so that the mean of the changes is that of the scores.

    Args:
        score: One.
        other: What it is compared with, on the same benchmark.

    Returns:
        None where the two do not give the points of the same questions.
    """
    ours, theirs = score.questions, other.questions
    if not ours or not theirs or ours.keys() != theirs.keys():
        return None
    changes = {index: ours[index] - theirs[index] for index in sorted(ours)}
    added = round(_added(score) - _added(other), 9) / 100 * len(changes)
    if added:
        equal = [index for index, change in changes.items() if change == 0][: math.ceil(abs(added))] or [*changes]
        changes |= {index: changes[index] + added / len(equal) for index in equal}
    apart = (score.value - other.value) / 100 - math.fsum(changes.values()) / len(changes)
    if abs(apart) > ROUNDING:
        changes = {index: change + apart for index, change in changes.items()}
    return changes


def _added(score: Score) -> float:
    return score.estimate.added if score.estimate else 0.0


def _joined(points: Mapping[str, Mapping[str, float]], shares: Mapping[str, float]) -> Sample:
    weight = math.fsum(shares.values())
    if len(points) == 1:
        return Sample(weight, tuple(next(iter(points.values())).values()))
    sums: dict[str, float] = {}
    for name, row in points.items():
        for index, value in row.items():
            sums[index] = sums.get(index, 0.0) + shares[name] / weight * value / len(row)
    return Sample(weight, tuple(len(sums) * value for value in sums.values()))
