"""Where a tensor stands in its model, by names alone: the kind of component, and the block's place in its stack.

There is no table of architectures. A vision tower, a projector and a language model are told apart by the words that
their authors give them; blocks are counted by the numbers in the names (`layers.3.`), each stack for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

__all__ = ["COMPONENTS", "Component", "Place", "component_kind", "places_of"]

Component = Literal["vision", "projector", "llm", "embeddings", "other"]
COMPONENTS: tuple[Component, ...] = get_args(Component)

_WORDS: tuple[
    tuple[Component, str], ...
] = (  # in this order: a projector may stand within the tower, and a tower within the model
    (
        "projector",
        r"projectors?|projection|modality_projection|connectors?|mergers?|\w*_merger_list|aligner|resampler|perceiver"
        r"|mm_\w+|mlp1|\w*_projector|vision_proj|visual_projection|img_projection\w*|adaptor"
        r"|vision_embed_tokens(?!\.img_processor)|vision2text\w*|qformer|language_projection|abstractor|linear_proj",
    ),
    ("other", r"audio\w*|speech\w*|\w*_audio|apm|tts|codec|vocoder|talker|token2wav|gen_\w+|action\w*"),
    (
        "vision",
        r"visual|visual_tokenizer|vision\w*|\w*_vision|\w*_vision_tower|vpm|vit|image\w*|siglip\w*|clip\w*"
        r"|dinov?\d*|sam|eva\w*|pixel\w*|vqmodel|\w*vit",
    ),
    (
        "embeddings",
        r"embed_tokens\w*|lm_head|wte|tok_embeddings|word_embeddings|embed_in|embed_out|output_embeddings|shared"
        r"|^output|language_model\.output|transformer\.(?:ff_out|output_layer)",
    ),
    ("llm", r"language_model|text_model|llm|lm|transformer|decoder|layers|backbone|norm|h|gpt_neox|head"),
)
_KINDS = [(kind, re.compile(rf"(?:^|\.)(?:{words})(?:\.|$)")) for kind, words in _WORDS]
_BLOCK = re.compile(r"(?:^|\.)(?:\w*layers?|\w*blocks?|h|\w*_list)\.(\d+)(?:\.|$)")


class Place(NamedTuple):
    """A tensor's component, and its block's index of how many; block and blocks are 0 outside of blocks."""

    component: Component
    block: int = 0
    blocks: int = 0


def component_kind(name: str) -> Component:
    """Return the kind of component that a tensor belongs to, by the words of its name."""
    return next((kind for kind, pattern in _KINDS if pattern.search(name)), "other")


def places_of(names: Iterable[str]) -> dict[str, Place]:
    """Return each tensor's place; blocks are counted per stack: what stands before the number in the name."""
    names = list(names)
    stacks: dict[str, int] = {}
    matches = {name: _BLOCK.search(name) for name in names}
    for name, match in matches.items():
        if match:
            stack = name[: match.start(1)]
            stacks[stack] = max(stacks.get(stack, 0), int(match[1]) + 1)
    return {
        name: Place(component_kind(name), int(match[1]), stacks[name[: match.start(1)]])
        if match
        else Place(component_kind(name))
        for name, match in matches.items()
    }
