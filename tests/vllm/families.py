"""Tiny checkpoints that vLLM takes: heads as wide as its attention on processors wants, names as on the Hub."""

from __future__ import annotations

import dataclasses
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file

from tests.helpers import vlm_families

WIDE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
SECTIONS = {"mrope_section": [4, 6, 6], "mrope_interleaved": True}
NEWLINES = tuple("\n" * count for count in (2, 3, 4))  # vLLM looks Gemma3's up in the vocabulary

KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "llava", "gemma3")
TIED = ("qwen3_vl", "internvl")
RENAMED = ("llava", "llava_onevision", "gemma3")
"""Whose vision towers transformers 5 gives other names than the Hub."""


def save_served(kind, directory, seed, dtype=torch.float32, *, on_hub=True, **text):
    """A tiny checkpoint of random weights, as `save_family` makes them, that vLLM can be opened on.

    `text` replaces sizes of the language model; without `on_hub` names are those that transformers 5 saves.
    """
    family = vlm_families.FAMILIES[kind]
    gemma = dataclasses.replace(family, specials=(*family.specials, *NEWLINES)) if kind == "gemma3" else family
    interleaved = SECTIONS if kind == "qwen3_vl" else {"mrope_section": SECTIONS["mrope_section"]}
    with (
        patch.dict(vlm_families.TEXT, {**WIDE, **text}),
        patch.dict(vlm_families.MROPE, interleaved),
        patch.dict(vlm_families.FAMILIES, {kind: gemma}),
    ):
        vlm_families.save_family(kind, directory, seed, dtype)
    return rename_as_on_hub(directory) if on_hub and kind in RENAMED else directory


def rename_as_on_hub(directory):
    """Give a checkpoint's vision tower the names of the Hub, which vLLM 0.32 knows, and not transformers 5's own."""
    file = directory / "model.safetensors"
    old, new = "vision_tower.", "vision_tower.vision_model."
    tensors = load_file(file)
    renamed = {name.replace(old, new, 1) if name.startswith(old) else name: values for name, values in tensors.items()}
    save_file(renamed, file, {"format": "pt"})
    return directory
