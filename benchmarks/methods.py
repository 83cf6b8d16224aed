"""What each merge method costs: wall time, the processor's time and peak memory, against the floor in the same run.

The floor is what no merge of k ingredients around a base can do without: read them all once (`cat`), write the output
once (`cp`); and once more with `fsync`, until it is on the disk, where soup's output is when a merge ends. Methods on
whole matrices take the time of their decompositions and are left out by default.

    python benchmarks/methods.py                     4 models of 0.5 GB and their base
    python benchmarks/methods.py --methods swudi --gigabytes 0.1
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import click
from merge import WORK, ratio, round_around_base

STREAMED = "linear,task-arithmetic,dare,consensus,model-stock,karcher,ties"


@click.command()
@click.option("--gigabytes", default=0.5, show_default=True, help="Size of one model.")
@click.option("--models", default=4, show_default=True, help="How many ingredients, beside the base.")
@click.option("--methods", default=STREAMED, show_default=True, help="Which, separated by commas.")
@click.option("--repeats", default=3, show_default=True)
def main(gigabytes: float, models: int, methods: str, repeats: int) -> None:
    """Make a base and fine-tunes of it, merge them by each method, print a table."""
    folder = WORK / f"methods-{gigabytes:g}GB"
    inputs = [folder / "base", *(folder / f"m{i}" for i in range(models))]
    make = [sys.executable, str(Path(__file__).parent / "merge.py"), "make"]
    for seed, path in enumerate(inputs):
        subprocess.run([*make, str(path), f"{gigabytes}", "0", f"{seed}"], check=True)
    size = f"{models} models of {gigabytes:g} GB and a base"
    click.echo(f"| {size} | of the floor | of the floor with fsync | wall | CPU | peak RSS |")
    click.echo("| --- | --: | --: | --: | --: | --: |")
    floors = []
    try:
        for method in methods.split(","):
            _, *rounds = [round_around_base(inputs, folder / "out", method) for _ in range(repeats + 1)]  # one warms up
            middle = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
            click.echo(
                f"| {method} | {ratio(rounds):.2f} | {ratio(rounds, below='synced_floor'):.2f} "
                f"| {middle['wall']:.2f} s | {middle['cpu']:.2f} s | {middle['rss'] / 1e6:.0f} MB |"
            )
            floors += rounds
        floor, synced = (statistics.median(row[key] for row in floors) for key in ("floor", "synced_floor"))
        click.echo(f"The floor was {floor:.2f} s, with fsync {synced:.2f} s.")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
