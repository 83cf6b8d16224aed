"""What a difference between two soups on the same questions can tell: the paired bootstrap.

The same questions were put to both, so that each question gives one difference. Questions are drawn anew with
replacement, benchmark by benchmark; the spread of the mean difference over many draws is its uncertainty (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from soup.evaluation.api import Score
from soup.evaluation.objective import Objective

__all__ = ["Difference", "paired_difference"]

RESAMPLES = 4999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """How much higher the one's overall is than the other's, in points.

    The mean difference, its 95 % interval, and the share of draws in which the one is better.
    """

    mean: float
    low: float
    high: float
    p_better: float

    def as_json(self) -> dict[str, float]:
        """The four numbers by name."""
        return {"difference": self.mean, "low": self.low, "high": self.high, "p_better": self.p_better}

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def paired_difference(one: Mapping[str, Score], other: Mapping[str, Score], objective: Objective) -> Difference | None:
    """One's scores held against the other's, question by question; None where a benchmark tells no questions' points.

    Seeded: the same scores give the same numbers.
    """
    pairs = []
    for name, score in one.items():
        ours, theirs = score.questions, other[name].questions if name in other else None
        if not ours or not theirs or ours.keys() != theirs.keys():
            return None
        pairs.append((objective.weights.get(name, 1.0), tuple(ours[key] - theirs[key] for key in sorted(ours))))
    return _bootstrap(tuple(pairs))


@lru_cache(maxsize=1024)
def _bootstrap(pairs: tuple[tuple[float, tuple[float, ...]], ...]) -> Difference:
    import numpy as np

    bootstrap: Any = import_module("scipy.stats").bootstrap  # here: a second that most commands need not wait

    total = sum(weight for weight, _ in pairs)

    def overall(*samples: Any, axis: int = -1) -> Any:
        parts = [
            100 * weight / total * sample.mean(axis=axis) for (weight, _), sample in zip(pairs, samples, strict=True)
        ]
        return sum(parts)

    samples = [np.asarray(differences) for _, differences in pairs]
    if all(len(set(differences)) == 1 for _, differences in pairs):  # nothing to draw from: every draw is the same
        mean = float(overall(*samples))
        return Difference(mean, mean, mean, float(mean > 0))
    found = bootstrap(
        samples,
        overall,
        n_resamples=RESAMPLES,
        batch=256,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    draws = found.bootstrap_distribution
    interval = found.confidence_interval
    return Difference(float(overall(*samples)), float(interval.low), float(interval.high), float((draws > 0).mean()))
