"""Where things stand in a drawing: values as percentages of an axis, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scale", "scale_of"]

MARGIN = 0.06
"""Of the range, beyond the outermost values."""


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a value stands, in percent of the axis."""
        return round(100 * (value - self.low) / (self.high - self.low), 3)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about so many round values within the axis."""
        rough = (self.high - self.low) / count
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [round(number * step, 10) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scale_of(values: Iterable[float | None]) -> Scale:
    """Return an axis that holds all values, with a margin."""
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    margin = MARGIN * (high - low) or abs(high) * MARGIN or 0.5
    return Scale(low - margin, high + margin)
