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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from soup.errors import EvaluatorError
from soup.evaluation.api import Score
from soup.evaluation.estimates import Estimate
from soup.evaluation.question_rule import AuditSize

__all__ = ["Dispute", "QuestionSet", "Total"]

RULE = "disputed, 1"
"""The rule's name and version, a part of every estimate's key."""

MOST_WEIGHT = 4.0
"""A group that weighs more than so many times the mean of all is asked, and not sampled."""

TRIED = 16
"""So many groups are weighed one by one, to see what one can change in a score."""

Total = Callable[[Mapping[str, float]], float]
"""A benchmark's own rule: the score, 0 to 100, that the points of all of its questions come to."""


@dataclass(frozen=True)
class QuestionSet:
    """What one soup is asked on one benchmark.

    Args:
        disputed: Questions that every soup is asked.
        agreed: The points that all single models have, by each of the other questions.
        audited: The groups of agreed questions that are asked all the same.
        groups: How many groups there are to draw from.
        weight: By how many points one question of them can change the score.
        facts: What it follows from: the rule, its audit, and the single models' scores.
    """

    disputed: frozenset[str]
    agreed: Mapping[str, float]
    audited: tuple[tuple[str, ...], ...]
    groups: int
    weight: float
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
            unseen=scale * self.weight**2,
        )
        return Score(value, len(points), points, estimate=estimate)


@dataclass(frozen=True)
class Dispute:
    """On which questions of a benchmark the single models of a pool differ.

    Args:
        disputed: Those questions, and those that weigh so much that every soup is asked them, too.
        agreed: The points that all single models have, by each of the others.
        weight: By how many points one of these can change the score.
        facts: What it follows from.
    """

    disputed: frozenset[str]
    agreed: Mapping[str, float]
    weight: float
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
        if any(score.parts for score in singles.values()):
            return "its parts are scores of their own"
        rows = [score.questions for score in singles.values()]
        first = rows[0]
        if not first or not all(row and row.keys() == first.keys() for row in rows):
            return "it does not tell the points of the same questions for every model"
        if any(abs(total(score.questions or {}) - score.value) > 1e-6 for score in singles.values()):
            return "its score does not follow from its questions' points"
        agreed = {index: points for index, points in first.items() if all(row[index] == points for row in rows if row)}
        groups = _grouped(agreed)
        heavy, weight = _weigh([group[0] for group in groups.values()], first, total)
        for index in heavy:
            for member in groups[_group_of(index)]:
                del agreed[member]
        return cls(frozenset(first.keys() - agreed.keys()), agreed, weight, (RULE, sorted(singles)))

    def questions_of(self, recipe_digest: str, audit: AuditSize) -> QuestionSet | None:
        """Return what a soup is asked; None where that is everything.

        Args:
            recipe_digest: The soup's, by which its audit is drawn.
            audit: How many of the agreed questions are audited: the first of them in the order of the draw, so that a
                larger audit holds a smaller.
        """
        if not self.agreed:
            return None
        groups = _grouped(self.agreed)
        count = audit.count(len(self.agreed), len(groups))
        if count is None:
            return None
        drawn = sorted(groups, key=lambda group: hashlib.sha256(f"{recipe_digest} {group}".encode()).digest())[:count]
        audited = tuple(tuple(groups[group]) for group in drawn)
        return QuestionSet(self.disputed, self.agreed, audited, len(groups), self.weight, (*self.facts, audit.share))


def _group_of(index: str) -> str:
    return index.partition("/")[0]


def _grouped(indices: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for index in indices:
        groups.setdefault(_group_of(index), []).append(index)
    return groups


def _weigh(indices: Sequence[str], points: Mapping[str, float], total: Total) -> tuple[list[str], float]:
    """Return the questions that weigh more than `MOST_WEIGHT` times the mean, and the most that one of the others does.

    A weight is what the score gains, in points, from a wrong answer to a right one. A total may take long, so that
    halves are weighed, and halves of these, as long as one question in them could weigh so much.

    Args:
        indices: One question of each group: metrics are sums over groups.
        points: Of all questions.
        total: The benchmark's own rule.
    """
    if not indices:
        return [], 0.0

    def weigh(some: Sequence[str]) -> float:
        low, high = ({**points, **dict.fromkeys(some, value)} for value in (0.0, 1.0))
        return abs(total(high) - total(low))

    whole = weigh(indices)
    most = MOST_WEIGHT * whole / len(indices)
    tried = [weigh([index]) for index in indices[:: -(-len(indices) // TRIED)]]
    least, heavy = min(tried), list[str]()
    left = [(indices, whole)]
    while left:
        some, weight = left.pop()
        if weight - least * (len(some) - 1) <= most:
            continue
        if len(some) == 1:
            heavy += some
            continue
        half = len(some) // 2
        first = weigh(some[:half])
        left += [(some[:half], first), (some[half:], weight - first)]
    light = [weight for weight in tried if weight <= most]
    return heavy, math.sqrt(math.fsum(weight**2 for weight in light) / len(light)) if light else most
