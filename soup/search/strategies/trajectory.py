"""The last checkpoints of one run, averaged: what a learning rate that decays does, after training.

Sources: LAWA, Kaddour, arXiv 2209.14981 (the last n checkpoints); PMA, Li et al., arXiv 2505.12082 (weights that fall
linearly or exponentially with age).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

from soup.checkpoints.training_record import TrainingRecord
from soup.errors import RecipeError
from soup.search.strategies.acceptance import Rule
from soup.search.strategies.base import Budget, Choice, ScoreFunction, budget, unknown
from soup.search.strategies.weighting import weighted

__all__ = ["trajectory"]

T = TypeVar("T")

DECAYED = 0.1  # of the peak: training with a lower rate has averaged already


def _budget(count: int, *, weights: str = "uniform", accept: str = "gt") -> Budget:
    Rule.parse(accept)
    _weights(weights, 1)
    return Budget(singles=1, soups=count - 1)


@budget(_budget)
def trajectory(pool: Sequence[T], score: ScoreFunction, *, weights: str = "uniform", accept: str = "gt") -> Choice:
    """Score the mean of the last n checkpoints of one run for every n, and keep the best: k evaluations.

    Checkpoints stand in the order of their steps, by `trainer_state.json`, `finetune.json` or the number in the name.

    Args:
        pool: Snapshots of one run.
        score: Scores weighted means of them.
        weights: `uniform`; `linear` (n for the newest, 1 for the oldest); `ema0.9` (each older one counts 0.9 times
            the next).
        accept: When a longer mean replaces a shorter: `gt`, `ge`, or `p>0.9`.

    Raises:
        RecipeError: A wrong option, checkpoints of several runs, or one whose step nothing tells.
    """
    rule = Rule.parse(accept)
    parts, notes = _in_order(pool)
    last = [weighted(parts[-n:], _weights(weights, n)) for n in range(1, len(parts) + 1)]
    rule.check(score(last[0]))
    trials = [score(soup) for soup in last]
    chosen, best = last[0], trials[0]
    if unknown(trials):
        return Choice(chosen)
    path = [best]
    for soup, trial in zip(last[1:], trials[1:], strict=True):
        if rule.admits(trial, best):
            chosen, best = soup, trial
            path.append(best)
    return Choice(chosen, path=path, notes=notes)


def _weights(weights: str, count: int) -> list[float]:
    """Return the weights of so many checkpoints, the newest last."""
    if weights == "uniform":
        return [1.0] * count
    if weights == "linear":
        return [float(position) for position in range(1, count + 1)]
    match = re.fullmatch(r"ema\(?(0?\.\d+)\)?", str(weights))
    if not match or not float(match[1]):
        raise RecipeError(f"weights must be uniform, linear or ema0.9 (a number between 0 and 1); found {weights!r}.")
    return [float(match[1]) ** age for age in reversed(range(count))]


def _in_order(pool: Sequence[T]) -> tuple[list[T], list[str]]:
    """Return the checkpoints from the oldest to the newest, and what is to be said of the run.

    Raises:
        RecipeError: They are of several runs, or nothing tells their order.
    """
    records = [_record(part) for part in pool]
    names = [str(getattr(part, "name", part)) for part in pool]
    silent = [name for name, record in zip(names, records, strict=True) if record.step is None]
    steps = [record.step or 0 for record in records]
    if silent:
        raise RecipeError(
            f"No step is known of {', '.join(silent)}: there is no trainer_state.json and no number in the name."
        )
    if len(set(steps)) < len(steps):
        raise RecipeError(
            f"Two checkpoints are of one step: {', '.join(f'{n} {s}' for n, s in zip(names, steps, strict=True))}."
        )
    order = sorted(range(len(steps)), key=lambda index: steps[index])
    for earlier, later in pairwise(order):
        if not records[earlier].is_of_run(records[later]):
            raise RecipeError(
                f"{names[earlier]} and {names[later]} are of different runs, by what is written beside them. "
                "trajectory averages along one run: take greedy or average."
            )
    return [pool[index] for index in order], _schedule(records[order[-1]])


def _record(part: Any) -> TrainingRecord:
    record: TrainingRecord = getattr(part, "training", TrainingRecord())
    if record.step is not None:
        return record
    numbers = re.findall(r"\d+", str(getattr(part, "name", part)))
    return TrainingRecord(int(numbers[-1]) if numbers else None, record.run, record.rates)


def _schedule(last: TrainingRecord) -> list[str]:
    """Say that the learning rate had decayed, after which averaging seldom gains."""
    peak = max((rate for _, rate in last.rates), default=0.0)
    if not peak or last.rates[-1][1] > DECAYED * peak:
        return []
    return [
        f"The learning rate had fallen to {last.rates[-1][1] / peak:.0%} of its peak by the last checkpoint: averaging "
        "after a decay gains little, for the decay averages itself."
    ]
