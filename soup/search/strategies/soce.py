"""Soup of category experts: the best model of each kind of benchmark, weighted over a grid.

Source: Maiti et al., Souper-Model, arXiv 2511.13254, section 3 (benchmarks that correlate weakly, an expert for each,
weights by search). Few models make a correlation noise: at 7 it is known to about 0.7 either way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean, pstdev
from typing import Any, TypeVar

from soup.errors import RecipeError
from soup.search.strategies.acceptance import Rule, best_of
from soup.search.strategies.base import Budget, Choice, Scored, ScoreFunction, budget, unknown
from soup.search.strategies.weighting import compositions, describe_weights, weighted

__all__ = ["soce"]

T = TypeVar("T")

LEAST_MODELS, LEAST_BENCHMARKS, MOST_EXPERTS = 5, 3, 4
UNITS, COARSE = 10, 2
"""Weights are tenths; the coarse grid has every second of them."""


def _budget(count: int, *, tau: float = 0.5, full: bool = False, accept: str = "gt") -> Budget:
    Rule.parse(accept)
    if not isinstance(tau, int | float) or isinstance(tau, bool) or not 0 < tau <= 1:
        raise RecipeError(f"tau must be a number above 0, at most 1; found {tau!r}.")
    if not isinstance(full, bool):
        raise RecipeError(f"full must be true or false; found {full!r}.")
    if count < LEAST_MODELS:
        raise RecipeError(
            f"soce needs at least {LEAST_MODELS} ingredients, for a correlation over {count} is noise. Take greedy."
        )
    return Budget(singles=count, soups=max(_most_soups(parts, full=full) for parts in range(2, MOST_EXPERTS + 1)))


def _check(pool: object, benchmarks: Sequence[str] | None, **_: object) -> None:
    if benchmarks is not None and len(benchmarks) < LEAST_BENCHMARKS:
        raise RecipeError(
            f"soce needs at least {LEAST_BENCHMARKS} benchmarks to find experts for; found {len(benchmarks)}. Take "
            "greedy."
        )


@budget(_budget, _check)
def soce(
    pool: Sequence[T], score: ScoreFunction, *, tau: float = 0.5, full: bool = False, accept: str = "gt"
) -> Choice:
    """Find benchmarks that correlate weakly with some other, take the best model of each, and search their weights.

    Weights are tenths above 0: 9, 36 or 84 soups for 2, 3 or 4 experts with `full=true`; else fifths first, and then
    the tenths around the best of them.

    Args:
        pool: At least 5 ingredients.
        score: Scores them, over at least 3 benchmarks.
        tau: A benchmark counts whose correlation with some other lies between -tau and tau.
        full: Whether the whole grid is scored.
        accept: When a soup replaces the best single model: `gt`, `ge`, or `p>0.9`.

    Raises:
        RecipeError: A wrong option, too few models or benchmarks.
    """
    rule = Rule.parse(accept)
    first = score([pool[0]])
    rule.check(first)
    _check(pool, None if unknown([first]) else _benchmarks(first))
    singles = [score([part]) for part in pool]
    chosen, best = best_of([([part], trial) for part, trial in zip(pool, singles, strict=True)])
    if unknown(singles):
        return Choice(chosen)
    rows = _by_benchmark(singles)
    kept = _weakly_correlated(rows, tau)
    experts = _experts({name: rows[name] for name in kept}, singles)
    notes = [f"Benchmarks that count: {', '.join(kept) or 'none'}. Their experts: "
             f"{describe_weights([pool[index] for index in experts]) or 'none'}."]  # fmt: skip
    path: list[Scored] = [best]
    if len(experts) > 1:
        trials = _search([pool[index] for index in experts], score, full=full)
        if unknown(trial for _, trial in trials):
            return Choice(chosen)
        soup, trial = best_of(trials)
        if rule.admits(trial, best):
            chosen, best = soup, trial
            path.append(best)
    return Choice(chosen, path=path, notes=notes)


def _most_soups(parts: int, *, full: bool) -> int:
    """Return how many points of the grid are scored at most over so many experts."""
    if full:
        return len(compositions(UNITS, parts))
    steps = [step for step in product((-1, 0, 1), repeat=parts) if any(step) and not sum(step)]
    return len(compositions(UNITS // COARSE, parts)) + len(steps)


def _benchmarks(trial: Scored) -> list[str]:
    return list(getattr(trial, "scores", {}))


def _by_benchmark(singles: Sequence[Scored]) -> dict[str, list[float]]:
    """Return the singles' scores by benchmark."""
    scores: list[Mapping[str, Any]] = [getattr(trial, "scores", {}) for trial in singles]
    return {name: [row[name].value for row in scores] for name in _benchmarks(singles[0])}


def _weakly_correlated(rows: Mapping[str, Sequence[float]], tau: float) -> list[str]:
    """List the benchmarks with |Pearson r| < tau to some other; one on which all models are equal has no r."""
    varied = {name: row for name, row in rows.items() if pstdev(row) > 1e-9}
    return [
        name
        for name, row in varied.items()
        if any(abs(_pearson(row, other)) < tau for other_name, other in varied.items() if other_name != name)
    ]


def _pearson(left: Sequence[float], right: Sequence[float]) -> float:
    products = [(a - fmean(left)) * (b - fmean(right)) for a, b in zip(left, right, strict=True)]
    return math.fsum(products) / len(products) / (pstdev(left) * pstdev(right))


def _experts(rows: Mapping[str, Sequence[float]], singles: Sequence[Scored]) -> list[int]:
    """Return the best model of each benchmark, those first that gain most over the mean, at most four."""
    gains: dict[int, float] = {}
    for row in rows.values():
        expert = max(range(len(row)), key=lambda index: (row[index], singles[index].overall))
        gains[expert] = max(gains.get(expert, 0.0), row[expert] - fmean(row))
    return sorted(sorted(gains, key=lambda index: -gains[index])[:MOST_EXPERTS])


def _search(parts: Sequence[T], score: ScoreFunction, *, full: bool) -> list[tuple[Any, Scored]]:
    """Score the grid of weights, or its coarse points and then those around the best of them."""
    every = compositions(UNITS, len(parts))
    coarse = [tuple(COARSE * value for value in point) for point in compositions(UNITS // COARSE, len(parts))]
    points = every if full else coarse
    trials = [(point, score(weighted(parts, point))) for point in points]
    if not full and not unknown(trial for _, trial in trials):
        centre, _ = best_of(trials)
        near = [p for p in every if p not in points and max(abs(a - b) for a, b in zip(p, centre, strict=True)) == 1]
        trials += [(point, score(weighted(parts, point))) for point in near]
    return [(weighted(parts, point), trial) for point, trial in trials]
