"""Why a trial became the best so far, or did not: the rule that it met, in numbers."""

from __future__ import annotations

from soup.evaluation.bootstrap import benchmark_difference, paired_difference
from soup.evaluation.trial import Trial

__all__ = ["describe_verdict"]

MOST_BENCHMARKS = 3  # that are named: where a soup lost most, or won most if it was accepted


def describe_verdict(trial: Trial, rival: Trial | None, *, accepted: bool) -> str:
    """Say why a trial was accepted or refused: `refused: 56.28 < 58.10 (mmbench -2.1 [-3.4, -0.8])`.

    One that is better and was not taken was passed over.

    Args:
        trial: The trial.
        rival: The best before it; None for the first.
        accepted: Whether it became the best so far.
    """
    word = "accepted" if accepted else "single" if trial.is_single else "refused"
    if trial.broken and not accepted:
        return f"{word}: breaks {'; '.join(trial.broken)}"
    if rival is None:
        first = "the first that keeps the guards" if trial.objective.guards and trial.allowed else "the first"
        return f"{word}: {first}, {'~' if trial.is_estimated else ''}{trial.overall:.2f}"
    left, right = _distinct(trial.overall, rival.overall)
    left, right = (f"~{left}" if trial.is_estimated else left), (f"~{right}" if rival.is_estimated else right)
    if trial.overall < rival.overall:
        return f"{word}: {left} < {right}{_changes(trial, rival, won=False)}"
    sign = ">" if trial.overall > rival.overall else "="
    if word == "refused" and sign == ">":  # the rule asked for more than better, or another was better still
        word = "passed over"
    difference = None if accepted else paired_difference(trial.scores, rival.scores, trial.objective)
    sure = f", better with a probability of {difference.p_better:.2f}" if difference else ""
    return f"{word}: {left} {sign} {right}{sure}{_changes(trial, rival, won=True)}"


def _distinct(left: float, right: float) -> tuple[str, str]:
    """Return both numbers with two digits after the point, or with as many as it takes to tell them apart."""
    texts = f"{left:.2f}", f"{right:.2f}"
    return texts if texts[0] != texts[1] or left == right else (repr(left), repr(right))


def _changes(trial: Trial, rival: Trial, *, won: bool) -> str:
    """Name the benchmarks on which a trial has more than its rival, or less, the largest change first."""
    sign = 1 if won else -1
    changes = {name: score.value - rival.scores[name].value for name, score in trial.scores.items()}
    worst = sorted((-sign * change, name) for name, change in changes.items() if sign * change > 0)[:MOST_BENCHMARKS]
    shown = [_change(name, changes[name], trial, rival) for _, name in worst]
    return f" ({', '.join(shown)})" if shown else ""


def _change(name: str, change: float, trial: Trial, rival: Trial) -> str:
    text = f"{name} {change:+.1f}" if abs(change) >= 0.05 else f"{name} {change:+.2g}"
    difference = benchmark_difference(trial.scores[name], rival.scores[name])
    return text if difference is None else f"{text} [{difference.low:+z.1f}, {difference.high:+z.1f}]"
