"""Tiny pools around a base for methods on deltas: their checkpoints, and the same numbers in float64."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

import soup
from soup.merging.options import MergeOptions
from soup.merging.recipe import CheckpointSource, Recipe, Share
from soup.testing import tiny_checkpoint

SHAPES = {
    "model.vision_tower.blocks.0.attn.weight": (12, 10),
    "model.vision_tower.blocks.1.attn.weight": (12, 10),
    "model.multi_modal_projector.weight": (9, 12),
    "model.language_model.embed_tokens.weight": (11, 9),
    "model.language_model.layers.0.mlp.weight": (16, 9),
    "model.language_model.layers.1.mlp.weight": (16, 9),
    "model.language_model.layers.2.mlp.weight": (16, 9),
    "model.language_model.norm.weight": (9,),
    "model.vision_tower.temperature": (),
    "model.empty": (0, 3),
    "model.one": (1,),
}
FROZEN = "model.vision_tower.blocks.0.attn.weight"


def make_pool(folder, count=3, dtype=torch.float32, seed=0, spread=0.1, shapes=None):
    """A base and `count` fine-tunes of it; one tensor is left as the base has it."""
    torch.manual_seed(seed)
    shapes = shapes or SHAPES
    base = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    tiny_checkpoint(folder / "base", tensors=base)
    for number in range(count):
        tuned = {
            name: value if name == FROZEN else (value.double() + spread * torch.randn(value.shape).double()).to(dtype)
            for name, value in base.items()
        }
        tiny_checkpoint(folder / "ckpts" / f"m{number}", tensors=tuned)
    return folder


def numbers(folder):
    """The base, and the ingredients in order, in float64 by name."""
    pool = sorted((folder / "ckpts").iterdir())
    base, *others = (
        {k: v.double() for k, v in load_file(p / "model.safetensors").items()} for p in (folder / "base", *pool)
    )
    return base, others


def merge(folder, method, out="out", weights=None, options=None, **params):
    """The soup of all ingredients, as raw tensors by name."""
    return merge_with(folder, method, out, weights, params, options)


def merge_with(folder, method, out, weights, params, options=None):
    pool = sorted((folder / "ckpts").iterdir())
    weights = weights or [1 / len(pool)] * len(pool)
    shares = [Share(name=p.name, path=str(p), weight=w) for p, w in zip(pool, weights, strict=True)]
    base = CheckpointSource(name="base", path=str(folder / "base"))
    recipe = Recipe(method=method, params=params, ingredients=tuple(shares), base=base)
    soup.merge(recipe, Path(folder) / out, merge=options or MergeOptions())
    return load_file(Path(folder) / out / "model.safetensors")


def near(actual, expected, rtol=2e-6, atol=1e-7):
    """Whether all tensors are the expected ones, within a few float32 roundings."""
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=rtol, atol=atol)
    return True
