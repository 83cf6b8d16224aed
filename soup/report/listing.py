"""List what can be named: strategies, methods, evaluators, benchmarks."""

from __future__ import annotations

import dataclasses
from typing import Any

from soup.errors import EvaluatorError
from soup.evaluation.api import OPENCOMPASS, parse_benchmarks
from soup.evaluation.config import EvalSettings
from soup.support.plugins import EVALUATORS, METHODS, STRATEGIES, Registry

__all__ = ["list_kind"]

HARNESS = "vlmeval"  # runs the benchmarks that need no prefix


def list_kind(kind: str) -> list[dict[str, Any]]:
    """One row for each strategy, method, evaluator or benchmark there is; broken plug-ins with their reason.

    Of a benchmark `here` is how many of its questions are on this machine (None: `why_not` says why).
    """
    if kind == "benchmarks":
        harness: Any = EVALUATORS.get(HARNESS)(EvalSettings())
        return [_benchmark_row(name, harness) for name in OPENCOMPASS]
    registry: Registry = {"strategies": STRATEGIES, "methods": METHODS, "evaluators": EVALUATORS}[kind]
    return [
        {"name": found.name, "source": found.source, "summary": found.summary, "broken": found.broken}
        for found in registry.found()
    ]


def _benchmark_row(name: str, harness: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, **dataclasses.asdict(OPENCOMPASS[name]), "here": None}
    row |= {"path": None, "url": None, "why_not": None}
    try:
        benchmark = parse_benchmarks([name])[0]
        row |= harness.place(benchmark)
        row["here"] = harness.count(benchmark)
    except EvaluatorError as error:
        row["why_not"] = str(error)
    return row
