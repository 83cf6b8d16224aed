"""What an estimate leaves open: how far a score may be off that was not asked all of its questions.

Some of the questions that were left out are asked all the same, drawn by a hash: the audit. Each changes the score by
so much, mostly by nothing. `Estimate` holds what follows for the others, `Audit` what all estimates of a search say
together. docs/questions.md has the equations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from soup.support.foreign_code import Interruption

__all__ = ["LIMIT", "Audit", "AuditFailedError", "Estimate", "refuse_failed_audit"]

QUANTILE = 1.96  # of the normal distribution, for 95 %
UNSEEN = 3.0
"""So many changes more than were seen are allowed for: none among m leaves a share of 3 / m possible, at 95 %."""

LIMIT = 0.2
"""How many points the overall may be off."""


@dataclass(frozen=True)
class Estimate:
    """How a score that was not asked all of its questions stands to the one that would be.

    Args:
        asked: How many questions were asked.
        correction: What to add to the value for an unbiased one, in points; the noise of the audit is in it.
        variance: Of the correction, by the changes that were seen.
        unseen: What one change that was not seen would add to the variance.
        added: What the value has of a correction already, in points: see `Score.corrected`. No journal holds it.
    """

    asked: int
    correction: float
    variance: float
    unseen: float
    added: float = 0.0

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval's width, in points."""
        return QUANTILE * math.sqrt(self.variance + UNSEEN * self.unseen)

    def interval(self, value: float) -> tuple[float, float]:
        """Return the 95 % interval of the score over all questions, where the estimate's value is `value`."""
        center = value + self.correction
        return max(0.0, center - self.half_width), min(100.0, center + self.half_width)

    def as_json(self) -> dict[str, float]:
        """Give four numbers by name, as the journal keeps them: of the value that no correction was added to."""
        return {name: number for name, number in asdict(self).items() if name != "added"}

    @classmethod
    def weighted(cls, estimates: Mapping[str, Estimate], shares: Mapping[str, float]) -> Estimate | None:
        """Return the estimate of an overall; None where all of its benchmarks were asked everything.

        What was not seen may all lie in the benchmark in which it weighs most.

        Args:
            estimates: By benchmark, of those that were not asked everything.
            shares: The weight of each benchmark in the overall.
        """
        if not estimates:
            return None
        total = math.fsum(shares.values())
        parts = [(shares[name] / total, estimate) for name, estimate in estimates.items()]
        return cls(
            sum(estimate.asked for _, estimate in parts),
            math.fsum(share * estimate.correction for share, estimate in parts),
            math.fsum(share**2 * estimate.variance for share, estimate in parts),
            max(share**2 * estimate.unseen for share, estimate in parts),
        )


@dataclass(frozen=True)
class Audit:
    """How far the overalls of a search are off on average, by the audits of all of its soups, each an own draw.

    Args:
        mean: The mean of the corrections, in points.
        half_width: Half of its 95 % interval's width.
        clean_half_width: What that would be if no audited question had changed.
    """

    mean: float
    half_width: float
    clean_half_width: float

    @classmethod
    def of(cls, overalls: Sequence[Estimate]) -> Audit:
        """Return the audit of at least one soup's overall."""
        count = len(overalls)
        unseen = UNSEEN * max(estimate.unseen for estimate in overalls)
        variance = math.fsum(estimate.variance for estimate in overalls)
        mean = math.fsum(estimate.correction for estimate in overalls) / count
        return cls(mean, QUANTILE * math.sqrt(variance + unseen) / count, QUANTILE * math.sqrt(unseen) / count)

    @property
    def bound(self) -> float:
        """How far the overalls may be off, at most, in points."""
        return abs(self.mean) + self.half_width

    @property
    def could_pass(self) -> bool:
        """Whether clean audits of this size would come below the limit, with half of it to spare."""
        return self.clean_half_width <= LIMIT / 2

    @property
    def passes(self) -> bool:
        """Whether estimates are good enough."""
        return self.could_pass and self.bound <= LIMIT

    @property
    def is_hopeless(self) -> bool:
        """Whether the interval lies beyond the limit as a whole: more audits would not help."""
        return abs(self.mean) - self.half_width > LIMIT

    @property
    def fails(self) -> bool:
        """Whether estimates are no good here, at the end of a search.

        Few audits can't bring the bound below the limit even if they are clean: these fail only if they are hopeless.
        """
        return self.is_hopeless or (self.could_pass and not self.passes)


class AuditFailedError(Interruption):
    """Estimates are no good in this search."""

    def __init__(self, audit: Audit) -> None:
        super().__init__(f"their overalls may be off by {audit.bound:.2f} points (95 %)")


def refuse_failed_audit(overalls: Iterable[Estimate | None], *, at_end: bool = False) -> None:
    """Stop a search whose estimates are no good.

    Args:
        overalls: Those of the soups that it has asked for; None for one that was asked everything.
        at_end: Whether no soup is to come: until then, more audits may bring the bound below the limit.

    Raises:
        AuditFailedError: the audits say so.
    """
    estimates = [estimate for estimate in overalls if estimate is not None]
    if not estimates:
        return
    audit = Audit.of(estimates)
    if audit.fails if at_end else audit.is_hopeless:
        raise AuditFailedError(audit)
