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
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from evaluators.arena.comparisons import Comparison

__all__ = ["ELO", "Fit", "Interval", "bootstrap", "fit"]

Floats = NDArray[np.float64]

ELO = 400 / math.log(10)
"""Points of an Elo scale for one unit of strength."""
VIRTUAL_TIE = 0.5
"""The weight of the tie that joins each pair where a strength would be infinite."""
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

    def __str__(self) -> str:
        return f"{self.value:+.0f} [{self.low:+.0f}, {self.high:+.0f}]"


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


@dataclass(frozen=True)
class _Design:
    """Comparisons as arrays.

    Args:
        x: 1 for the first, -1 for the second candidate, and the length's column where there is one [comparisons, k].
        y: The first's points.
        weights: How much each counts.
        clusters: The number of each one's question.
    """

    names: tuple[str, ...]
    baseline: str
    x: Floats
    y: Floats
    weights: Floats
    clusters: NDArray[np.int64]
    has_length: bool = False

    @classmethod
    def of(cls, comparisons: Sequence[Comparison], names: Sequence[str], baseline: str) -> _Design:
        at, questions = {name: i for i, name in enumerate(names)}, {c.question: 0 for c in comparisons}
        numbers = {question: i for i, question in enumerate(questions)}
        x = np.zeros((len(comparisons), len(names)))
        rows = np.arange(len(comparisons))
        x[rows, [at[c.first] for c in comparisons]] = 1
        x[rows, [at[c.second] for c in comparisons]] = -1
        return cls(
            tuple(names),
            baseline,
            x,
            np.array([c.points for c in comparisons], float),
            np.array([c.weight for c in comparisons], float),
            np.array([numbers[c.question] for c in comparisons], np.int64),
        )

    @property
    def free(self) -> NDArray[np.bool_]:
        """Which columns are fitted: all but the baseline's."""
        is_free = np.ones(self.x.shape[1], bool)
        is_free[self.names.index(self.baseline)] = False
        return is_free

    def with_length(self, longer: Floats) -> _Design:
        return replace(self, x=np.column_stack([self.x, longer]), has_length=True)

    def needs_joining(self) -> bool:
        """Whether a strength is infinite: some candidates never lost to any of the others."""
        count = len(self.names)
        first, second = self.x[:, :count].argmax(1), self.x[:, :count].argmin(1)
        lost = np.zeros((count, count))
        np.add.at(lost, (second, first), self.weights * self.y)
        np.add.at(lost, (first, second), self.weights * (1 - self.y))
        return int(connected_components(lost > 0, connection="strong")[0]) > 1

    def joined(self) -> _Design:
        """Return the same with a virtual tie for each pair, in no cluster."""
        count, length = len(self.names), self.x.shape[1]
        first, second = np.triu_indices(count, 1)
        x = np.zeros((len(first), length))
        x[np.arange(len(first)), first], x[np.arange(len(first)), second] = 1, -1
        return self._extended(x)

    def length_bounded(self) -> _Design:
        """Return the same with a virtual tie of two answers that differ in length alone."""
        row = np.zeros((1, self.x.shape[1]))
        row[0, -1] = 1
        return self._extended(row)

    def _extended(self, x: Floats) -> _Design:
        ties = np.full(len(x), 0.5)
        return replace(
            self,
            x=np.vstack([self.x, x]),
            y=np.concatenate([self.y, ties]),
            weights=np.concatenate([self.weights, np.full(len(x), VIRTUAL_TIE)]),
            clusters=np.concatenate([self.clusters, np.full(len(x), -1)]),
        )

    def solve(self, weights: Floats | None = None, start: Floats | None = None) -> Floats:
        """Return what minimises sum w (softplus(x b) - y x b), by Newton's method; the baseline's is 0."""
        x, y, weights = self.x[:, self.free], self.y, self.weights if weights is None else weights
        b = np.zeros(x.shape[1]) if start is None else start[self.free]

        def loss(at: Floats) -> float:
            d = x @ at
            return float(weights @ (np.logaddexp(0, d) - y * d))

        known = loss(b)
        for _ in range(100):
            p = expit(x @ b)
            step = np.linalg.solve(_hessian(x, weights, p), x.T @ (weights * (y - p)))
            while (new := loss(b + step)) > known + 1e-12 * abs(known):
                step = step / 2
            b, known = b + step, new
            if np.abs(step).max(initial=0) < 1e-9:
                break
        solution = np.zeros(self.x.shape[1])
        solution[self.free] = b
        return solution

    def sandwich(self, solution: Floats) -> Floats:
        """Return the covariance H^-1 G H^-1, with G summed up by cluster."""
        x, p = self.x[:, self.free], expit(self.x @ solution)
        inverse = np.linalg.inv(_hessian(x, self.weights, p))
        real = self.clusters >= 0
        count = int(self.clusters.max()) + 1
        gradients = np.zeros((count, x.shape[1]))
        np.add.at(gradients, self.clusters[real], ((self.weights * (self.y - p))[:, None] * x)[real])
        middle = gradients.T @ gradients * (count / max(count - 1, 1))
        covariance = np.zeros((self.x.shape[1],) * 2)
        covariance[np.ix_(self.free, self.free)] = inverse @ middle @ inverse
        return covariance


def fit(comparisons: Sequence[Comparison], names: Sequence[str], baseline: str, *, length: bool = False) -> Fit:
    """Fit the strengths of candidates.

    Args:
        comparisons: At least one.
        names: All candidates, compared or not.
        baseline: The candidate whose strength is 0.
        length: Whether the length of answers has an effect of its own, so that strengths are those of answers of one
            length. One virtual tie keeps it finite where the longer answer wins always.
    """
    design = _Design.of(comparisons, names, baseline)
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
    """Return each candidate's difference to the baseline, with the percentile interval over questions drawn anew."""
    design = _Design.of(comparisons, names, baseline)
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


def _hessian(x: Floats, weights: Floats, p: Floats) -> Floats:
    hessian: Floats = (x * (weights * p * (1 - p))[:, None]).T @ x
    return hessian
