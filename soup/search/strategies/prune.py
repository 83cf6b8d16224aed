"""Pruning: start from all, and leave out what the soup is better without. Backward elimination, greedy's mirror.

Source: Pruned soups, in: Dansereau et al., Model soups to increase inference without increasing compute time, arXiv
2301.10092, section 3 (one sweep, `order=own`); the full search is stepwise selection backward, as old as regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from soup.errors import RecipeError
from soup.search.strategies.acceptance import Rule, best_of, describe_difference
from soup.search.strategies.base import Budget, Choice, Scored, ScoreFunction, allowed, budget, tell_best, unknown

__all__ = ["prune"]

T = TypeVar("T")


def _budget(count: int, *, accept: str = "gt", order: str = "full") -> Budget:
    Rule.parse(accept)
    if order not in ("full", "own"):
        raise RecipeError(f"order must be full or own; found {order!r}.")
    if order == "own":
        return Budget(singles=count, soups=count if count > 1 else 0)
    singles = min(count, 2)  # the last pair without either
    return Budget(singles=singles, soups=count * (count + 1) // 2 - singles)


@budget(_budget)
def prune(pool: Sequence[T], score: ScoreFunction, *, accept: str = "gt", order: str = "full") -> Choice:
    """Start from the mean of all, and leave out one ingredient at a time as long as the mean gets better.

    At most k (k + 1) / 2 evaluations: the mean of all, then all means without one, and so on. The first round is the
    leave-one-out table. `order=own` makes one sweep in ascending order of each one's own score instead: at most
    2 k evaluations.

    Args:
        pool: The ingredients.
        score: Scores the mean of some of them.
        accept: When a smaller soup replaces a larger: `gt`, `ge` (which strips the soup to one on ties), or `p>0.9`.
        order: `full`, or `own`.

    Raises:
        RecipeError: An unknown rule or order.
    """
    rule = Rule.parse(accept)
    chosen, best = list(pool), score(list(pool))
    rule.check(best)
    tell_best(score, best)
    if order == "own":
        return _sweep(chosen, best, score, rule)
    path = [best]
    notes: list[str] = []
    while len(chosen) > 1:
        rest = [(without(chosen, part), score(without(chosen, part))) for part in chosen]
        if unknown(trial for _, trial in rest):
            break
        notes = notes or [_leave_one_out(chosen, best, [trial for _, trial in rest])]
        smaller, trial = best_of(rest)
        if allowed(best) and not rule.admits(trial, best):  # one that breaks a guard has to become smaller
            break
        chosen, best = smaller, trial
        path.append(best)
        tell_best(score, best)
    return Choice(chosen, path=path, notes=notes)


def _sweep(chosen: list[T], best: Scored, score: ScoreFunction, rule: Rule) -> Choice:
    singles = {index: score([part]) for index, part in enumerate(chosen)}
    path = [best]
    if unknown(singles.values()):
        return Choice(chosen)
    ascending = sorted(singles, key=lambda index: singles[index].overall)
    for part in [chosen[index] for index in ascending[:-1]]:  # the best of all stays
        smaller = without(chosen, part)
        if rule.admits(trial := score(smaller), best):
            chosen, best = smaller, trial
            path.append(best)
            tell_best(score, best)
    return Choice(chosen, path=path)


def without(parts: Sequence[T], part: T) -> list[T]:
    """Return the others."""
    return [other for other in parts if other is not part]


def _leave_one_out(parts: Sequence[T], whole: Scored, rest: Sequence[Scored]) -> str:
    """Say what each ingredient is worth to the mean of all: what the mean loses without it."""
    lines = [
        f"  {getattr(part, 'name', part)}: {describe_difference(whole, trial)}"
        for part, trial in zip(parts, rest, strict=True)
    ]
    return "\n".join(
        ["What each ingredient gives to the mean of all (the mean with it less the mean without):", *lines]
    )
