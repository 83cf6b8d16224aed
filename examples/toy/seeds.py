"""Data and fine-tunes of several seeds, each in its own folder: work/seed-0, work/seed-1, ...

python examples/toy/seeds.py 0 1 2
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from finetune.launching.launch import finetune
from finetune.toy import make_toy

HERE = Path(__file__).parent


def main(seeds: list[int]) -> None:
    config = yaml.safe_load((HERE / "finetune.yaml").read_text())
    for seed in seeds:
        folder = HERE / "work" / f"seed-{seed}"
        make_toy(folder / "toy", seed)
        (folder / "finetune.yaml").write_text(yaml.safe_dump(config | {"root": ".", "seed": seed}, sort_keys=False))
        finetune(folder / "finetune.yaml", progress=print_progress)


def print_progress(name: str, step: int, steps: int, loss: float) -> None:
    if step % 50 == 0 or step == steps:
        print(f"{name:8} step {step:4} of {steps}  loss {loss:.3f}", flush=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [0, 1, 2])
