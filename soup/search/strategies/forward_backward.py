"""Forward and backward with replacement: an ingredient may count several times, and may be taken out again.

Source: Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004, section 2.1 (selection with
replacement), here on weights instead of predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import TypeVar

from soup.errors import RecipeError
from soup.search.strategies.acceptance import Rule, best_of, careful_rule
from soup.search.strategies.base import (
    Budget,
    Choice,
    ScoreFunction,
    Watched,
    best_allowed_first,
    budget,
    by_overall,
    tell_best,
    unknown,
)
from soup.search.strategies.greedy import greedy
from soup.search.strategies.weighting import weighted

__all__ = ["forward_backward"]

T = TypeVar("T")
Counts = tuple[int, ...]


def _budget(count: int, *, accept: str | None = None, steps: int = 10, start: str = "greedy") -> Budget:
    if accept is not None:
        Rule.parse(accept)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise RecipeError(f"steps must be a whole number of at least 1; found {steps!r}.")
    if start not in ("greedy", "best"):
        raise RecipeError(f"start must be greedy or best (the best single model); found {start!r}.")
    if count == 1:
        return Budget(singles=1, soups=0)
    return Budget(singles=count, soups=(count - 1 if start == "greedy" else 0) + 2 * count * steps)


@budget(_budget)
def forward_backward(
    pool: Sequence[T],
    score: ScoreFunction,
    *,
    accept: str | None = None,
    steps: int = 10,
    start: str = "greedy",
) -> Choice:
    """Count each ingredient up or down by one at a time, and take the best of these soups as long as one is better.

    Weights are the counts' shares. A step asks for at most 2 k soups, some of which were asked for before. Where none
    is better, the next step is half as long: all counts are doubled first. Where that does not help either, it ends.

    Args:
        pool: The ingredients.
        score: Scores weighted means of them.
        accept: When a step is taken: `gt`, `ge`, or `p>0.9`. By default `p>0.8` where the points of each question are
            known, for the best of so many soups is mostly so by chance, and `gt` elsewhere.
        steps: How many steps at most.
        start: `greedy` (greedy's soup), or `best` (the best single model).

    Raises:
        RecipeError: A wrong option.
        EvaluatorError: `p>...`, and a benchmark does not give its questions' points.
    """
    rule = careful_rule(accept, score([pool[0]]))
    rule.check(score([pool[0]]))
    singles = [score([part]) for part in pool]
    watched = Watched(score)
    first = best_allowed_first(by_overall(pool, score), score)[:1] if start == "best" else greedy(pool, watched)
    counts: Counts = tuple(int(any(part is other for other in first)) for part in pool)
    best = score(weighted(pool, counts))
    path, visited, is_fine = [best], {counts}, False
    if unknown([*singles, best]) or watched.met_guess:
        return Choice(weighted(pool, counts))
    tell_best(score, best)
    for _ in range(steps):
        near = [other for other in _neighbours(counts, 2 if is_fine else 1) if other not in visited]
        trials = [(other, score(weighted(pool, other))) for other in near]
        if not trials or unknown(trial for _, trial in trials):
            break
        # Of equal soups the one of fewer ingredients.
        moved, trial = best_of(sorted(trials, key=lambda pair: sum(map(bool, pair[0]))))
        if rule.admits(trial, best):
            counts, best, is_fine = moved, trial, False
            visited.add(counts)
            path.append(best)
            tell_best(score, best)
        elif is_fine:
            break
        else:
            is_fine = True
    return Choice(weighted(pool, counts), path=path)


def _neighbours(counts: Counts, factor: int) -> list[Counts]:
    """List the counts, times a factor, with one ingredient more or less, reduced: 2 + 2 is the soup of 1 + 1."""
    counts = tuple(factor * count for count in counts)
    changed = []
    for step in (1, -1):
        for index, count in enumerate(counts):
            moved = (*counts[:index], count + step, *counts[index + 1 :])
            if count + step >= 0 and any(moved):
                divisor = gcd(*moved)
                changed.append(tuple(value // divisor for value in moved))
    return list(dict.fromkeys(changed))
