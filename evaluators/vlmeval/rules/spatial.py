"""How VLMEvalKit's benchmarks of space tell each question's points: two of its functions score tables of them."""

from __future__ import annotations

from collections.abc import Mapping

from evaluators.vlmeval.rule import PointsOf

__all__ = ["HITS", "NUMBERS"]

MODULE = "dataset.utils.spatial_bench.cal_scores"
HITS: Mapping[str, PointsOf] = {f"{MODULE}.compute_mcq_score": lambda _, scored: [*scored["hit"]]}
"""By the option that an answer names."""
NUMBERS: Mapping[str, PointsOf] = {f"{MODULE}.compute_na_score": lambda _, scored: [*scored["MRA:.5:.95:.05"]]}
"""By how near a number is: the mean of ten margins."""
