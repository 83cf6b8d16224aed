"""Look without touching: what a checkpoint holds, whether a pool belongs together, what can be named."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.dtypes import TensorSpec, named_dtype
from soup.errors import EvaluatorError, PoolError
from soup.evaluation.api import OPENCOMPASS, EvalSettings, parse_benchmarks
from soup.merging.block_arithmetic import Blend
from soup.merging.block_loop import Options, scan_blocks
from soup.merging.methods.linear import Linear
from soup.merging.pool import Ingredient, Pool, open_ingredient
from soup.merging.recipe import Recipe
from soup.search.session import Progress
from soup.support.plugins import EVALUATORS, METHODS, STRATEGIES, Registry
from soup.support.text import bullet_list

__all__ = ["check_pool", "fetch_benchmarks", "inspect_checkpoint", "list_kind"]

HARNESS = "vlmeval"  # runs the benchmarks that need no prefix


def inspect_checkpoint(place: str, *, digest: bool = True, listener: Progress | None = None) -> dict[str, Any]:
    """A checkpoint's files, components and tensors, and the digest of its weights (which reads them all).

    Raises:
        CheckpointError: it is not to be had, or damaged.
    """
    listener = listener or Progress()
    ingredient = open_ingredient("checkpoint", place)
    with ingredient.checkpoint as checkpoint:
        found: dict[str, Any] = {
            "schema": 1,
            "checkpoint": str(checkpoint.path),
            "model_type": checkpoint.config.get("model_type"),
            "bytes": checkpoint.bytes,
            "quantised": checkpoint.quantised,
            "files": list(checkpoint.files),
            "side_files": list(checkpoint.side_files.carried),
            "left_out": list(checkpoint.side_files.left_out),
            "warnings": list(checkpoint.warnings),
            "components": _components(list(checkpoint.tensors.values())),
            "tensors": [
                {
                    "name": spec.name,
                    "dtype": spec.dtype.name,
                    "shape": list(spec.shape),
                    "file": checkpoint.layout[spec.name],
                }
                for spec in checkpoint.tensors.values()
            ],
        }
        for warning in checkpoint.warnings:
            listener.warn(warning)
        if digest:
            listener.phase("reading", checkpoint.bytes)
            found["digest"] = digest_checkpoint(checkpoint, listener.progress).content
    return found


def _components(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """Tensors by the part of the model they belong to: the first word of the name that tells parts apart.

    No table of architectures: `vision_tower`, `multi_modal_projector`, `language_model`, whatever the names say; below
    a `model.` that they all may share, the next word.
    """
    groups: dict[str, list[TensorSpec]] = {}
    for spec in specs:
        words = spec.name.split(".")
        depth = 2 if words[0] in ("model", "base_model", "module") and len(words) > 2 else 1
        groups.setdefault(".".join(words[:depth]), []).append(spec)
    return [
        {
            "name": name,
            "tensors": len(members),
            "elements": sum(spec.elements for spec in members),
            "bytes": sum(spec.bytes for spec in members),
            "dtypes": ", ".join(sorted({spec.dtype.name for spec in members})),
        }
        for name, members in groups.items()
    ]


def check_pool(
    places: str | Sequence[str],
    base: str | None,
    exclude: Sequence[str],
    dtype: str | None,
    drop: Sequence[str],
    listener: Progress | None = None,
    *,
    allow_nonfinite: bool = False,
) -> dict[str, Any]:
    """Everything that speaks against souping a pool, and what a user should know besides.

    A checkpoint that can't be opened is one of the problems, and the others are held against each other all the same.

    Raises:
        SoupError: none can be opened, or there is no such dtype.
    """
    listener = listener or Progress()
    if dtype is not None:
        named_dtype(dtype)
    opened, failed = Pool.open_what_opens(places, base, exclude)
    problems = [str(error) for error in failed.values()]
    if not opened.ingredients:
        raise PoolError(f"No ingredient can be opened:\n{bullet_list(problems)}")
    with opened as pool:
        problems += pool.problems(dtype, drop)
        warnings = pool.warnings(drop)
        listener.phase("reading the pool", sum(ingredient.checkpoint.bytes for ingredient in pool))
        sources = []
        for ingredient in pool:
            digest, broken = _read_through(ingredient, listener)
            sources.append(ingredient.source(digest))
            problems += [] if allow_nonfinite else broken
        warnings += Recipe.uniform(sources).repeated
        lost = [name.encode("utf-8", "backslashreplace").decode() for name in failed if name != "base"]
        names = sorted([*pool.names, *lost]) if lost else list(pool.names)
    for warning in warnings:
        listener.warn(warning)
    return {"schema": 1, "ingredients": names, "problems": problems, "warnings": warnings}


def _read_through(ingredient: Ingredient, listener: Progress) -> tuple[str, list[str]]:
    """The digest of an ingredient's weights, and its tensors that hold NaN or infinity: one pass tells both."""
    checkpoint = ingredient.checkpoint
    if checkpoint.quantised:  # its numbers are not numbers one by one
        return digest_checkpoint(checkpoint, listener.progress).content, []
    blend = Blend(Linear(), (checkpoint,), (ingredient.name,), (1.0,))
    options = Options(progress=listener.progress)
    digests = scan_blocks(blend, list(checkpoint.tensors.values()), lambda *block: None, options, hashing=True)
    return digests[0].content, [f"{name}: {why}" for name, why in sorted(blend.wrong.items())]


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


def fetch_benchmarks(names: Sequence[str], listener: Progress | None = None) -> list[Path]:
    """Download the data of benchmarks from where their harness has them; where they lie then.

    Raises:
        SoupError: a name is unknown, or its data can't be had.
    """
    listener = listener or Progress()
    benchmarks = parse_benchmarks(names)
    strange = [benchmark.name for benchmark in benchmarks if benchmark.name not in OPENCOMPASS]
    if strange:
        raise EvaluatorError(f"There is nothing to fetch for {', '.join(strange)}: only {', '.join(OPENCOMPASS)}.")
    harness: Any = EVALUATORS.get(HARNESS)(EvalSettings())
    return [harness.fetch(benchmark, listener.phase, listener.progress) for benchmark in benchmarks]
