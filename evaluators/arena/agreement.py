"""How far people agree: the share of pairs of votes that are the same, and Krippendorff's alpha.

Source: Krippendorff, Content Analysis, 2018, chapter 12; a vote is a number from 0 to 1, and the distance of two is the
square of their difference, so that a tie is half way between both answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

__all__ = ["Agreement", "agreement", "krippendorff_alpha"]


@dataclass(frozen=True)
class Agreement:
    """How far several voters agree.

    Args:
        share: Of the pairs of votes on one pair of answers that are the same; None where nobody voted on the same.
        pairs: How many such pairs of votes there are.
        alpha: Krippendorff's: 1 for perfect agreement, 0 for chance; None where it is not defined.
    """

    share: float | None
    pairs: int
    alpha: float | None

    def as_json(self) -> dict[str, float | int | None]:
        """Give the numbers by name."""
        return {"share": self.share, "pairs_of_votes": self.pairs, "alpha": self.alpha}


def agreement(units: Iterable[Mapping[str, float]]) -> Agreement:
    """Return how far voters agree.

    Args:
        units: Of each pair of answers, the points that each voter gave to the same one of both.
    """
    votes = [[*unit.values()] for unit in units if len(unit) > 1]
    same = [first == second for unit in votes for first, second in combinations(unit, 2)]
    return Agreement(sum(same) / len(same) if same else None, len(same), krippendorff_alpha(votes))


def krippendorff_alpha(units: Sequence[Sequence[float]]) -> float | None:
    """Return Krippendorff's alpha of numbers; None where all are the same, or none stands beside another."""
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    expected = _disagreement(values)
    if not expected:
        return None
    observed = sum(_disagreement(unit) / (len(unit) - 1) for unit in units)
    return 1 - (len(values) - 1) * observed / expected


def _disagreement(values: Sequence[float]) -> float:
    """Return the sum of the squared differences of all ordered pairs, which needs no pair of them."""
    total = sum(values)
    return 2 * (len(values) * sum(value * value for value in values) - total * total)
