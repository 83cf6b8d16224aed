"""Whether a search asks its soups everything, and how many questions it audits where not."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from soup.errors import EvaluatorError
from soup.support.options import option_name

__all__ = ["AuditSize", "QuestionRule"]

LEAST_AUDITED = 50
"""So many questions of a benchmark are in a whole audit at least, or all."""

AUDIT = 0.05
PARTS = (0.25, 0.5)
ENOUGH = 80
"""A long search asks such a part of each audit at first, if over all soups and benchmarks that comes to so many whole
ones: where all of them are clean, the overalls may be off by 0.07 points, a third of the limit.
"""


@dataclass(frozen=True)
class AuditSize:
    """How many of the questions on which the single models agree a soup is asked.

    Args:
        share: The share of them that a whole audit has, of a benchmark at least 50.
        part: The part of a whole audit that is asked.
    """

    share: float
    part: float = 1.0

    def count(self, questions: int, groups: int) -> int | None:
        """Return how many groups of a benchmark's questions are asked; None where a whole audit has all of them."""
        whole = math.ceil(max(self.share, LEAST_AUDITED / questions) * groups - 1e-9)
        return None if whole >= groups else math.ceil(self.part * whole)

    def doubled(self) -> AuditSize:
        """Return twice as many, at most a whole audit."""
        return replace(self, part=min(1.0, 2 * self.part))


@dataclass(frozen=True)
class QuestionRule:
    """`all`, or `disputed` with the share of the other questions that is audited.

    Args:
        audit: That share; None: everything is asked.
        shrinks: Whether long searches, whose audits count together, ask a part of it at first.
    """

    audit: float | None = None
    shrinks: bool = False

    @classmethod
    def parse(cls, text: str) -> QuestionRule:
        """Parse `all`, `disputed` or `disputed:audit=0.05`; only a share that was not typed shrinks.

        Raises:
            EvaluatorError: another text, or a share that is not above 0 and at most 1.
        """
        match = re.fullmatch(r"all|disputed(?::audit=(\d*\.?\d+))?", text)
        if not match:
            raise EvaluatorError(
                f"{option_name('questions')}: expected all, disputed or disputed:audit=0.05, found '{text}'."
            )
        if text == "all":
            return cls()
        audit = float(match[1] or AUDIT)
        if not 0 < audit <= 1:
            raise EvaluatorError(f"{option_name('questions')}: expected an audit above 0 and at most 1, found {audit}.")
        return cls(audit, shrinks=match[1] is None)

    def audit_of(self, soups: int, benchmarks: int) -> AuditSize | None:
        """Return what is audited at first; None: everything is asked.

        Args:
            soups: How many a search may ask for.
            benchmarks: How many the overall is made of.
        """
        if self.audit is None:
            return None
        enough = (part for part in PARTS if self.shrinks and part * soups * benchmarks >= ENOUGH)
        return AuditSize(self.audit, next(enough, 1.0))
