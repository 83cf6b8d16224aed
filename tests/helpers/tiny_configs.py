"""A tiny configuration of any class that transformers has, by the names of its fields: no architecture has a line here.

A class's default configuration is taken, with all configurations inside of it, and every number that makes a model
large is cut down. What belongs together stays together: a layer is kept for each kind of layer, and lists with an entry
for each layer follow, as do lists of layers; widths that have to agree are all one width.
"""

from __future__ import annotations

import dataclasses
import re

from transformers import PreTrainedConfig

MOST_LAYERS = 4
ROPE = {"rope_type": "default", "rope_theta": 10000.0}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the fields are cut down to, by the ends of their names; what is smaller by default stays."""

    layers: int = 2
    width: int = 64
    inner: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    experts: int = 4
    chosen: int = 2
    groups: int = 1
    vocabulary: int = 256
    queries: int = 4
    positions: int = 512
    patches: int = 4
    channels: int = 32
    fill_unset: bool = False
    """Whether fields that are None by default get a value: some classes can't be made without."""


ATTEMPTS = (Sizes(), Sizes(fill_unset=True), Sizes(heads=2, kv_heads=1, head_dim=128))
"""Sizes to try in turn: the last is for classes whose code has parts of a head's width as constants."""

ENDINGS = {
    "heads": r"heads",
    "head_dim": r"head_dim|dim_head|d_kv|rotary_dim",
    "inner": r"intermediate_size(_mlp)?|ffn_dim|d_ff|mlp_dim|expert_dim",
    "width": r"(hidden|input|output|latent)_sizes?|(hidden|embed|projection|proj|input|output|in|out)_dim|d_model|"
    r"d_rel|rank|lowrank|(in|mid|out|output)_channels|num_pos_feats",
    "channels": r"(base|latent)_channels",
    "experts": r"(num|routed|local)_experts",
    "chosen": r"experts_per_tok|moe_topk|moe_k|top_k_experts",
    "groups": r"n_group|topk_group|n_groups",
    "vocabulary": r"vocab_size(_per_layer_input|_base)?|num_embeddings|codebook_size",
    "queries": r"query_num|query_tokens|n_latents|num_latents",
    "positions": r"position_embeddings|source_positions|position_embedding_size",
}
LAYERS = r"layers|depth"
TOKENS = r"tokens?_(id|ids|index)|(start|end|newline|patch)_id"
LAYER_LISTS = r"indexes|indices|index|idxs|layers|layer_ids"
SEVERAL_PATCHES = r"num_position_embeddings|num_patches"
IMAGE_SIZES = r"(image|img)_size"
KV_HEADS = r"(kv|key_value|key)_heads"


def tiny_config(config_class, sizes=ATTEMPTS[0]):
    """The class's default configuration, cut down."""
    return config_class(**_Shrinker(sizes).shrink(config_class()))


def ends(pattern, name):
    return re.search(rf"(?:^|_)(?:{pattern})$", name) is not None


def is_token(name):
    """Whether a field of that name holds the number of a token."""
    return ends(TOKENS, name)


class _Shrinker:
    """Cuts down a configuration and those inside of it; the same token has the same number in all of them."""

    def __init__(self, sizes):
        self.sizes = sizes
        self.tokens = {}

    def shrink(self, config):
        default = {name: value for name, value in config.to_dict().items() if name != "transformers_version"}
        inside = {name: part for name, part in vars(config).items() if isinstance(part, PreTrainedConfig)}
        kept = _kept_layers(default, self.sizes.layers)
        tiny = {
            name: self.shrink(inside[name]) if name in inside else self.field(name, value, default, kept)
            for name, value in default.items()
        }
        if self.sizes.fill_unset:
            tiny |= self.unset_fields(config, tiny, len(kept))
        if "mrope_section" in getattr(config, "ignore_keys_at_rope_validation", ()):
            tiny["rope_parameters"] = _with_sections(tiny)
        return tiny

    def field(self, name, value, fields, kept):
        """A field's tiny value; `fields` are all of its configuration's by default, `kept` the layers that stay."""
        count = _layer_count(fields)
        if name == "per_layer_config" and value:
            changed = {int(layer): {**changes} for layer, changes in value.items()}
            return {
                i: self.numbers(changed[layer], {**fields, **changed[layer]}, kept)
                for i, layer in enumerate(kept)
                if layer in changed
            }
        if isinstance(value, dict):
            return {
                key: self.field(key, each, value, kept) if isinstance(key, str) else each for key, each in value.items()
            }
        if _lists_layers(name, value, count):
            return [i for i, layer in enumerate(kept) if layer in value] if count else list(range(len(kept)))
        if isinstance(value, (list, tuple)):
            each = [value[layer] for layer in kept] if count and len(value) == count else value
            return [self.number(name, number, fields, kept) for number in each]
        return self.number(name, value, fields, kept)

    def numbers(self, values, fields, kept):
        return {name: self.number(name, value, fields, kept) for name, value in values.items()}

    def number(self, name, value, fields, kept):
        if not isinstance(value, int) or isinstance(value, bool):
            return value
        if is_token(name):
            return value if value < 8 else self.tokens.setdefault(value, self.sizes.vocabulary - 1 - len(self.tokens))
        if ends("vision_feature_layer", name):
            return max(-len(kept), min(value, len(kept) - 1))
        return min(value, self.limit(name, value, fields, len(kept)))

    def limit(self, name, value, fields, layers):
        sizes = self.sizes
        if ends(LAYERS, name):
            return layers
        if ends(KV_HEADS, name):
            partner = re.sub(r"(kv|key_value)_heads$", "attention_heads", re.sub(r"key_heads$", "value_heads", name))
            return sizes.heads if value == fields.get(partner) else sizes.kv_heads
        if ends("head_dim", name) and fields.get("qk_rope_head_dim"):
            return self.latent_head_dim(value, fields)
        if ends(SEVERAL_PATCHES, name):
            return sizes.patches**2
        if ends(IMAGE_SIZES, name):
            patch = fields.get("patch_size")
            return sizes.patches * (patch if isinstance(patch, int) else patch[0] if patch else 16)
        for size, pattern in ENDINGS.items():
            if ends(pattern, name):
                return getattr(sizes, size)
        return value

    def latent_head_dim(self, value, fields):
        """Multi-head latent attention: a head has a part with and a part without positions."""
        parts = (fields["qk_rope_head_dim"], fields.get("qk_nope_head_dim"))
        is_part = value in parts and value != fields.get("qk_head_dim")
        return self.sizes.head_dim // 2 if is_part else self.sizes.head_dim

    def unset_fields(self, config, tiny, layers):
        """Values for fields that are None, by their names and types."""
        by_name = {
            "mlp_layer_types": [("sparse", "dense")[i % 2] for i in range(layers)],
            "layer_map": [[0, 0]],
            "vocabulary_map": {"<image>": 7},
            "image_token_(id|index)": 7,
            "video_token_(id|index)": 6,
            "rate": "1/2",
            "rope_parameters": {kind: {**ROPE} for kind in tiny.get("layer_types") or ()},
        }
        values = {
            field.name: self.unset_value(field, by_name, layers)
            for field in dataclasses.fields(config)
            if tiny.get(field.name, 0) in (None, {})
        }
        return {name: value for name, value in values.items() if value is not None}

    def unset_value(self, field, by_name, layers):
        for pattern, value in by_name.items():
            if ends(pattern, field.name):
                return value
        if is_token(field.name) or not str(field.type).startswith("int | None"):
            return None
        return 1 if ends(KV_HEADS, field.name) else self.limit(field.name, 0, {}, layers) or 4


def _layer_count(fields):
    """The number of layers of a configuration, 0 for one that has none of its own."""
    counts = [value for name, value in fields.items() if ends(LAYERS, name) and isinstance(value, int)]
    return max(counts, default=0)


def _lists_layers(name, value, count):
    """Whether a list holds the numbers of layers, rather than a value for each layer."""
    if not isinstance(value, list) or not value or not ends(LAYER_LISTS, name):
        return False
    if not all(isinstance(number, int) for number in value) or (count and max(value) >= count):
        return False
    return value == sorted(set(value))


def _kept_layers(fields, least):
    """The layers that stay, up to four: the first of each kind, as far as the lists of a configuration tell kinds."""
    count = _layer_count(fields)
    each_layer = [value for value in fields.values() if isinstance(value, list) and count and len(value) == count]
    some_layers = [value for name, value in fields.items() if _lists_layers(name, value, count) and len(value) != count]
    kinds = {}
    for layer in range(count):
        kind = [str(values[layer]) for values in each_layer] + [str(layer in values) for values in some_layers]
        kinds.setdefault(tuple(kind), layer)
    listed = [layer for values in some_layers for layer in values]
    wanted = list(dict.fromkeys([*kinds.values(), *listed]))[:MOST_LAYERS]
    others = [layer for layer in range(count or least) if layer not in wanted]
    return sorted(wanted + others[: max(0, least - len(wanted))])


def _with_sections(tiny):
    """Rotary parameters whose sections (time, height, width) are as long as the tiny head's rotation."""
    rope = dict(tiny.get("rope_parameters") or {})
    if rope and all(isinstance(value, dict) for value in rope.values()):
        return {kind: _with_sections({**tiny, "rope_parameters": value}) for kind, value in rope.items()}
    head_dim = tiny.get("head_dim") or tiny["hidden_size"] // tiny["num_attention_heads"]
    rotated = int(head_dim * (rope.get("partial_rotary_factor") or 1)) // 2
    first = (rotated + 1) // 3
    return {**ROPE, **rope, "mrope_section": [first, first, rotated - 2 * first]}
