"""Packing for models of other families than POINTS: several rows in one sequence, each blind to the others.

Positions begin at 0 with each row, and there is no attention mask: from that transformers makes one in which each row
attends to itself alone (for flash attention, cumulative lengths). Models that place the tokens of a picture in height
and width (Qwen2-VL's mrope) get four rows of positions, those of the text first: transformers parts rows by them, and
turns queries and keys by the other three, which are those of each row by itself.

Only families for which a test holds packed rows against each alone are packed; others are refused by name. So are, for
instance, models that look at a whole picture at once by a mask of their own (Gemma3), which would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from finetune.data import IGNORED
from soup.errors import FinetuneError

__all__ = ["PACKED", "Positions", "is_of_text", "pack", "positions_of"]

PACKED = ("idefics3", "internvl", "llava", "llava_onevision", "qwen2_5_vl", "qwen2_vl", "qwen3_vl")
"""The `model_type` of families whose rows may be packed."""

Batch = dict[str, Tensor]
Positions = Callable[[Batch], Tensor]
"""Gives the positions of one row's tokens."""


def positions_of(model: Any) -> Positions:
    """Give what tells the positions of a row in a pack, for a model.

    Raises:
        FinetuneError: its family is none whose rows may be packed.
    """
    if model.config.model_type not in PACKED:
        raise FinetuneError(
            f"packing: not for a {type(model).__name__}: that its rows would not see each other is known of POINTS, "
            f"{', '.join(PACKED)}."
        )
    rope_index = getattr(getattr(model, "model", None), "get_rope_index", None)
    return _plain if rope_index is None else lambda row: _in_three_dimensions(row, rope_index)


def _plain(row: Batch) -> Tensor:
    return torch.arange(row["input_ids"].shape[1])[None]


def _in_three_dimensions(row: Batch, rope_index: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:
    """Return the positions of the text, then those of time, height and width [4, 1, S]."""
    text_1S = _plain(row)
    if "image_grid_thw" not in row:
        return text_1S.expand(4, 1, -1)
    inputs = {name: row[name] for name in ("input_ids", "mm_token_type_ids", "image_grid_thw")}
    places_31S, _ = rope_index(**inputs)
    return torch.cat([text_1S[None], places_31S])


def is_of_text(tensor: Tensor, row: Batch) -> bool:
    """Whether a tensor has a number for each token of a row."""
    return tensor.shape == row["input_ids"].shape


def pack(
    rows: list[Batch], positions: Positions, concatenate: Callable[[list[Tensor]], Tensor]
) -> dict[str, Tensor | bool]:
    """Give all rows one after another [1, S]; a row's first token is not to be learnt from the row before.

    Args:
        rows: as a processor makes them, each [1, S].
        positions: of a row.
        concatenate: joins what is of the rows' images.
    """
    packed: dict[str, list[Tensor]] = {}
    of_text = {name for row in rows for name, tensor in row.items() if is_of_text(tensor, row)}
    for row in rows:
        row["labels"][:, 0] = IGNORED
        for name, tensor in row.items():
            packed.setdefault(name, []).append(tensor)
    # What one row has of its text and another has not (no picture, no types of tokens) is 0 there.
    for name in of_text:
        packed[name] = [row.get(name, torch.zeros_like(row["input_ids"])) for row in rows]
    packed.pop("attention_mask", None)
    batch = {
        name: torch.cat(tensors, dim=1) if name in of_text else concatenate(tensors) for name, tensors in packed.items()
    }
    batch["position_ids"] = torch.cat([positions(row) for row in rows], dim=-1)
    return {**batch, "use_cache": False}  # with a cache, transformers looks for no packed rows
