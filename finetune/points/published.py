"""The published v1 checkpoints (POINTS-Qwen-2-5-7B-Chat, POINTS-Yi-1-5-9B-Chat) and ours, name by name, both ways.

What is published is the same model under other names, and its language model fuses matrices that ours keeps apart:

    published                                             ours
    general_vit.vision_model.*, ocr_vit.vision_model.*    general_vit.*, ocr_vit.*
    vision_projector.0, vision_projector.2                the same
    llm.lm.embed_in, llm.lm.final_layer_norm              llm.model.embed_tokens, llm.model.norm
    llm.embed_out                                         llm.lm_head
    llm.lm.layers.i.*_layernorm                           llm.model.layers.i.*_layernorm
      attention.query_dense, attention.dense                self_attn.q_proj, self_attn.o_proj
      attention.key_value_dense                             self_attn.k_proj, v_proj: a head of each by turns
      attention.query_key_value (as many keys as heads)     self_attn.q_proj, k_proj, v_proj: a head of each by turns
      mlp.dense_h_to_4h, mlp.dense_4h_to_h                  mlp.up_proj above mlp.gate_proj, mlp.down_proj

Queries and keys are rotated alike in both, so that no row within a head moves.

Source: the modelling code that is published with the weights (facts of names and shapes only).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from finetune.points.config import PointsConfig

__all__ = ["PublishedRows", "published_names"]


@dataclass(frozen=True)
class PublishedRows:
    """Some of a published tensor's rows.

    The rows come in `groups` of `blocks` equal blocks; block `block` of each group is meant. A whole tensor is the
    only block of its only group.
    """

    name: str
    block: int = 0
    blocks: int = 1
    groups: int = 1

    def runs(self, rows: int, columns: int) -> list[tuple[int, int]]:
        """Give the (first element, number of elements) of each block in the published tensor of `rows` rows."""
        size = rows // (self.blocks * self.groups) * columns
        return [((group * self.blocks + self.block) * size, size) for group in range(self.groups)]


_RENAMED = {
    "llm.model.embed_tokens.": "llm.lm.embed_in.",
    "llm.model.norm.": "llm.lm.final_layer_norm.",
    "llm.model.layers.": "llm.lm.layers.",
    "llm.lm_head.": "llm.embed_out.",
    "general_vit.": "general_vit.vision_model.",
    "ocr_vit.": "ocr_vit.vision_model.",
    "vision_projector.": "vision_projector.",
}


def published_names(names: list[str], config: PointsConfig) -> dict[str, PublishedRows]:
    """Give where each of our tensors is in a published checkpoint.

    Raises:
        KeyError: a name that no model of this family has.
    """
    return {name: _published(name, config.text_config) for name in names}


def _published(name: str, text: Any) -> PublishedRows:
    begin = next((begin for begin in _RENAMED if name.startswith(begin)), None)
    if begin is None:
        raise KeyError(name)
    renamed = _RENAMED[begin] + name.removeprefix(begin)
    match = re.fullmatch(r"(.*\.layers\.\d+\.)(self_attn|mlp)\.(\w+)_proj\.(weight|bias)", renamed)
    if not match or not name.startswith("llm."):
        return PublishedRows(renamed)
    layer, _, kind, last = match.groups()
    heads, keys = text.num_attention_heads, text.num_key_value_heads
    if heads == keys and kind in "qkv":
        return PublishedRows(f"{layer}attention.query_key_value.{last}", "qkv".index(kind), 3, heads)
    rows_of = {
        "q": ("attention.query_dense", 0, 1, 1),
        "k": ("attention.key_value_dense", 0, 2, keys),
        "v": ("attention.key_value_dense", 1, 2, keys),
        "o": ("attention.dense", 0, 1, 1),
        "up": ("mlp.dense_h_to_4h", 0, 2, 1),
        "gate": ("mlp.dense_h_to_4h", 1, 2, 1),
        "down": ("mlp.dense_4h_to_h", 0, 1, 1),
    }
    stem, block, blocks, groups = rows_of[kind]
    return PublishedRows(f"{layer}{stem}.{last}", block, blocks, groups)
