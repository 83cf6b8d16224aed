"""Configurations by name, of the sizes that were published, from those of their parts.

    tiny    1.3 M parameters, two encoders on tiles of 32 pixels: learns on a CPU in a minute
    0.5b    Qwen2.5-0.5B and two CLIP-L/14 at 336 pixels
    7b      Qwen2.5-7B and the same: POINTS-Qwen-2.5-7B
    9b      Yi-1.5-9B and the same: POINTS-Yi-1.5-9B

The weights that go with them: `soup assemble` from pretrained parts, `soup convert-points` from published ones.

Source: the parts' own configurations; POINTS, arXiv 2409.04828, section 4.1, for which they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune.points.config import PointsConfig
from finetune.points.tiny import tiny_config, tiny_tokenizer
from soup.errors import FinetuneError
from soup.support.text import did_you_mean

__all__ = ["PRESETS", "preset_config"]

_CLIP_L_14_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}

_QWEN = {"model_type": "qwen2", "rms_norm_eps": 1e-6, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
_QWEN_TOKENS = {"bos_token_id": None, "eos_token_id": 151645, "pad_token_id": 151643}  # <|im_end|>, <|endoftext|>
_QWEN_IMAGE_TOKEN = 151655

_QWEN_0_5B = {
    **_QWEN,
    **_QWEN_TOKENS,
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}

_QWEN_7B = {
    **_QWEN,
    **_QWEN_TOKENS,
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}

_YI_TOKENS = {"bos_token_id": 1, "eos_token_id": 7, "pad_token_id": 0}  # <|im_end|> ends an answer
_YI_9B: dict[str, Any] = {
    **_YI_TOKENS,
    "model_type": "llama",
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e6},
    "vocab_size": 64000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


def _tiny() -> PointsConfig:
    tokenizer = tiny_tokenizer()
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return tiny_config(len(tokenizer), image, tokenizer.pad_token_id, tokenizer.eos_token_id)


def _two_clips(text: dict[str, Any], image_token_id: int) -> PointsConfig:
    return PointsConfig(
        general_config=dict(_CLIP_L_14_336),
        ocr_config=dict(_CLIP_L_14_336),
        text_config=dict(text),
        image_token_id=image_token_id,
        eos_token_id=text["eos_token_id"],
        pad_token_id=text["pad_token_id"],
    )


PRESETS: dict[str, Callable[[], PointsConfig]] = {
    "tiny": _tiny,
    "0.5b": lambda: _two_clips(_QWEN_0_5B, _QWEN_IMAGE_TOKEN),
    "7b": lambda: _two_clips(_QWEN_7B, _QWEN_IMAGE_TOKEN),
    # Yi's vocabulary has no image token: its last row stands in until a tokenizer adds one.
    "9b": lambda: _two_clips(_YI_9B, _YI_9B["vocab_size"] - 1),
}


def preset_config(name: str) -> PointsConfig:
    """Give the configuration of a size.

    Raises:
        FinetuneError: no size of that name.
    """
    if name not in PRESETS:
        raise FinetuneError(f"Unknown preset '{name}'.{did_you_mean(name, PRESETS)}")
    return PRESETS[name]()
