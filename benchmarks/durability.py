"""What it costs to wait for the disk: a merge with and without its syncs, and the journal's appends likewise.

Every round measures both, one after another, and the ratios are medians of the rounds' own.

    python benchmarks/durability.py                 soups of 100 MB and of 1 GB, from two models each
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

WORK = Path(__file__).parent / "work" / "durability"
MERGE = str(Path(__file__).with_name("merge.py"))
LINES = 200


@click.command()
@click.option("--gigabytes", default=(0.1, 1.0), multiple=True, show_default=True, help="Size of a soup.")
@click.option("--repeats", default=5, show_default=True)
def main(gigabytes: tuple[float, ...], repeats: int) -> None:
    """Measure, and print a table."""
    click.echo("| | with syncs | without | ratio |\n| --- | --: | --: | --: |")
    try:
        for size in gigabytes:
            inputs = make_models(size)
            click.echo(row(f"soup of {size:g} GB", lambda: merge(inputs), repeats))  # noqa: B023 (called at once)
        click.echo(row(f"journal, {LINES} scores", append, repeats))
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


def make_models(gigabytes: float) -> list[Path]:
    """Write two checkpoints, each in a process of its own."""
    inputs = [WORK / f"{gigabytes:g}-{seed}" for seed in range(2)]
    for seed, path in enumerate(inputs):
        subprocess.run([sys.executable, MERGE, "make", path, f"{gigabytes}", "0", f"{seed}"], check=True)
    return inputs


def row(name: str, work: Callable[[], None], repeats: int) -> str:
    """Return a line of the table."""
    seconds(work)  # warms the page cache
    rounds = []
    for _ in range(repeats):
        durable = seconds(work)
        with without_syncs():
            rounds.append((durable, seconds(work)))
    durable, volatile = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(left / right for left, right in rounds)
    return f"| {name} | {durable:.2f} s | {volatile:.2f} s | {ratio:.2f} |"


def seconds(work: Callable[[], None]) -> float:
    """Time some work, once what was written before is on the disk."""
    shutil.rmtree(WORK / "out", ignore_errors=True)
    os.sync()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def without_syncs() -> Iterator[None]:
    """Have `os.fsync` return at once, in this process."""
    fsync = os.fsync
    os.fsync = lambda fd: None
    try:
        yield
    finally:
        os.fsync = fsync


def merge(inputs: list[Path]) -> None:
    """Merge two models."""
    import soup
    from soup.merging.recipe import CheckpointSource, Recipe

    sources = [CheckpointSource(name=path.name, path=str(path)) for path in inputs]
    soup.merge(Recipe.uniform(sources), WORK / "out")


def append() -> None:
    """Append scores to a new journal, as a search does."""
    from soup.evaluation.api import Benchmark, Score
    from soup.evaluation.journal import Journal
    from soup.merging.recipe import CheckpointSource, Recipe

    recipe = Recipe.uniform([CheckpointSource(name=name, path=name, digest=f"xxh3:{name * 32}") for name in "ab"])
    recipe = recipe.sealed([f"xxh3:{name * 32}" for name in "ab"], "sha256:" + "0" * 64)
    with Journal(WORK / "out" / "journal.jsonl") as journal:
        for number in range(LINES):
            benchmark = Benchmark("mmbench", "vlmeval", "mmbench")
            journal.remember(f"{number}", recipe, benchmark, {"version": 1}, Score(50.0, 1000), 1.0)


if __name__ == "__main__":
    main()
