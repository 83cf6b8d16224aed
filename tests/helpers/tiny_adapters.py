"""Tiny LoRA adapters: by hand over tiny checkpoints, or by PEFT over tiny models; and what they mean exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from soup.testing import tiny_tensor

PREFIX = "base_model.model."


def write_adapter(path, factors, base="", **config):
    """Write an adapter's directory; `factors` are tensors by their keys without PEFT's prefix."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    save_file({PREFIX + key: value.contiguous() for key, value in factors.items()}, path / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": str(base), **config}
    (path / "adapter_config.json").write_text(json.dumps(settings))
    return path


def linear_factors(shapes, rank=4, seed=0, dtype="float32"):
    """Factors A and B for weights of these shapes by name, random ones."""
    factors = {}
    for name, (rows, columns) in shapes.items():
        module = name.removesuffix(".weight")
        for part, shape in (("A", (rank, columns)), ("B", (rows, rank))):
            key = f"{module}.lora_{part}.weight"
            factors[key] = tiny_tensor(key, shape, seed=seed, dtype=dtype) * 5
    return factors


def exact(base, adapter):
    """What base and adapter are in float64, for linear layers of plain LoRA: a dict of tensors.

    Args:
        base: The base's tensors.
        adapter: The adapter's directory.
    """
    config = json.loads((Path(adapter) / "adapter_config.json").read_text())
    factors = {
        key.removeprefix(PREFIX): value.double()
        for key, value in load_file(Path(adapter) / "adapter_model.safetensors").items()
    }
    values = {name: value.double() for name, value in base.items()}
    for key, a in factors.items():
        if key.endswith(".lora_A.weight"):
            module = key.removesuffix(".lora_A.weight")
            rank = math.sqrt(len(a)) if config.get("use_rslora") else len(a)
            values[f"{module}.weight"] = values[f"{module}.weight"] + config["lora_alpha"] / rank * (
                factors[f"{module}.lora_B.weight"] @ a
            )
    return values


def mean_of(states):
    """The mean of dicts of tensors, in float64."""
    return {name: torch.stack([state[name].double() for state in states]).mean(0) for name in states[0]}
