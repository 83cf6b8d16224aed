"""What a hot swap costs: a candidate of k ingredients into a loaded model, against reading its files once (`cat`).

The model is a LLaVA that transformers makes from a configuration, with random bfloat16 weights, so that its names on
disk are not its names in memory. A fresh process loads it and swaps; cat and swap take turns, so that a noisy
neighbour hits both. Memory is the peak while swapping beyond what the process held with its model loaded. With
`--experts` the language model is a mixture, whose experts transformers stacks on loading; then the table also has what
the swap saves: writing the candidate and loading it.

    python benchmarks/swap.py                       7 models of 0.6 GB, every weight trained
    python benchmarks/swap.py --frozen              the vision tower is the same in all, as in POINTS
    python benchmarks/swap.py --cold                the files are not in the page cache
    python benchmarks/swap.py --experts 64          mixtures of experts
    python benchmarks/swap.py --device cuda --gigabytes 14
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import click

WORK = Path(__file__).parent / "work"

SWAP = """
import json, os, subprocess, sys, time
from pathlib import Path
import torch
from soup.hf.key_mapping import plan_loading
from soup.evaluation.candidate import SoupCandidate
from soup.checkpoints.digest import digest_checkpoint
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe
from transformers import AutoModelForImageTextToText

folder, device, repeats, cold = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "True"
mixture = sys.argv[5] == "True"

def forget():
    for path in files if cold else ():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

def status(key):
    return 1024 * int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith(key + ":")))

def sync():
    if device == "cuda":
        torch.cuda.synchronize()

with Pool(folder) as pool:
    known = [digest_checkpoint(part.checkpoint) for part in pool]
    recipe = Recipe.uniform([part.source() for part in pool]).sealed([each.content for each in known], "")
    candidate = SoupCandidate(recipe, pool, folder / "home", known)
    module = AutoModelForImageTextToText.from_pretrained(candidate.template, dtype="auto")
    for values in [*module.parameters(), *module.buffers()]:
        values.data = values.data.clone().to(device)  # out of the file's own pages
    plan = plan_loading(module, pool.ingredients[0].checkpoint.tensors)
    assert bool(plan.conversions) == mixture
    files = [str(path) for path in sorted(folder.glob("*/*.safetensors"))]
    candidate.load_into(module, *plan)
    rounds = []
    for _ in range(repeats):
        forget()
        began = time.perf_counter()
        with open("/dev/null", "wb") as null:
            subprocess.run(["cat", *files], stdout=null, check=True)
        read = time.perf_counter() - began
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before = status("VmRSS")
        forget()
        began = time.perf_counter()
        candidate.load_into(module, *plan)
        sync()
        rounds.append({"read": read, "swap": time.perf_counter() - began, "more": status("VmHWM") - before})
        if mixture:
            forget()
            began = time.perf_counter()
            AutoModelForImageTextToText.from_pretrained(candidate.directory(), dtype="auto").to(device)
            sync()
            rounds[-1]["write and load"] = time.perf_counter() - began
            candidate.remove()
    size = sum(values.numel() * values.element_size() for values in module.state_dict().values())
    print(json.dumps({"rounds": rounds, "model": size, "resident": status("VmHWM")}))
"""


@click.command()
@click.option("--gigabytes", default=0.6, show_default=True, help="Size of one model, about.")
@click.option("--models", default=7, show_default=True, help="How many ingredients.")
@click.option("--frozen", is_flag=True, help="One vision tower for all.")
@click.option("--cold", is_flag=True, help="Drop the files from the page cache before each measurement.")
@click.option("--experts", default=0, show_default=True, help="Experts in each layer of the language model; 0: none.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--keep", is_flag=True, help="Keep the models for the next run.")
def main(
    gigabytes: float, models: int, frozen: bool, cold: bool, experts: int, repeats: int, device: str, keep: bool
) -> None:
    """Make models, swap their mean into one that is loaded, print a table."""
    folder = WORK / f"swap-{models}x{gigabytes:g}GB{'-frozen' if frozen else ''}-{experts}experts"
    make_models(folder, configuration(gigabytes, experts), models, frozen)
    try:
        command = [sys.executable, "-c", SWAP, str(folder), device, str(repeats), str(cold), str(experts > 0)]
        process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    finally:
        if not keep:
            shutil.rmtree(folder)
    click.echo(table(json.loads(process.stdout.splitlines()[-1]), models, frozen, cold, device))


def make_models(folder: Path, config: object, count: int, frozen: bool) -> None:
    """`count` checkpoints of random weights, as transformers saves them."""
    import torch
    from transformers import AutoModelForImageTextToText

    if folder.exists():
        return
    with torch.device("meta"):
        module = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    module = module.to_empty(device="cpu")
    for number in range(count):
        noise = torch.Generator().manual_seed(number)
        for name, values in module.named_parameters():
            if number == 0 or not (frozen and "vision_tower" in name):
                for part in values.data.view(-1).split(2**22):
                    part.copy_(torch.randn(part.shape, generator=noise) * 0.02)
        module.save_pretrained(folder / f"m{number}")


def configuration(gigabytes: float, experts: int) -> object:
    """Write a LLaVA of about that size: CLIP ViT-B or L and a Qwen2 or Qwen3-MoE of as many layers as it takes."""
    from transformers import CLIPVisionConfig, LlavaConfig, Qwen2Config, Qwen3MoeConfig

    large = gigabytes > 4
    width, rows = (3584, 18944) if large else (1024, 4096)
    layer_bytes = 2 * (3 * width * rows + 4 * width * width)
    embeddings_bytes = 2 * 2 * 32000 * width
    layers = max(1, round((gigabytes * 1e9 - embeddings_bytes - (0.6e9 if large else 0.17e9)) / layer_bytes))
    heads = {"num_attention_heads": width // 128, "num_key_value_heads": width // 128}
    sizes = {"vocab_size": 32000, "hidden_size": width, "num_hidden_layers": layers, **heads}
    text = Qwen2Config(**sizes, intermediate_size=rows)
    if experts:  # of as many elements together as the layer without
        text = Qwen3MoeConfig(**sizes, head_dim=128, moe_intermediate_size=rows // experts, num_experts=experts)
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    if not large:
        vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return LlavaConfig(vision_config=CLIPVisionConfig(**vision, image_size=336, patch_size=14), text_config=text)


def table(run: dict, models: int, frozen: bool, cold: bool, device: str) -> str:
    """Return the medians as a Markdown table; the ratio is the median of the rounds' own."""
    rounds = run["rounds"]
    read, swap = (statistics.median(row[key] for row in rounds) for key in ("read", "swap"))
    ratio = statistics.median(row["swap"] / row["read"] for row in rounds)
    files = ("cold" if cold else "warm") + (", vision tower frozen" if frozen else "")
    most = max(row["more"] for row in rounds)
    written = [row["write and load"] for row in rounds if "write and load" in row]
    disk = statistics.median(written) if written else 0.0
    return "\n".join(
        [
            f"| {models} x {run['model'] / 1e9:.2f} GB, {files}, {device} | seconds | of reading once | more memory |",
            "| --- | --- | --- | --- |",
            f"| read the files once (cat) | {read:.2f} | 1 | |",
            f"| swap the candidate in | {swap:.2f} | {ratio:.2f} | {most / 1e6:.0f} MB |",
            *([f"| write it and load it | {disk:.2f} | {disk / read:.2f} | |"] if written else []),
            f"\nPeak of the whole process, model and libraries included: {run['resident'] / 1e6:.0f} MB.",
        ]
    )


if __name__ == "__main__":
    main()
