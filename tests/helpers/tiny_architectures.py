"""Tiny configurations of vision-language models, as transformers itself has them: what the tests of merging build."""

from __future__ import annotations

from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

TEXT = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 32,
}
MROPE = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
QWEN_VISION = {"depth": 2, "num_heads": 4, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2}


def _two(text, vision, **more):
    return {"text_config": {"model_type": text, **TEXT}, "vision_config": {"model_type": vision, **VISION}, **more}


ARCHITECTURES = {
    "llava": _two("llama", "clip_vision_model", image_token_index=5),
    "llava_next": _two("llama", "clip_vision_model", image_token_index=5, image_grid_pinpoints=[[16, 16]]),
    "llava_onevision": _two(
        "qwen2", "siglip_vision_model", image_token_index=5, video_token_index=6, image_grid_pinpoints=[[16, 16]]
    ),
    "internvl": {
        "text_config": {"model_type": "qwen2", **TEXT},
        "vision_config": {**VISION, "image_size": [16, 16], "patch_size": [8, 8]},
        "image_token_id": 5,
    },
    "paligemma": _two("gemma", "siglip_vision_model", image_token_index=5, projection_dim=32),
    "gemma3": _two("gemma3_text", "siglip_vision_model", image_token_index=5, mm_tokens_per_image=4),
    "qwen2_vl": {
        "text_config": {**TEXT, "rope_parameters": MROPE},
        "vision_config": {**QWEN_VISION, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2},
        "image_token_id": 5,
    },
    "qwen2_5_vl": {
        "text_config": {**TEXT, "rope_parameters": MROPE},
        "vision_config": {
            **QWEN_VISION,
            "hidden_size": 32,
            "intermediate_size": 48,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "window_size": 16,
        },
        "image_token_id": 5,
    },
    "qwen3_vl": {
        "text_config": {**TEXT, "rope_parameters": MROPE},
        "vision_config": {
            **QWEN_VISION,
            "hidden_size": 32,
            "intermediate_size": 48,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        "image_token_id": 5,
    },
    "mistral3": _two("mistral", "pixtral", image_token_index=5, spatial_merge_size=2),
    "smolvlm": {"text_config": {"model_type": "llama", **TEXT}, "vision_config": VISION, "image_token_id": 5},
    "idefics3": {"text_config": {"model_type": "llama", **TEXT}, "vision_config": VISION, "image_token_id": 5},
    "blip-2": {
        "text_config": {
            "model_type": "opt",
            "vocab_size": 48,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 32,
        },
        "vision_config": VISION,
        "qformer_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "encoder_hidden_size": 32,
            "vocab_size": 48,
        },
        "num_query_tokens": 4,
        "image_token_index": 5,
    },
}


def tiny_model(name):
    """A freshly initialised model of that architecture; its weights come from torch's global seed."""
    config = CONFIG_MAPPING[name](**ARCHITECTURES[name])
    return AutoModelForImageTextToText.from_config(config)
