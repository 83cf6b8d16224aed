"""The paired bootstrap: how certain a difference between two soups is that answered the same questions.

Each question gives one difference. Questions are drawn anew with replacement, benchmark by benchmark; the spread of the
mean difference over many draws is its uncertainty.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from soup.evaluation.api import Score
from soup.evaluation.objective import DECIMALS, Objective
from soup.evaluation.samples import Sample, question_changes, samples_of_changes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Difference", "benchmark_difference", "paired_difference"]

RESAMPLES = 4999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """How much higher one soup's overall is than another's, in points.

    Args:
        mean: The mean difference.
        low: The lower end of its 95 % interval.
        high: The upper end.
        p_better: The share of draws in which the first soup is better.
    """

    mean: float
    low: float
    high: float
    p_better: float

    def as_json(self) -> dict[str, float]:
        """Give the four numbers by name."""
        return {"difference": self.mean, "low": self.low, "high": self.high, "p_better": self.p_better}

    def __str__(self) -> str:
        return f"{self.mean:+z.2f} [{self.low:+z.2f}, {self.high:+z.2f}]"


def paired_difference(
    scores: Mapping[str, Score], other: Mapping[str, Score], objective: Objective
) -> Difference | None:
    """Compare a soup's scores with another's, question by question; the same scores give the same numbers.

    Args:
        scores: The soup's scores by benchmark.
        other: Those of the soup that it is compared with.
        objective: Weighs the benchmarks.

    Returns:
        None where a benchmark does not give the points of the same questions for both.
    """
    samples = samples_of_changes(scores, other, objective)
    return None if samples is None else _bootstrap(tuple(samples))


def benchmark_difference(score: Score, other: Score) -> Difference | None:
    """Compare two scores on one benchmark, question by question: the normal interval, at the cost of a sum.

    The mean is the scores' difference, the width that of their points: where a metric is no plain mean it is near.

    Args:
        score: One.
        other: What it is compared with.

    Returns:
        None where the two do not give the points of the same questions.
    """
    changes = question_changes(score, other)
    if changes is None:
        return None
    mean = score.value - other.value
    error = 100 * statistics.pstdev(changes.values()) / math.sqrt(len(changes))
    if error == 0:
        return Difference(mean, mean, mean, float(mean > 0))
    spread = statistics.NormalDist(mean, error)
    tail = (1 - CONFIDENCE) / 2
    return Difference(mean, spread.inv_cdf(tail), spread.inv_cdf(1 - tail), 1 - spread.cdf(0))


@lru_cache(maxsize=1024)
def _bootstrap(pairs: tuple[Sample, ...]) -> Difference:
    """Draw from the differences by question of each benchmark; one of a single question is always drawn whole."""
    import numpy as np

    # Imported here: it takes a second, and most commands need none of it.
    from scipy.stats import bootstrap

    total = sum(weight for weight, _ in pairs)

    def overall(*samples: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        parts: list[NDArray[np.float64]] = [
            100 * weight / total * sample.mean(axis=axis) for (weight, _), sample in zip(pairs, samples, strict=True)
        ]
        return sum(parts[1:], start=parts[0])

    # Twice a single question, for scipy takes no fewer than two numbers.
    samples = [np.asarray(differences * (2 if len(differences) == 1 else 1)) for _, differences in pairs]
    if all(len(set(differences)) == 1 for _, differences in pairs):  # then every draw is the same
        mean = float(overall(*samples))
        return Difference(mean, mean, mean, float(mean > 0))
    result = bootstrap(
        samples,
        overall,
        n_resamples=RESAMPLES,
        batch=256,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    draws = result.bootstrap_distribution.round(DECIMALS)  # of a tie the sum may be off by a little
    interval = result.confidence_interval
    return Difference(float(overall(*samples)), float(interval.low), float(interval.high), float((draws > 0).mean()))
