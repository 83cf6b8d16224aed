"""The words of evaluation: what an evaluator gets, and what it gives back.

An evaluator never sees a tensor. It gets a `Candidate` (a soup that may or may not lie on disk yet) and a `Benchmark`
(a named test set and the part of its questions that count), and gives back one `Score`.
Where its benchmarks are prompts, an `Engine` answers them.
"""

from __future__ import annotations

from soup.evaluation.api.benchmark import ALL, LIKELIHOOD, Benchmark, BenchmarkInfo, Location, Part, Split
from soup.evaluation.api.candidate import Candidate
from soup.evaluation.api.engine import Engine, OnBatch, Prompt
from soup.evaluation.api.harness import AskedModel, Evaluator, Harness, OnReplies, ShownQuestion, TargetSyntax
from soup.evaluation.api.score import Score

__all__ = [
    "ALL",
    "LIKELIHOOD",
    "AskedModel",
    "Benchmark",
    "BenchmarkInfo",
    "Candidate",
    "Engine",
    "Evaluator",
    "Harness",
    "Location",
    "OnBatch",
    "OnReplies",
    "Part",
    "Prompt",
    "Score",
    "ShownQuestion",
    "Split",
    "TargetSyntax",
]
