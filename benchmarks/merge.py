"""What a merge costs: wall time and peak memory, against the floor of this machine, measured in the same run.

The floor is what no merge can do without: read every input once (`cat`), write the output once (`cp`); and once more
with `fsync`, until it is on the disk, where soup's output is when a merge ends. Start-up (Python and torch) is measured
apart. Every figure is the median of `--repeats` rounds, and a round measures floor, soup and mergekit one after
another, so that a noisy neighbour hits all of them.

    python benchmarks/merge.py                          4 models of 1.24 GB
    python benchmarks/merge.py --gigabytes 4            4 models of 4 GB
    python benchmarks/merge.py --gigabytes 3 --tensor-gigabytes 1   tensors of 1 GB
    python benchmarks/merge.py --against mergekit       and mergekit's linear, in a virtual environment of its own
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
from typing import Any

import click
from results import record

HERE = Path(__file__).parent
WORK = HERE / "work"

SOUP = """
import json, resource, sys, time
began = time.perf_counter()
from soup.search.merge import merge
from soup.merging.recipe import CheckpointSource, Recipe
ready = time.perf_counter()
sources = [CheckpointSource(name=f"m{i}", path=path) for i, path in enumerate(sys.argv[2:])]
merge(Recipe.uniform(sources), sys.argv[1])
def peak_bytes():
    # Not ru_maxrss on Linux: across exec it keeps the peak of the process that started this one.
    if sys.platform == "linux":
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        return int(status["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"startup": ready - began, "wall": time.perf_counter() - ready, "rss": peak_bytes()}))
"""


@click.command()
@click.option("--gigabytes", default=1.24, show_default=True, help="Size of one model.")
@click.option("--models", default=4, show_default=True, help="How many ingredients.")
@click.option("--tensor-gigabytes", default=0.0, help="Size of the two largest tensors. [default: 131 MB]")
@click.option("--repeats", default=5, show_default=True)
@click.option("--against", type=click.Choice(["mergekit"]), help="Measure this peer too.")
@click.option("--cold", is_flag=True, help="Drop the inputs from the page cache before each measurement.")
@click.option("--keep", is_flag=True, help="Keep the models for the next run.")
@click.option("--record", "recording", is_flag=True, help="Keep the medians in results/merge.json, for draw.py.")
def main(
    gigabytes: float,
    models: int,
    tensor_gigabytes: float,
    repeats: int,
    against: str | None,
    cold: bool,
    keep: bool,
    recording: bool,
) -> None:
    """Make models, merge them, print a table."""
    folder = WORK / f"{models}x{gigabytes:g}GB-{tensor_gigabytes:g}"
    inputs = [folder / f"m{i}" for i in range(models)]
    for seed, path in enumerate(inputs):  # each in a process of its own: this one must stay small, see run_mergekit
        subprocess.run(
            [sys.executable, __file__, "make", str(path), f"{gigabytes}", f"{tensor_gigabytes}", f"{seed}"], check=True
        )
    mergekit = mergekit_command() if against else None
    rounds: list[dict[str, float]] = []
    try:
        for number in range(repeats + 1):
            measured = measure_round(inputs, folder / "out", mergekit, cold)
            if number:  # the first warms the page cache
                rounds.append(measured)
                click.echo(json.dumps({key: round(value, 3) for key, value in measured.items()}), err=True)
    finally:
        shutil.rmtree(folder / "out", ignore_errors=True)
        if not keep:
            shutil.rmtree(folder)
    click.echo(table(rounds, gigabytes, models, tensor_gigabytes, cold))
    if recording:
        case = {"gigabytes": gigabytes, "models": models, "tensor_gigabytes": tensor_gigabytes, "cold": cold}
        record("merge", [{**case, **medians(rounds)}], tuple(case))


def make_model(folder: Path, gigabytes: float, tensor_gigabytes: float, seed: int, dtype: str = "bfloat16") -> Path:
    """Write a checkpoint in one file, tensor by tensor; the sizes are those in bfloat16."""
    import torch

    from soup.checkpoints.dtypes import TensorSpec, named_dtype
    from soup.checkpoints.file_plan import plan_files
    from soup.checkpoints.writer import CheckpointWriter, view_bytes

    if (folder / "model.safetensors").exists():
        return folder
    config = llama_config(gigabytes, tensor_gigabytes)
    stored = named_dtype(dtype)
    specs = [TensorSpec(name, stored, shape) for name, shape in llama_tensors(config).items()]
    noise = torch.Generator().manual_seed(seed)
    with CheckpointWriter(folder, plan_files(specs, None), {"format": "pt"}) as writer:
        for spec in specs:
            for start in range(0, spec.elements, 2**23):
                count = min(2**23, spec.elements - start)
                values = torch.randn(count, generator=noise).to(stored.torch)
                writer.write(spec.name, start, view_bytes(values))
        writer.add_file("config.json", json.dumps(config).encode())
        writer.commit({"format": "pt"})
    return folder


HIDDEN, INNER, HEADS = 2048, 5632, 16


def llama_config(gigabytes: float, tensor_gigabytes: float) -> dict[str, Any]:
    """Write a Llama of about that size, the one architecture that mergekit surely knows: it drops unknown tensors."""
    vocabulary = int(tensor_gigabytes * 1e9) // (2 * HIDDEN) or 32000
    layer_bytes = 2 * (4 * HIDDEN**2 + 3 * HIDDEN * INNER)
    layers = max(1, round((gigabytes * 1e9 - 4 * vocabulary * HIDDEN) / layer_bytes))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


def llama_tensors(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes as transformers saves them."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], HIDDEN)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        shapes |= {f"{layer}.mlp.{part}_proj.weight": (INNER, HIDDEN) for part in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes |= {f"{layer}.{part}_layernorm.weight": (HIDDEN,) for part in ("input", "post_attention")}
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (config["vocab_size"], HIDDEN)}


def measure_round(inputs: list[Path], out: Path, mergekit: list[str] | None, cold: bool) -> dict[str, float]:
    """Measure floor, soup, and the peer if there is one, each once."""
    measured = measure_floor(inputs, out, cold)
    fresh(inputs, out, cold)
    process = subprocess.run(
        [sys.executable, "-c", SOUP, str(out), *map(str, inputs)], check=True, capture_output=True, text=True
    )
    measured |= {f"soup_{key}": value for key, value in json.loads(process.stdout).items()}
    if mergekit:
        fresh(inputs, out, cold)
        measured |= run_mergekit(mergekit, inputs, out)
    return measured


AROUND_BASE = (
    SOUP.replace(
        "ready = ",
        "from soup.support.plugins import METHODS\n"
        "if METHODS.get(NAME)().first_passes: import torch  # which takes longer than the merge, and is start-up\n"
        "ready = ",
    )
    .replace(
        "merge(Recipe.uniform(sources), sys.argv[1])",
        "base, *sources = sources\ncpu = time.process_time()\n"
        "merge(Recipe.uniform(sources).model_copy(update={'base': base, 'method': NAME}), sys.argv[1])",
    )
    .replace('"wall":', '"cpu": time.process_time() - cpu, "wall":')
)


def round_around_base(inputs: list[Path], out: Path, method: str = "linear") -> dict[str, float]:
    """Measure the floor of a merge of ingredients around a base, which comes first, and the merge, each once."""
    floor = measure_floor(inputs, out)
    fresh([], out, cold=False)
    command = [sys.executable, "-c", AROUND_BASE.replace("NAME", repr(method)), str(out), *map(str, inputs)]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {**floor, **measured}


def measure_floor(inputs: list[Path], out: Path, cold: bool = False) -> dict[str, float]:
    """Read all weights once and write those of the first input, without and with waiting for the disk."""
    fresh(inputs, out, cold)
    began = time.perf_counter()
    files = [str(file) for path in inputs for file in path.glob("*.safetensors")]
    with Path(os.devnull).open("wb") as null:
        subprocess.run(["cat", *files], stdout=null, check=True)
    out.mkdir()
    copied = out / "model.safetensors"
    subprocess.run(["cp", files[0], str(copied)], check=True)
    floor = time.perf_counter() - began
    with copied.open("r+b") as file:
        os.fsync(file.fileno())
    return {"floor": floor, "synced_floor": time.perf_counter() - began}


def floor_rows(rounds: list[dict[str, float]]) -> str:
    """Return the first rows of a Markdown table of wall times and their ratios to the floor."""
    floor, synced = (statistics.median(row[key] for row in rounds) for key in ("floor", "synced_floor"))
    return (
        f"| floor (cat, cp) | {floor:.2f} s | 1 | | |\n"
        f"| floor, output on the disk (cat, cp, fsync) | {synced:.2f} s | {ratio(rounds, 'synced_floor'):.2f} | | |"
    )


def ratio(rounds: list[dict[str, float]], above: str = "wall", below: str = "floor") -> float:
    """Return the median of the rounds' own ratios."""
    return statistics.median(row[above] / row[below] for row in rounds)


def fresh(inputs: list[Path], out: Path, cold: bool) -> None:
    """Remove the output; and with `cold`, drop the inputs from the page cache."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()  # what the last measurement wrote must not be written back during the next
    if cold:
        for path in inputs:
            fd = os.open(path / "model.safetensors", os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def mergekit_command() -> list[str]:
    """mergekit-yaml in a virtual environment of its own, made if it is not there: it pins other libraries than ours."""
    home = WORK / "mergekit"
    if not (home / "bin" / "mergekit-yaml").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        constraint = str(HERE.parent / "constraints.txt")
        torch = next(line for line in Path(constraint).read_text().splitlines() if line.startswith("torch=="))
        subprocess.run([str(home / "bin" / "pip"), "install", "-q", torch, "mergekit==0.1.5"], check=True)
    return [str(home / "bin" / "python"), "-m", "mergekit.scripts.run_yaml"]


def run_mergekit(command: list[str], inputs: list[Path], out: Path) -> dict[str, float]:
    """Time the linear merge of mergekit of the same models, start-up and all: wall seconds and peak memory.

    `ru_maxrss` starts from the peak of the process that starts another, so that this one holds no torch.
    """
    config = out.with_suffix(".yaml")
    models = [{"model": str(path.absolute()), "parameters": {"weight": 1.0}} for path in inputs]
    config.write_text(json.dumps({"merge_method": "linear", "dtype": "bfloat16", "models": models}))
    began = time.perf_counter()
    flags = ["--no-copy-tokenizer", "--allow-crimes"]
    process = subprocess.Popen(
        [*command, str(config), str(out), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException("mergekit failed:\n" + process.stderr.read().decode()[-2000:])
    written = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    expected = (inputs[0] / "model.safetensors").stat().st_size
    if written < 0.99 * expected:
        raise click.ClickException(f"mergekit wrote {written} bytes of {expected}: it dropped tensors.")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"mergekit_wall": time.perf_counter() - began, "mergekit_rss": peak}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return what is drawn: ratios are medians of the rounds' own ratios, memory is in MB."""
    middle = {"floor_seconds": statistics.median(row["floor"] for row in rounds)}
    for program in ("soup", "mergekit"):
        if f"{program}_wall" in rounds[0]:
            middle |= {
                f"{program}_seconds": statistics.median(row[f"{program}_wall"] for row in rounds),
                f"{program}_of_floor": ratio(rounds, f"{program}_wall"),
                f"{program}_of_synced_floor": ratio(rounds, f"{program}_wall", "synced_floor"),
                f"{program}_mb": statistics.median(row[f"{program}_rss"] for row in rounds) / 1e6,
            }
    return {key: round(value, 3) for key, value in middle.items()}


def table(rounds: list[dict[str, float]], gigabytes: float, models: int, tensor: float, cold: bool) -> str:
    """Return the medians as a Markdown table; ratios are medians of the rounds' own ratios."""
    middle = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}

    files = "cold" if cold else "warm"
    size = f"{models} x {gigabytes:g} GB" + (f", tensors of {tensor:g} GB" if tensor else "")
    lines = [
        f"| {size}, {files} | wall beyond start-up | of the floor | start-up | peak RSS |",
        "| --- | --- | --- | --- | --- |",
        floor_rows(rounds),
        f"| soup | {middle['soup_wall']:.2f} s | {ratio(rounds, 'soup_wall'):.2f} | {middle['soup_startup']:.2f} s | "
        f"{middle['soup_rss'] / 1e6:.0f} MB |",
    ]
    if "mergekit_wall" in middle:
        whole = statistics.median(row["mergekit_wall"] / (row["soup_wall"] + row["soup_startup"]) for row in rounds)
        lines.append(
            f"| mergekit 0.1.5 linear | {middle['mergekit_wall']:.2f} s with start-up | "
            f"{ratio(rounds, 'mergekit_wall'):.2f} | | {middle['mergekit_rss'] / 1e6:.0f} MB |"
        )
        lines.append(f"\nmergekit takes {whole:.1f} x the time of soup, start-up included in both.")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make_model(Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), *sys.argv[6:])
    else:
        main()
