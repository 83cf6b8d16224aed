"""What chance alone makes of many candidates, and how sure an overall is.

The best of m candidates that are all as good as the best single model looks better than it by up to

    s sqrt(2 ln m)

on average, where s is the largest standard error of a candidate's difference from it. Candidates may depend on each
other in any way: the bound holds all the same.

Source: Boucheron, Lugosi, Massart, Concentration Inequalities, 2013, theorem 2.5.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from soup.evaluation.api import Score
from soup.evaluation.objective import Objective
from soup.evaluation.samples import Sample, samples_of, samples_of_changes

__all__ = ["chance_gain", "difference_error", "overall_interval"]

QUANTILE = 1.96
"""Of the normal distribution, for 95 %."""


def chance_gain(errors: Sequence[float]) -> float:
    """Return how much better than the best single model the best of several equals of it looks, at most, on average.

    Args:
        errors: The standard error of each candidate's difference from it, in points.
    """
    return max(errors) * math.sqrt(2 * math.log(len(errors))) if errors else 0.0


def difference_error(scores: Mapping[str, Score], other: Mapping[str, Score], objective: Objective) -> float | None:
    """Return the standard error of the difference of two overalls, question by question; None without points."""
    samples = samples_of_changes(scores, other, objective)
    return None if samples is None else _error(samples)


def overall_interval(scores: Mapping[str, Score], objective: Objective) -> tuple[float, float] | None:
    """Return the 95 % interval of an overall: that of other questions of the same kind; None without points."""
    points = {name: score.questions or {} for name, score in scores.items()}
    if not points or not all(points.values()):
        return None
    value, half = objective.overall(scores), QUANTILE * _error(samples_of(points, scores, objective))
    return max(0.0, value - half), min(100.0, value + half)


def _error(samples: Sequence[Sample]) -> float:
    total = math.fsum(weight for weight, _ in samples)
    return 100 * math.sqrt(
        math.fsum((weight / total) ** 2 * statistics.pvariance(row) / len(row) for weight, row in samples)
    )
