"""What a merge of a LoRA pool costs: wall time and peak memory, against the floor of this machine, in the same run.

The floor is what no merge can do without: read the base and the adapters once (`cat`), write the output once (`cp`);
and once more with `fsync`, until it is on the disk, where soup's output is when a merge ends.
The products of the factors come on top: 2 x rank x adapters operations for each element of a target. CPU is the
processor's time on all cores, which a busy neighbour does not change as it changes the wall time.

    python benchmarks/lora.py                      8 adapters of rank 16 over 1 GB, on all linear layers
    python benchmarks/lora.py --gigabytes 4 --targets attention
    python benchmarks/lora.py --dtype float32      over a base of float32
    python benchmarks/lora.py --wholes 2           with two whole models in the pool
    python benchmarks/lora.py --method knots       decompositions no larger than the sum of the ranks come on top
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import click
from merge import WORK, floor_rows, llama_config, llama_tensors, ratio, round_around_base

TARGETS = {"all": ("_proj.weight",), "attention": ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")}


@click.command()
@click.option("--gigabytes", default=1.0, show_default=True, help="Size of the base.")
@click.option("--adapters", default=8, show_default=True, help="How many ingredients.")
@click.option("--rank", default=16, show_default=True, help="Rank of each.")
@click.option("--targets", type=click.Choice([*TARGETS]), default="all", show_default=True)
@click.option("--dtype", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True)
@click.option("--wholes", default=0, show_default=True, help="Whole models beside the adapters.")
@click.option("--method", default="linear", show_default=True)
@click.option("--repeats", default=3, show_default=True)
def main(
    gigabytes: float,
    adapters: int,
    rank: int,
    targets: str,
    dtype: str,
    wholes: int,
    method: str,
    repeats: int,
) -> None:
    """Make a base, adapters and whole models, merge them, print a table."""
    folder = WORK / f"lora-{gigabytes:g}GB"
    models = [folder / "base", *(folder / f"w{i}" for i in range(wholes))]
    inputs = [models[0], *(folder / f"a{i}" for i in range(adapters)), *models[1:]]
    size = gigabytes / (2 if dtype == "float32" else 1)  # in bfloat16
    for seed, path in enumerate(models):
        make = [sys.executable, str(Path(__file__).parent / "merge.py"), "make"]
        subprocess.run([*make, str(path), f"{size}", "0", f"{seed}", dtype], check=True)
    code = f"import lora; lora.make_adapters({str(folder)!r}, {size}, {adapters}, {rank}, {targets!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
    rounds: list[dict[str, float]] = []
    try:
        for number in range(repeats + 1):
            measured = round_around_base(inputs, folder / "out", method)
            if number:  # the first warms the page cache
                rounds.append(measured)
                click.echo(json.dumps({key: round(value, 3) for key, value in measured.items()}), err=True)
    finally:
        shutil.rmtree(folder)
    middle = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
    names = llama_tensors(llama_config(size, 0)).items()
    elements = sum(shape[0] * shape[-1] for name, shape in names if name.endswith(TARGETS[targets]))
    click.echo(
        f"| {adapters} adapters of rank {rank}, whole models: {wholes}, over {gigabytes:g} GB of {dtype}, "
        f"targets: {targets} "
        f"({2e-9 * elements * rank * adapters:.0f} GFLOP) | wall beyond start-up | of the floor | CPU | peak RSS |\n"
        "| --- | --- | --- | --- | --- |\n"
        f"{floor_rows(rounds)}\n"
        f"| soup, {method} | {middle['wall']:.2f} s | {ratio(rounds):.2f} | {middle['cpu']:.2f} s | "
        f"{middle['rss'] / 1e6:.0f} MB |"
    )


def make_adapters(folder: str, gigabytes: float, adapters: int, rank: int, targets: str) -> None:
    """Write adapters of bfloat16, as training in bfloat16 saves them."""
    import torch
    from safetensors.torch import save_file

    shapes = llama_tensors(llama_config(gigabytes, 0)).items()
    for seed in range(adapters):
        path = Path(folder) / f"a{seed}"
        path.mkdir(parents=True, exist_ok=True)
        noise = torch.Generator().manual_seed(seed)
        factors: dict[str, torch.Tensor] = {}
        for name, shape in shapes:
            if name.endswith(TARGETS[targets]):
                module = f"base_model.model.{name.removesuffix('.weight')}"
                for part, size in (("A", (rank, shape[1])), ("B", (shape[0], rank))):
                    factors[f"{module}.lora_{part}.weight"] = (torch.randn(size, generator=noise) * 0.02).bfloat16()
        save_file(factors, path / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
        (path / "adapter_config.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main()
