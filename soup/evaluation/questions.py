"""Which questions a soup is asked: all, or those that the single models dispute and an audit of the others.

Where all single models have the same points, a soup of them has mostly the same. So it is asked the questions on which
they differ, and of the others, which enter its score with the points that they all have, a sample: the audit. It is
drawn anew for each soup, by a hash, in groups (what stands before a slash in a question's index), so that a metric that
counts a group as a whole is a sum over what is drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from soup.errors import EvaluatorError
from soup.evaluation.api import Score
from soup.evaluation.estimates import Estimate
from soup.evaluation.question_rule import AuditSize

__all__ = ["Dispute", "QuestionSet", "Total"]

RULE = "disputed, 1"
"""The rule's name and version, a part of every estimate's key."""

TRIED_FLIPS = 5
"""So many questions are flipped, one by one, to see what one can change in a score."""

Total = Callable[[Mapping[str, float]], float]
"""A benchmark's own rule: the score, 0 to 100, that the points of all of its questions come to."""


@dataclass(frozen=True)
class QuestionSet:
    """What one soup is asked on one benchmark.

    Args:
        disputed: Questions on which the single models differ.
        agreed: The points that they all have, by each of the other questions.
        audited: The groups of agreed questions that are asked all the same.
        groups: How many groups there are to draw from.
        facts: What it follows from: the rule, its audit, and the single models' scores.
    """

    disputed: frozenset[str]
    agreed: Mapping[str, float]
    audited: tuple[tuple[str, ...], ...]
    groups: int
    facts: tuple[object, ...]

    @cached_property
    def asked(self) -> frozenset[str]:
        """The questions that are asked."""
        return self.disputed.union(*self.audited)

    @cached_property
    def digest(self) -> str:
        """A digest of all of it, for the key of the estimate."""
        facts = [*self.facts, sorted(self.disputed), sorted(self.agreed.items()), self.audited]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def estimate(self, score: Score, total: Total) -> Score:
        """Return the score over all questions, from one over those that were asked.

        Args:
            score: What the evaluator gave, with each question's points.
            total: The benchmark's own rule.

        Raises:
            EvaluatorError: other questions were answered than were asked.
        """
        scored = score.questions or {}
        if not self.asked <= scored.keys() <= self.asked | self.agreed.keys():
            raise EvaluatorError(
                f"expected the points of the {len(self.asked)} questions that were asked, found those of {len(scored)}."
            )
        points = {**self.agreed, **scored}
        value = total(points)
        changed = [group for group in self.audited if any(scored[index] != self.agreed[index] for index in group)]
        changes = [value - total({**points, **{index: self.agreed[index] for index in group}}) for group in changed]
        count = len(self.audited)
        scale = self.groups * (self.groups - count) / count**2
        estimate = Estimate(
            asked=len(scored),
            correction=(self.groups - count) / count * math.fsum(changes),
            variance=scale * math.fsum(change**2 for change in changes),
            unseen=scale * self._largest_flip(points, value, total) ** 2,
        )
        return Score(value, len(points), points, estimate=estimate)

    def _largest_flip(self, points: Mapping[str, float], value: float, total: Total) -> float:
        """Return by how much one question can change the score, of a few that are tried."""
        flips = [{group[0]: 1.0 - self.agreed[group[0]]} for group in self.audited[:TRIED_FLIPS]]
        return max(abs(total({**points, **flip}) - value) for flip in flips)


@dataclass(frozen=True)
class Dispute:
    """On which questions of a benchmark the single models of a pool differ.

    Args:
        disputed: Those questions.
        agreed: The points that all single models have, by each of the others.
        facts: What it follows from.
    """

    disputed: frozenset[str]
    agreed: Mapping[str, float]
    facts: tuple[object, ...]

    @classmethod
    def among(cls, singles: Mapping[str, Score], total: Total) -> Dispute | str:
        """Compare single models' scores of everything.

        Args:
            singles: Their scores, by the digest of each.
            total: The benchmark's own rule.

        Returns:
            Why soups must be asked everything, where they must.
        """
        rows = [score.questions for score in singles.values()]
        first = rows[0]
        if not first or not all(row and row.keys() == first.keys() for row in rows):
            return "it does not tell the points of the same questions for every model"
        if any(abs(total(score.questions or {}) - score.value) > 1e-6 for score in singles.values()):
            return "its score does not follow from its questions' points"
        agreed = {index: points for index, points in first.items() if all(row[index] == points for row in rows if row)}
        return cls(frozenset(first.keys() - agreed.keys()), agreed, (RULE, sorted(singles)))

    def questions_of(self, recipe_digest: str, audit: AuditSize) -> QuestionSet | None:
        """Return what a soup is asked; None where that is everything.

        Args:
            recipe_digest: The soup's, by which its audit is drawn.
            audit: How many of the agreed questions are audited: the first of them in the order of the draw, so that a
                larger audit holds a smaller.
        """
        if not self.agreed:
            return None
        groups: dict[str, list[str]] = {}
        for index in self.agreed:
            groups.setdefault(index.partition("/")[0], []).append(index)
        count = audit.count(len(self.agreed), len(groups))
        if count is None:
            return None
        drawn = sorted(groups, key=lambda group: hashlib.sha256(f"{recipe_digest} {group}".encode()).digest())[:count]
        audited = tuple(tuple(groups[group]) for group in drawn)
        return QuestionSet(self.disputed, self.agreed, audited, len(groups), (*self.facts, audit.share))
