"""How VLMEvalKit's benchmarks of space tell each question's points: two of its functions score tables of them."""

from __future__ import annotations

from collections.abc import Mapping

from evaluators.vlmeval.library_types import Row
from evaluators.vlmeval.rule import PointsOf, Rule
from evaluators.vlmeval.stand_ins import SilentLogger

__all__ = ["HITS", "KINDS", "NUMBERS", "POINT_PARSER"]

MODULE = "dataset.utils.spatial_bench.cal_scores"
HITS: Mapping[str, PointsOf] = {f"{MODULE}.compute_mcq_score": lambda _, scored: [*scored["hit"]]}
"""By the option that an answer names."""
NUMBERS: Mapping[str, PointsOf] = {f"{MODULE}.compute_na_score": lambda _, scored: [*scored["MRA:.5:.95:.05"]]}
"""By how near a number is: the mean of ten margins."""
POINT_PARSER: Mapping[str, Mapping[str, object]] = {
    "dataset.utils.spatial_bench.tools.utils.Point2DParser": {"logger": SilentLogger()}
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
    told_by={**HITS, **NUMBERS},
    caption="mean of the kinds of questions: right options, and mean relative accuracy of numbers",
    columns="index answer question_type candidates",
)
"""The rule of VSI-Bench, which another class uses, too."""
