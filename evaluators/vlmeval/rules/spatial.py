"""How VLMEvalKit's benchmarks of space tell each question's points: two of its functions score tables of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evaluators.vlmeval.library_types import Row
from evaluators.vlmeval.rule import PointsOf, Rule
from evaluators.vlmeval.stand_ins import SilentLogger

__all__ = ["HITS", "KINDS", "NUMBERS", "POINT_PARSER"]

MODULE = "dataset.utils.spatial_bench.cal_scores"
HITS: Mapping[str, PointsOf] = {f"{MODULE}.compute_mcq_score": lambda _, scored: [*scored["hit"]]}
"""By the option that an answer names."""
NUMBERS: Mapping[str, PointsOf] = {f"{MODULE}.compute_na_score": lambda _, scored: [*scored["MRA:.5:.95:.05"]]}
"""By how near a number is: the mean of ten margins."""
NUMBER = r"[-+]?\d+\.?\d*"
BOX = re.compile(rf"\(({NUMBER}),\s*({NUMBER}),\s*({NUMBER}),\s*({NUMBER})\)")
MOST_PLACES = 1 << 24


def _places_of_text(parser: Any, text: str, *values: Any, **settings: Any) -> Any:
    """Return the places that a text names, by VLMEvalKit's own reading, which lists each pixel of a box.

    Raises:
        ValueError: they are more than any image has, and may be more than memory holds.
    """
    boxes = [[float(number) for number in box] for box in BOX.findall(text)]
    if (places := sum(abs(right - left) * abs(low - high) for left, high, right, low in boxes)) > MOST_PLACES:
        raise ValueError(f"boxes of {places:.3g} pixels")
    return super(parser, parser)._text2pts(text, *values, **settings)


POINT_PARSER: Mapping[str, Mapping[str, object]] = {
    "dataset.utils.spatial_bench.tools.utils.Point2DParser": {
        "logger": SilentLogger(),
        "_text2pts": classmethod(_places_of_text),
    }
}
"""What reads places in answers: it lacks the logger to which it writes first, and would fail at each answer."""
DIRECTIONS = "object_rel_direction"


def _kinds(row: Row) -> tuple[str, ...]:
    """Return the kind of a question; of directions the level, too: the three levels' means count as one kind."""
    kind = str(row["question_type"])
    return (DIRECTIONS, kind) if kind.startswith(DIRECTIONS) else (kind,)


KINDS = Rule(
    "overall",
    parts=_kinds,
    points_from={**HITS, **NUMBERS},
    caption="mean of the kinds of questions: right options, and mean relative accuracy of numbers",
    columns="index answer question_type candidates",
)
"""The rule of VSI-Bench, which another class uses, too."""
