"""Bradley-Terry ratings from comparisons of two answers, with intervals clustered by question.

The chance that i's answer is preferred to j's is sigmoid(b_i - b_j); a tie is half a win for each. All votes count at
once: what an online Elo makes of them depends on their order.

Source: Bradley and Terry, Biometrika 39, 1952; Liang and Zeger, Biometrika 73, 1986 (the sandwich); length as a
covariate: Dubois et al., arXiv 2404.04475, and the style control of Chatbot Arena.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from evaluators.arena.comparisons import Comparison
from evaluators.arena.design import Design, Floats

__all__ = ["ELO", "Fit", "Interval", "bootstrap", "fit"]

ELO = 400 / math.log(10)
"""Points of an Elo scale for one unit of strength."""
Z = 1.959963984540054
DRAWS = 1000


@dataclass(frozen=True)
class Interval:
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def normal(cls, value: float, variance: float) -> Interval:
        """Return the normal interval."""
        error = Z * math.sqrt(max(variance, 0.0))
        return cls(value, value - error, value + error)

    def scaled(self, factor: float, shift: float = 0.0) -> Interval:
        """Return it in other units."""
        return Interval(*(shift + factor * end for end in (self.value, self.low, self.high)))

    def as_json(self) -> dict[str, float]:
        """Give the three numbers by name."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Fit:
    """Strengths of candidates, the baseline's being 0.

    Args:
        names: The candidates.
        baseline: One of them.
        strengths: By candidate.
        covariance: Of the strengths, and of the length's effect after them where there is one [k or k + 1, the same].
        is_joined: Whether virtual ties join all pairs, since a strength would be infinite without.
        length: What one standard deviation of length adds to an answer's strength; None: it was not asked for.
        length_deviation: That deviation.
    """

    names: tuple[str, ...]
    baseline: str
    strengths: Floats
    covariance: Floats
    is_joined: bool = False
    length: float | None = None
    length_deviation: float = 0.0

    def difference(self, name: str) -> Interval:
        """Return how much stronger a candidate is than the baseline."""
        at = self.names.index(name)
        return Interval.normal(float(self.strengths[at]), float(self.covariance[at, at]))

    def centred(self, name: str) -> Interval:
        """Return how much stronger a candidate is than the mean of all."""
        count = len(self.names)
        contrast = np.eye(count)[self.names.index(name)] - 1 / count
        variance = contrast @ self.covariance[:count, :count] @ contrast
        return Interval.normal(float(contrast @ self.strengths), float(variance))

    @property
    def length_effect(self) -> Interval | None:
        """The effect of length with its interval."""
        return None if self.length is None else Interval.normal(self.length, float(self.covariance[-1, -1]))

    def preferred(self, name: str) -> float:
        """Return the chance that a candidate's answer is preferred to the baseline's."""
        return float(expit(self.strengths[self.names.index(name)]))


def fit(comparisons: Sequence[Comparison], names: Sequence[str], baseline: str, *, length: bool = False) -> Fit:
    """Fit the strengths of candidates.

    Args:
        comparisons: At least one.
        names: All candidates, compared or not.
        baseline: The candidate whose strength is 0.
        length: Whether the length of answers has an effect of its own, so that strengths are those of answers of one
            length. One virtual tie keeps it finite where the longer answer wins always.
    """
    design = Design.of(comparisons, names, baseline)
    if is_joined := design.needs_joining():
        design = design.joined()
    if not length:
        solution = design.solve()
        return Fit(design.names, baseline, solution, design.sandwich(solution), is_joined)
    longer = np.array([c.longer for c in comparisons], float)
    deviation = float(np.sqrt(np.average(longer**2, weights=[c.weight for c in comparisons]))) or 1.0
    padding = np.zeros(len(design.y) - len(longer))
    design = design.with_length(np.concatenate([longer / deviation, padding])).length_bounded()
    solution = design.solve()
    covariance, strengths = design.sandwich(solution), solution[:-1]
    return Fit(design.names, baseline, strengths, covariance, is_joined, float(solution[-1]), deviation)


def bootstrap(
    comparisons: Sequence[Comparison], names: Sequence[str], baseline: str, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Return each candidate's difference to the baseline, with the percentile interval over questions drawn anew.

    Args:
        comparisons: At least one.
        names: All candidates, compared or not.
        baseline: The candidate whose strength is 0.
        draws: How many times the questions are drawn.
        seed: Another one draws other questions.
    """
    design = Design.of(comparisons, names, baseline)
    random, count = np.random.default_rng(seed), int(design.clusters.max()) + 1
    whole = fit(comparisons, names, baseline).strengths
    # What a pair's votes of one outcome come to is all that strengths depend on: a fit is of that many rows.
    kinds, kind = np.unique(np.column_stack([design.x, design.y]), axis=0, return_inverse=True)
    summed = replace(design, x=kinds[:, :-1], y=kinds[:, -1], clusters=np.zeros(len(kinds), np.int64))
    drawn = np.empty((draws, len(design.names)))
    for number in range(draws):
        times = np.bincount(random.integers(count, size=count), minlength=count)
        summed_weights = np.bincount(kind.ravel(), design.weights * times[design.clusters], len(kinds))
        resampled = replace(summed, weights=summed_weights.astype(np.float64))
        resampled = resampled.joined() if resampled.needs_joining() else resampled
        drawn[number] = resampled.solve(start=whole)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return {name: Interval(float(whole[i]), float(low[i]), float(high[i])) for i, name in enumerate(design.names)}
