"""Comparisons as arrays: the one convex problem behind ratings, its minimum, and the sandwich around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from evaluators.arena.comparisons import Comparison

__all__ = ["Design", "Floats"]

Floats = NDArray[np.float64]

VIRTUAL_TIE = 0.5
"""The weight of the tie that joins each pair where a strength would be infinite."""


@dataclass(frozen=True)
class Design:
    """Comparisons as arrays.

    Args:
        names: The candidates', in the order of the columns.
        baseline: The name of the one whose strength is 0.
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

    @classmethod
    def of(cls, comparisons: Sequence[Comparison], names: Sequence[str], baseline: str) -> Design:
        """Return the arrays of comparisons."""
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

    def with_length(self, longer: Floats) -> Design:
        """Return the same with a column for how much longer each first answer is."""
        return replace(self, x=np.column_stack([self.x, longer]))

    def needs_joining(self) -> bool:
        """Whether a strength is infinite: some candidates never lost to any of the others."""
        count = len(self.names)
        first, second = self.x[:, :count].argmax(1), self.x[:, :count].argmin(1)
        lost = np.zeros((count, count))
        np.add.at(lost, (second, first), self.weights * self.y)
        np.add.at(lost, (first, second), self.weights * (1 - self.y))
        return int(connected_components(lost > 0, connection="strong")[0]) > 1

    def joined(self) -> Design:
        """Return the same with a virtual tie for each pair, in no cluster."""
        count, length = len(self.names), self.x.shape[1]
        first, second = np.triu_indices(count, 1)
        x = np.zeros((len(first), length))
        x[np.arange(len(first)), first], x[np.arange(len(first)), second] = 1, -1
        return self._extended(x)

    def length_bounded(self) -> Design:
        """Return the same with a virtual tie of two answers that differ in length alone."""
        row = np.zeros((1, self.x.shape[1]))
        row[0, -1] = 1
        return self._extended(row)

    def _extended(self, x: Floats) -> Design:
        ties = np.full(len(x), 0.5)
        return replace(
            self,
            x=np.vstack([self.x, x]),
            y=np.concatenate([self.y, ties]),
            weights=np.concatenate([self.weights, np.full(len(x), VIRTUAL_TIE)]),
            clusters=np.concatenate([self.clusters, np.full(len(x), -1)]),
        )

    def solve(self, start: Floats | None = None) -> Floats:
        """Return what minimises sum w (softplus(x b) - y x b), by Newton's method; the baseline's is 0."""
        x, y, weights = self.x[:, self.free], self.y, self.weights
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


def _hessian(x: Floats, weights: Floats, p: Floats) -> Floats:
    hessian: Floats = (x * (weights * p * (1 - p))[:, None]).T @ x
    return hessian
