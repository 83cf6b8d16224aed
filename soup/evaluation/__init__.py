"""How soups are evaluated: the words of evaluators (`api`), config, objective, suite, candidate, journal, scorer."""

from __future__ import annotations

from soup.evaluation.api import (
    ALL,
    Benchmark,
    BenchmarkInfo,
    Candidate,
    Evaluator,
    Harness,
    Location,
    Score,
    Split,
)
from soup.evaluation.config import EvalConfig
from soup.evaluation.settings import EvalSettings

__all__ = [
    "ALL",
    "Benchmark",
    "BenchmarkInfo",
    "Candidate",
    "EvalConfig",
    "EvalSettings",
    "Evaluator",
    "Harness",
    "Location",
    "Score",
    "Split",
]
