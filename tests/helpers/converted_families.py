"""Every vision-language family whose tensors transformers converts on loading, tiny: its own defaults, made small."""

from __future__ import annotations

import inspect

from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

SIZES = {
    **dict.fromkeys(("hidden_size", "embed_dim", "d_model", "dim", "output_dim"), 32),
    **dict.fromkeys(("out_hidden_size", "text_hidden_size", "adapter_in_dim", "adapter_out_dim"), 32),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "mlp_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "depth", "num_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "num_key_value_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "kv_lora_rank", "q_lora_rank"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "index_n_heads"), 4),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "num_position_embeddings"), 16),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "spatial_merge_size", "temporal_patch_size"), 2),
    **dict.fromkeys(("index_topk", "index_block_size", "init_pos_emb_height", "init_pos_emb_width"), 4),
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "image_size": 16,
    "patch_size": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "adapter_input_size": 32,
}
"""Attributes of configurations, whatever the family; each takes what it has of them."""

MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
TWO_KINDS = {"mlp_layer_types": ["dense", "sparse"]}
ATTENTION = {"layer_types": ["linear_attention", "full_attention"]}

CONVERTED = {
    "deepseek_ocr2": {"text_config": TWO_KINDS},
    "dots3_note": {"vision_config": TWO_KINDS},
    "ernie4_5_vl_moe": {"text_config": {"moe_intermediate_size": [16, 8], "rope_parameters": MROPE}},
    "glm4v_moe": {"text_config": {"head_dim": 16, "rope_parameters": MROPE}},
    "glm5_next": {
        "text_config": {**TWO_KINDS, "layer_types": ["linear_attention", "indexed_attention"]}
        | {"index_kpool": 4, "qk_rope_head_dim": 0, "linear_head_dim": 8, "linear_num_heads": 4}
    },
    "inkling2": {},
    "inkling_mm_model": {},
    "kimi_k25": {},
    "minimax_m3_vl": {},
    "mistral_large4": {},
    "molmo2": {"vision_config": {"image_size": [16, 16]}, "adapter_config": {"vision_feature_layer": [-1, -2]}},
    "qianfan_ocr": {},
    "qwen3_5_moe": {"text_config": {**ATTENTION, "num_experts": 12}},  # sorted as text, 10 comes before 2
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 4},
    "qwen3_vl_moe": {},
    "qwen4_exp": {
        "text_config": ATTENTION
        | {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8}
        | {"indexer_budget": 4, "indexer_compress_ratio": 2}
    },
    "step3p7": {"text_config": {"sliding_window": 8}},
    "unlimited_ocr": {},
}
CONVERTED = {family: more for family, more in CONVERTED.items() if family in CONFIG_MAPPING}
"""By family, what its parts have besides `SIZES`; of an older transformers, those that it has."""


def tiny_converted(family):
    """A freshly initialised model of that family; its weights come from torch's global seed."""
    config = CONFIG_MAPPING[family](**_small(CONFIG_MAPPING[family], CONVERTED[family]))
    return AutoModelForImageTextToText.from_config(config)


def _small(kind, more):
    """The arguments that make a configuration of that class small, and those of its parts."""
    fields = {name for base in kind.__mro__ for name in inspect.get_annotations(base)}
    small = {name: size for name, size in SIZES.items() if name in fields}
    tokens = sorted(name for name in fields - small.keys() if name.endswith(("_token_id", "_token_index")))
    small |= {name: index for index, name in enumerate(tokens, start=5)}
    whole = kind()
    for name in getattr(kind, "sub_configs_defaults", None) or kind.sub_configs:  # as older versions call them
        part = type(getattr(whole, name))
        small[name] = {**_small(part, more.get(name, {})), "model_type": part.model_type}
    return {**small, **{name: value for name, value in more.items() if not isinstance(small.get(name), dict)}}
