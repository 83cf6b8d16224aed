"""List what can be named: strategies, methods, evaluators, engines, benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache

from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Evaluator
from soup.evaluation.harnesses import Catalog, ListedBenchmark, build_evaluator, can_fetch, count, locate
from soup.support.plugins import ENGINES, EVALUATORS, METHODS, STRATEGIES, Registry

__all__ = ["list_kind"]

Row = dict[str, str | int | bool | None]


def list_kind(kind: str) -> list[Row]:
    """One row for each strategy, method, evaluator, engine or benchmark there is; broken plug-ins with their reason.

    Of a benchmark `here` is how many of its questions are on this machine (None: `why_not` says why).

    Args:
        kind: `strategies`, `methods`, `evaluators`, `engines` or `benchmarks`.
    """
    if kind == "benchmarks":
        build = cache(build_evaluator)
        return [_benchmark_row(name, listed, build) for name, listed in Catalog.load().benchmarks.items()]
    registries = {"strategies": STRATEGIES, "methods": METHODS, "evaluators": EVALUATORS, "engines": ENGINES}
    registry: Registry = registries[kind]
    rows: list[Row] = []
    for entry in registry.entries():
        row: Row = {"name": entry.name, "source": entry.source, "summary": entry.summary}
        if kind != "evaluators":  # whose options are those of the evaluation
            row["parameters"] = entry.parameters
        rows.append({**row, "broken": entry.broken})
    return rows


def _benchmark_row(name: str, listed: ListedBenchmark, build: Callable[[str], Evaluator]) -> Row:
    row: Row = {"name": name, **dataclasses.asdict(listed.info)}
    row |= {"here": None, "path": None, "url": None, "can_fetch": False, "why_not": None}
    del row["group"]
    try:
        evaluator, benchmark = build(listed.harness), Benchmark(name, listed.harness, name)
        row["can_fetch"] = can_fetch(evaluator)
        if location := locate(evaluator, benchmark):
            row |= {"path": str(location.path), "url": location.url}
        row["here"] = count(evaluator, benchmark)
    except EvaluatorError as error:
        row["why_not"] = str(error)
    return row
