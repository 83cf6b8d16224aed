"""Tiny checkpoints for the tests of soup and of plug-ins: the same call gives the same bytes on every machine."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from soup.checkpoints.digest import digest_checkpoint, side_digest
from soup.checkpoints.dtypes import named_dtype
from soup.checkpoints.weight_files import INDEX, WEIGHTS
from soup.evaluation.candidate import SoupCandidate
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe

if TYPE_CHECKING:
    import torch

__all__ = ["TINY_SHAPES", "tiny_candidate", "tiny_checkpoint", "tiny_pool", "tiny_tensor"]

TINY_SHAPES: Mapping[str, tuple[int, ...]] = {
    "lm_head.weight": (24, 16),
    "model.language_model.embed_tokens.weight": (24, 16),
    "model.language_model.layers.0.mlp.up_proj.weight": (32, 16),
    "model.language_model.layers.0.self_attn.q_proj.bias": (16,),
    "model.language_model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.language_model.norm.weight": (16,),
    "model.multi_modal_projector.linear.weight": (16, 8),
    "model.vision_tower.patch_embedding.weight": (8, 3, 2, 2),
    "model.vision_tower.temperature": (),
}
"""The default tensors of a tiny checkpoint: a vision tower, a projector, a language model, a 0-d tensor."""

_WORDS = ("<pad>", "<eos>", "<image>", "a", "cat", "dog", "is", "it", "no", "one", "two", "what", "yes", "?")


def tiny_tensor(name: str, shape: Sequence[int], *, seed: int = 0, dtype: str = "bfloat16") -> torch.Tensor:
    """Make a tensor of nearly normal numbers with a deviation of 0.02; it depends on the arguments alone.

    Args:
        name: The tensor's name: another one gives other numbers.
        shape: Its shape.
        seed: Another one gives other numbers.
        dtype: Its dtype, as torch names it.
    """
    import torch

    # Four 16-bit integers are added up: whole numbers, so that no processor's or library's rounding plays a part.
    noise = bytearray(random.Random(f"{seed}/{name}").randbytes(8 * math.prod(shape)))
    if not noise:
        return torch.zeros(tuple(shape), dtype=named_dtype(dtype).torch)
    parts = torch.frombuffer(noise, dtype=torch.int16).view(-1, 4).sum(dim=1)
    return (parts.double() * 2.0**-21).reshape(tuple(shape)).to(named_dtype(dtype).torch)


def tiny_checkpoint(
    path: Path | str,
    *,
    seed: int = 0,
    dtype: str = "bfloat16",
    shards: int = 1,
    tensors: Mapping[str, torch.Tensor | Sequence[int]] | None = None,
    config: Mapping[str, object] | None = None,
    tokenizer: bool = True,
) -> Path:
    """Write a small random checkpoint, a few kilobytes.

    Args:
        path: The directory, which is made.
        seed: Another one gives other weights.
        dtype: The dtype of the weights, as torch names it.
        shards: The number of files; several get an index.
        tensors: Tensors by name, or shapes that `tiny_tensor` fills (default: `TINY_SHAPES`).
        config: Added to `config.json`.
        tokenizer: Whether there is a `tokenizer.json`.

    Returns:
        The directory.
    """
    import torch
    from safetensors.torch import save_file

    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    state = {
        name: value if isinstance(value, torch.Tensor) else tiny_tensor(name, value, seed=seed, dtype=dtype)
        for name, value in (TINY_SHAPES if tensors is None else tensors).items()
    }
    names = sorted(state)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = WEIGHTS if shards == 1 else f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        shard = {name: state[name].clone(memory_format=torch.contiguous_format) for name in names[number::shards]}
        save_file(shard, path / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    if shards > 1:
        total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        _write_json(path / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})
    defaults = {"model_type": "tiny", "architectures": ["TinyForConditionalGeneration"], "dtype": dtype}
    _write_json(path / "config.json", {**defaults, **(config or {})})
    if tokenizer:
        _write_json(path / "tokenizer.json", _tokenizer())
    return path


def tiny_pool(
    folder: Path | str,
    count: int,
    *,
    dtype: str = "bfloat16",
    shards: int = 1,
    tensors: Mapping[str, torch.Tensor | Sequence[int]] | None = None,
    config: Mapping[str, object] | None = None,
    tokenizer: bool = True,
) -> Path:
    """Write a pool of tiny checkpoints `model-0`, `model-1`, ... with seeds 0, 1, ...

    Args:
        folder: The directory of the pool, which is made.
        count: The number of checkpoints.
        dtype: See `tiny_checkpoint`, as for the other arguments.
        shards: The number of files of each.
        tensors: Tensors or shapes by name.
        config: Added to each `config.json`.
        tokenizer: Whether each has a `tokenizer.json`.

    Returns:
        The folder, ready for `--pool` and `Pool.open`.
    """
    for seed in range(count):
        path = Path(folder) / f"model-{seed}"
        tiny_checkpoint(
            path, seed=seed, dtype=dtype, shards=shards, tensors=tensors, config=config, tokenizer=tokenizer
        )
    return Path(folder)


@contextmanager
def tiny_candidate(checkpoint: Path | str, scratch: Path | str) -> Iterator[SoupCandidate]:
    """Give a checkpoint as a candidate for an evaluator, for the time of a `with`.

    Args:
        checkpoint: Its directory.
        scratch: The directory for what the candidate writes; it is made.
    """
    with Pool([checkpoint]) as pool:
        (ingredient,) = pool
        digest = digest_checkpoint(ingredient.checkpoint)
        recipe = Recipe.uniform([ingredient.source()]).sealed([digest.content], side_digest(ingredient.checkpoint))
        candidate = SoupCandidate(recipe, pool, Path(scratch), [digest])
        candidate.scratch.mkdir(parents=True, exist_ok=True)
        try:
            yield candidate
        finally:
            candidate.remove()


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _tokenizer() -> dict[str, object]:
    """Make the content of a `tokenizer.json` of whole words, as the tokenizers library reads it."""
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
            | {"special": True}
            for i, word in enumerate(_WORDS[:3])
        ],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(_WORDS)}, "unk_token": "<pad>"},
    }
