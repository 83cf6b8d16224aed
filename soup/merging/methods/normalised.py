"""Weights over their sum, in a form that rounds as seldom as it can."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Normalised", "normalise"]


class Normalised(NamedTuple):
    """What values are multiplied by before they are summed up, and what the sum is divided by."""

    weights: list[float]
    divisor: float

    @property
    def quotients(self) -> list[float]:
        """The weights over the divisor."""
        return [weight / self.divisor for weight in self.weights]


def normalise(weights: Sequence[float], total_of: Sequence[float] | None = None) -> Normalised:
    """Return weights over the sum of `total_of`, or over their own.

    They are counted in units of the smallest: small whole numbers where their ratios are such, times a power of two, so
    that no sum is larger than its terms. Products with those are exact, so that the division is the only rounding; and
    only the ratio of weights counts.

    Args:
        weights: What values are multiplied by.
        total_of: The weights whose sum is the divisor; None: the same.
    """
    unit = min((abs(weight) for weight in weights if weight), default=1.0)
    parts, total = [weight / unit for weight in weights], math.fsum(weights if total_of is None else total_of) / unit
    _, exponent = math.frexp(math.fsum(map(abs, parts)))
    return Normalised([math.ldexp(part, -exponent) for part in parts], math.ldexp(total, -exponent))
