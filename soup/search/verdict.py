"""Why a trial became the best so far, or did not: the rule that it met, in numbers."""

from __future__ import annotations

from soup.evaluation.bootstrap import paired_difference
from soup.evaluation.trial import Trial

__all__ = ["describe_verdict"]

MOST_BENCHMARKS = 3  # that are named where a soup lost


def describe_verdict(trial: Trial, rival: Trial | None, *, accepted: bool) -> str:
    """Say why a trial was accepted or refused: `refused: 56.28 < 58.10 (mmbench -2.1)`.

    Args:
        trial: The trial.
        rival: The best before it; None for the first.
        accepted: Whether it became the best so far.
    """
    word = "accepted" if accepted else "single" if trial.is_single else "refused"
    if trial.broken and not accepted:
        return f"{word}: breaks {'; '.join(trial.broken)}"
    if rival is None:
        return f"{word}: the first, {trial.overall:.2f}"
    left, right = _distinct(trial.overall, rival.overall)
    if trial.overall < rival.overall:
        return f"{word}: {left} < {right}{_losses(trial, rival)}"
    sign = ">" if trial.overall > rival.overall else "="
    difference = None if accepted else paired_difference(trial.scores, rival.scores, trial.objective)
    if difference:
        return f"{word}: {left} {sign} {right}, better with a probability of {difference.p_better:.2f}"
    # No rule refuses a better one: the strategy went on from it, or chose another.
    return f"{'passed over' if word == 'refused' and sign == '>' else word}: {left} {sign} {right}"


def _distinct(left: float, right: float) -> tuple[str, str]:
    """Return both numbers with two digits after the point, or with as many as it takes to tell them apart."""
    texts = f"{left:.2f}", f"{right:.2f}"
    return texts if texts[0] != texts[1] or left == right else (repr(left), repr(right))


def _losses(trial: Trial, rival: Trial) -> str:
    """Name the benchmarks on which a trial has less than its rival, the largest loss first."""
    changes = {name: score.value - rival.scores[name].value for name, score in trial.scores.items()}
    worst = sorted((change, name) for name, change in changes.items() if change < 0)[:MOST_BENCHMARKS]
    shown = [f"{name} {change:+.1f}" if change <= -0.05 else f"{name} {change:+.2g}" for change, name in worst]
    return f" ({', '.join(shown)})" if shown else ""
