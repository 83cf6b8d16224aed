"""Fetch the data of benchmarks from where their harnesses have them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from soup.errors import EvaluatorError
from soup.evaluation.benchmark_names import parse_benchmarks
from soup.evaluation.harnesses import Catalog, build_evaluator, can_fetch, fetch
from soup.evaluation.progress import Progress

__all__ = ["fetch_benchmarks"]


def fetch_benchmarks(names: Sequence[str], progress: Progress | None = None) -> list[Path]:
    """Download the data of benchmarks, and give the files that hold them.

    Args:
        names: Benchmarks, as `--eval` names them.
        progress: Who hears of bytes.

    Raises:
        SoupError: a name is unknown, or its data can't be had.
    """
    progress = progress or Progress()
    build = cache(build_evaluator)
    benchmarks = [(benchmark, build(benchmark.harness)) for benchmark in parse_benchmarks(names)]
    strange = [benchmark.name for benchmark, evaluator in benchmarks if not can_fetch(evaluator)]
    if strange:
        known = [name for name, listed in Catalog.load().benchmarks.items() if can_fetch(build(listed.harness))]
        raise EvaluatorError(f"There is nothing to fetch for {', '.join(strange)}: only {', '.join(known)}.")
    return [fetch(evaluator, benchmark, progress.on_phase, progress.on_bytes) for benchmark, evaluator in benchmarks]
