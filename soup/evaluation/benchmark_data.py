"""Fetch the data of benchmarks from where their harnesses have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soup.errors import EvaluatorError
from soup.evaluation.api import OPENCOMPASS, parse_benchmarks
from soup.evaluation.config import EvalSettings
from soup.evaluation.progress import Progress
from soup.support.plugins import EVALUATORS

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
    benchmarks = parse_benchmarks(names)
    strange = [benchmark.name for benchmark in benchmarks if benchmark.name not in OPENCOMPASS]
    if strange:
        raise EvaluatorError(f"There is nothing to fetch for {', '.join(strange)}: only {', '.join(OPENCOMPASS)}.")
    harness: Any = EVALUATORS.get("vlmeval")(EvalSettings())
    return [harness.fetch(benchmark, progress.on_phase, progress.on_bytes) for benchmark in benchmarks]
