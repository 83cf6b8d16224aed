"""A report on data ratios: how scores depend on the weights of a pool, as a hint for one joint training.

Source: Optimizing data mixtures by model merging, arXiv 2602.04937: weighted means of models that were each tuned on
one data set stand in for models trained on mixtures of the sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeVar

from soup.errors import RecipeError
from soup.search.strategies.acceptance import best_of, careful_rule, describe_overall
from soup.search.strategies.base import Budget, Choice, Chosen, Scored, ScoreFunction, budget, unknown
from soup.search.strategies.weighting import describe_weights, weighted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["mixture"]

T = TypeVar("T")

LEAST, MOST = 20, 60
DECIMALS = 3
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
CANDIDATES = 20_000  # weightings at which the fit is read


def _budget(count: int, *, samples: int = 30, seed: int = 0) -> Budget:
    if not isinstance(samples, int) or isinstance(samples, bool) or not LEAST <= samples <= MOST:
        raise RecipeError(f"samples must be a whole number from {LEAST} to {MOST}; found {samples!r}.")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise RecipeError(f"seed must be a whole number of at least 0; found {seed!r}.")
    return Budget(singles=0, soups=samples + 1) if count > 1 else Budget(singles=1, soups=0)


@budget(_budget)
def mixture(pool: Sequence[T], score: ScoreFunction, *, samples: int = 30, seed: int = 0) -> Choice:
    """Score random weightings, fit each benchmark on them, and report the data ratios that the fit likes best.

    The report is what it is for; the soup is the best weighting that was scored if it beats the average, which is
    seldom as good as what a search finds.

    Args:
        pool: The ingredients, each tuned on one data set.
        score: Scores weighted means of them.
        samples: How many weightings, 20 to 60; beside them the average.
        seed: Seeds the weightings.

    Raises:
        RecipeError: A wrong option.
    """
    import numpy as np

    average = score(list(pool))
    if len(pool) == 1:
        return Choice(list(pool))
    drawn = np.random.default_rng(seed).dirichlet(np.ones(len(pool)), samples).round(DECIMALS)
    soups = [weighted(pool, [float(weight) for weight in row]) for row in drawn]
    trials = [score(soup) for soup in soups]
    if unknown([average, *trials]):
        return Choice(list(pool))
    rows = np.vstack([np.full(len(pool), 1 / len(pool)), drawn / drawn.sum(axis=1, keepdims=True)])
    note = _report(pool, rows, [average, *trials], seed)
    chosen, best = best_of(zip(soups, trials, strict=True))
    if careful_rule(None, best).admits(best, average):
        return Choice(chosen, path=[average, best], notes=[note])
    return Choice(list(pool), path=[average], notes=[note])


def _report(pool: Sequence[Any], rows: Array, trials: Sequence[Scored], seed: int) -> str:
    import numpy as np

    benchmarks = _by_benchmark(trials)
    fits = {name: _Fit(rows, np.asarray(values)) for name, values in benchmarks.items()}
    overall = np.asarray([trial.overall for trial in trials])
    whole = _Fit(rows, overall)
    corners, draws = np.eye(len(pool)), np.random.default_rng(seed + 1).dirichlet(np.ones(len(pool)), CANDIDATES)
    candidates = np.vstack([rows[:1], corners, draws])
    predicted = whole.predict(candidates)
    proposal = candidates[int(predicted.argmax())].round(2)
    liked: Chosen = weighted(pool, [float(weight) for weight in proposal])
    lines = [f"Proposed data ratios: {describe_weights(liked)}; predicted overall {predicted.max():.2f}, the average's "
             f"{describe_overall(trials[0])}."]  # fmt: skip
    for name, fit in {**fits, "overall": whole}.items():
        lines.append(f"  {name}: leave-one-out error {fit.error:.2f} points, scores vary by {fit.spread:.2f}")
    if whole.error >= whole.spread:
        lines.append("  The fit explains nothing of the overall: do not act on it.")
    return "\n".join(lines)


def _by_benchmark(trials: Sequence[Scored]) -> dict[str, list[float]]:
    scores: list[Mapping[str, Any]] = [getattr(trial, "scores", {}) for trial in trials]
    return {name: [row[name].value for row in scores] for name in scores[0]}


class _Fit:
    """Ridge regression of scores on weights and their pairwise products; the penalty by leave-one-out error."""

    def __init__(self, rows: Array, scores: Array) -> None:
        import numpy as np

        self._centre = float(scores[0])  # the average's: no mean, in which what is left out would take part
        self.spread = float(scores[1:].std(ddof=1))
        features, target = _features(rows), scores - self._centre
        self.error, self._coefficients = math.inf, np.zeros(features.shape[1])
        for ridge in RIDGES:
            inverse = np.linalg.inv(features.T @ features + ridge * np.eye(features.shape[1]))
            leverage = np.einsum("ij,jk,ik->i", features, inverse, features)
            coefficients = inverse @ features.T @ target
            left_out = ((target - features @ coefficients) / (1 - leverage))[1:]
            error = float(np.sqrt((left_out**2).mean()))
            if error < self.error:
                self.error, self._coefficients = error, coefficients

    def predict(self, rows: Array) -> Array:
        predicted: Array = self._centre + _features(rows) @ self._coefficients
        return predicted


def _features(rows: Array) -> Array:
    import numpy as np

    products = [rows[:, i] * rows[:, j] for i, j in combinations(range(rows.shape[1]), 2)]
    return np.column_stack([rows, *products])
