"""List what can be named: strategies, methods, evaluators, engines, benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache

from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, BenchmarkInfo, Evaluator
from soup.evaluation.harnesses import Catalog, ListedBenchmark, build_evaluator, can_fetch, count, locate, unlisted
from soup.support.plugins import ENGINES, EVALUATORS, METHODS, STRATEGIES, Registry

__all__ = ["list_kind", "refused_by_reason"]

Row = dict[str, str | int | bool | None]


def list_kind(kind: str, *, is_all: bool = False) -> list[Row]:
    """One row for each strategy, method, evaluator, engine or benchmark there is; broken plug-ins with their reason.

    Of a benchmark `here` is how many of its questions are on this machine (None: `why_not` says why).

    Args:
        kind: `strategies`, `methods`, `evaluators`, `engines` or `benchmarks`.
        is_all: Of benchmarks: also those that harnesses know and do not list; they take seconds to find.
    """
    if kind == "benchmarks":
        build = cache(build_evaluator)
        listed_rows = [_benchmark_row(name, listed, build) for name, listed in Catalog.load().benchmarks.items()]
        return listed_rows + (_unlisted_rows(build) if is_all else [])
    registries = {"strategies": STRATEGIES, "methods": METHODS, "evaluators": EVALUATORS, "engines": ENGINES}
    registry: Registry = registries[kind]
    rows: list[Row] = []
    for entry in registry.entries():
        row: Row = {"name": entry.name, "source": entry.source, "summary": entry.summary}
        if kind != "evaluators":  # whose options are those of the evaluation
            row["parameters"] = entry.parameters
        rows.append({**row, "broken": entry.broken})
    return rows


def refused_by_reason(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the names of the benchmarks that can't be scored here at all, by the reason."""
    refused: dict[str, list[str]] = {}
    for row in rows:
        if row["why_not"] and not row["metric"]:
            refused.setdefault(str(row["why_not"]), []).append(str(row["name"]))
    return refused


def _unlisted_rows(build: Callable[[str], Evaluator]) -> list[Row]:
    """One row for each benchmark that a harness knows and does not list; where its data are not here, that is all."""
    rows: list[Row] = []
    for harness in EVALUATORS.names():
        for name, info in unlisted(harness).items():
            if isinstance(info, str):
                rows.append({**_known(BenchmarkInfo("", name, None, "")), "name": name, "why_not": info})
            else:
                rows.append(_benchmark_row(name, ListedBenchmark(harness, info), build))
    return rows


def _known(info: BenchmarkInfo) -> Row:
    known = dataclasses.asdict(info)
    del known["group"]
    row: Row = {"name": info.source, "kind": known.pop("kind"), **known}
    return row | {"here": None, "path": None, "url": None, "can_fetch": False, "why_not": None}


def _benchmark_row(name: str, listed: ListedBenchmark, build: Callable[[str], Evaluator]) -> Row:
    row: Row = {**_known(listed.info), "name": name}
    try:
        evaluator, benchmark = build(listed.harness), Benchmark(name, listed.harness, name)
        row["can_fetch"] = can_fetch(evaluator)
        if location := locate(evaluator, benchmark):
            row |= {"path": str(location.path), "url": location.url}
        row["here"] = count(evaluator, benchmark)
    except EvaluatorError as error:
        row["why_not"] = str(error)
    return row
