"""What the look before the merge costs: `soup check` of a pool and its base, against reading all of their files once.

python benchmarks/check.py                     4 models of 0.5 GB and their base
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
from merge import WORK

CHECK = """
import json, sys, time
began = time.perf_counter()
from soup.report.pool_check import check
ready, cpu = time.perf_counter(), time.process_time()
assert check(sys.argv[2:], sys.argv[1]).distances
wall, cpu = time.perf_counter() - ready, time.process_time() - cpu
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
rss = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps({"startup": ready - began, "wall": wall, "cpu": cpu, "rss": rss}))
"""


@click.command()
@click.option("--gigabytes", default=0.5, show_default=True, help="Size of one model.")
@click.option("--models", default=4, show_default=True, help="How many ingredients, beside the base.")
@click.option("--repeats", default=5, show_default=True)
def main(gigabytes: float, models: int, repeats: int) -> None:
    """Make a base and models, check them, print a table."""
    folder = WORK / f"check-{gigabytes:g}GB"
    inputs = [folder / "base", *(folder / f"m{i}" for i in range(models))]
    make = [sys.executable, str(Path(__file__).parent / "merge.py"), "make"]
    for seed, path in enumerate(inputs):
        subprocess.run([*make, str(path), f"{gigabytes}", "0", f"{seed}"], check=True)
    try:
        rounds = [measure_round(inputs) for _ in range(repeats + 1)][1:]  # the first warms up
    finally:
        shutil.rmtree(folder)
    middle = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
    ratio = statistics.median(row["wall"] / row["floor"] for row in rounds)
    click.echo(
        f"| {models} models of {gigabytes:g} GB and a base | floor | wall | of the floor | CPU | start-up | peak RSS |"
    )
    click.echo("| --- | --: | --: | --: | --: | --: | --: |")
    click.echo(
        f"| soup check | {middle['floor']:.2f} s | {middle['wall']:.2f} s | {ratio:.1f} | {middle['cpu']:.2f} s "
        f"| {middle['startup']:.2f} s | {middle['rss'] / 1e6:.0f} MB |"
    )


def measure_round(inputs: list[Path]) -> dict[str, float]:
    """Measure the floor and the check, each once."""
    began = time.perf_counter()
    with Path(os.devnull).open("wb") as null:
        subprocess.run(["cat", *(str(path / "model.safetensors") for path in inputs)], stdout=null, check=True)
    floor = time.perf_counter() - began
    command = [sys.executable, "-c", CHECK, *map(str, inputs)]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"floor": floor, **measured}


if __name__ == "__main__":
    main()
