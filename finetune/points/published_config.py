"""The configuration of a published v1 checkpoint and ours, field by field, both ways.

The published language model has a configuration of its own (`custom_llama`), of which Qwen2's and Llama's are special
cases; what neither can express is refused.

Source: the modelling code that is published with the weights (facts of names and defaults only).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import CLIPVisionConfig, PreTrainedConfig

from finetune.points.config import PointsConfig
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["from_published_config", "refuse_unpublished", "to_published_config"]

# Which of the three groups of linear layers have a bias: (query, key, value), (attention's output), the MLP's two.
_FAMILIES: dict[tuple[bool, ...], dict[str, Any]] = {
    (True, False, False): {"model_type": "qwen2"},
    (False, False, False): {"model_type": "llama"},
    (True, True, False): {"model_type": "llama", "attention_bias": True},
    (False, False, True): {"model_type": "llama", "mlp_bias": True},
    (True, True, True): {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
}

_PLAIN = {  # ours: published
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "ffn_hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_kv_heads",
    "max_position_embeddings": "max_position_embeddings",
    "rms_norm_eps": "layernorm_epsilon",
    "initializer_range": "initializer_range",
}

# The published configuration class's values of fields that its file leaves out.
_DEFAULTS = {
    "vocab_size": 102400,
    "hidden_size": 2560,
    "ffn_hidden_size": 10240,
    "num_layers": 32,
    "num_attention_heads": 20,
    "num_kv_heads": 4,
    "max_position_embeddings": 4096,
    "layernorm_epsilon": 1e-5,
    "initializer_range": 0.02,
}


def from_published_config(published: dict[str, Any], image_token_id: int, *, tied: bool, **tokens: Any) -> PointsConfig:
    """Make our configuration of a published one.

    Args:
        published: the published `config.json`.
        image_token_id: of the tokenizer.
        tied: the file has no head of its own.
        tokens: `eos_token_id` and `pad_token_id`.

    Raises:
        FinetuneError: not POINTS v1, or settings that ours can't express; all are listed.
    """
    refuse_unpublished(published)
    llm, vision = published["llm_config"], dict(published["vision_config"])
    wrong = [
        f"llm_config.{key}: expected {' or '.join(map(str, expected))}, found {value!r}"
        for key, value, expected in (
            ("hidden_act", llm.get("hidden_act", "swiglu"), ("swiglu",)),
            ("norm_type", _norm_type(llm), ("rms_norm",)),
            ("rotary_pct", llm.get("rotary_pct", 1.0), (1.0,)),
            ("rotary_compress", llm.get("rotary_compress", 1.0), (1.0,)),
            ("biases (qkv, out, mlp)", _biases(llm), tuple(_FAMILIES)),
        )
        if value not in expected
    ]
    if vision.get("model_type", "clip_vision_model") != "clip_vision_model":
        wrong.append(f"vision_config.model_type: expected clip_vision_model, found {vision['model_type']!r}")
    if wrong:
        raise FinetuneError(f"A POINTS v1 configuration with settings that are not known here:\n{bullet_list(wrong)}")
    return PointsConfig(
        general_config={**vision, "model_type": "clip_vision_model"},
        ocr_config={**vision, "model_type": "clip_vision_model"},
        text_config=_text_config(llm, tied, tokens),
        image_token_id=image_token_id,
        **tokens,
    )


def refuse_unpublished(published: dict[str, Any], where: str = "config.json") -> None:
    """Refuse a configuration that is not POINTS v1's.

    Args:
        published: the `config.json`.
        where: its name in errors.

    Raises:
        FinetuneError: with what was expected and what is there.
    """
    kind = published.get("model_type")
    if kind == "pointsv1.5_chat":
        raise FinetuneError(
            f"{where}: model_type pointsv1.5_chat: POINTS 1.5 is another model: one encoder that takes images of "
            "any size (Qwen2-VL's) in place of two on tiles, and another projector. Only v1 (points_chat) can be "
            "converted."
        )
    absent = [key for key in ("vision_config", "llm_config") if not isinstance(published.get(key), dict)]
    if kind != "points_chat" or absent:
        also = f", and no {' and no '.join(absent)}" if absent and kind == "points_chat" else ""
        ours = " It is of this family already: --reverse makes the published form of it." if kind == "points" else ""
        raise FinetuneError(
            f"{where}: expected model_type points_chat with a vision_config and an llm_config (POINTS v1, as in "
            f"WePOINTS/POINTS-Qwen-2-5-7B-Chat), found {kind!r}{also}.{ours}"
        )


def _norm_type(llm: dict[str, Any]) -> str:
    if llm.get("rms_norm") is not None:
        return "rms_norm" if llm["rms_norm"] else "layer_norm"
    return llm.get("norm_type", "layer_norm")


def _biases(llm: dict[str, Any]) -> tuple[bool, ...]:
    qkv, out, up, down = (
        bool(llm.get(key, True)) for key in ("qkv_proj_bias", "out_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias")
    )
    return (qkv, out, up) if up == down else (qkv, out, up, down)


def _text_config(llm: dict[str, Any], tied: bool, tokens: dict[str, Any]) -> dict[str, Any]:
    return {
        **{ours: llm.get(theirs, _DEFAULTS[theirs]) for ours, theirs in _PLAIN.items()},
        **_FAMILIES[_biases(llm)],
        "rope_parameters": {"rope_type": "default", "rope_theta": float(llm.get("rotary_emb_base", 10000))},
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "bos_token_id": llm.get("bos_token_id", 0),
        **tokens,
    }


def to_published_config(config: PointsConfig) -> dict[str, Any]:
    """Make the published form of our configuration, as far as names and shapes go.

    Raises:
        FinetuneError: a model that the published form has no place for; every reason is listed.
    """
    text: PreTrainedConfig = config.text_config  # a mapping no longer, once the whole is built
    wrong = list(_misfits(config))
    if wrong:
        raise FinetuneError(f"The published form of POINTS v1 has no place for this model:\n{bullet_list(wrong)}")
    has_qkv = text.model_type == "qwen2" or text.attention_bias
    vision = config.vision_configs["general_vit"].to_diff_dict()
    for key in ("dtype", "transformers_version", "architectures", "_name_or_path"):
        vision.pop(key, None)
    return {
        "architectures": ["POINTSChatModel"],
        "model_type": "points_chat",
        "vision_config": vision,
        "llm_config": {
            "model_type": "custom_llama",
            **{theirs: getattr(text, ours) for ours, theirs in _PLAIN.items()},
            "hidden_act": "swiglu",
            "norm_type": "rms_norm",
            "rotary_pct": 1.0,
            "rotary_compress": 1.0,
            "rotary_emb_base": text.rope_parameters["rope_theta"],
            "qkv_proj_bias": has_qkv,
            "out_proj_bias": text.model_type == "llama" and text.attention_bias,
            "mlp_fc1_bias": text.model_type == "llama" and text.mlp_bias,
            "mlp_fc2_bias": text.model_type == "llama" and text.mlp_bias,
            "bos_token_id": text.bos_token_id,
            "eos_token_id": text.eos_token_id,
            "tie_word_embeddings": config.tie_word_embeddings,
        },
    }


def _misfits(config: PointsConfig) -> Iterator[str]:
    text: PreTrainedConfig = config.text_config
    encoders = list(config.vision_configs.values())
    if [type(encoder) for encoder in encoders] != [CLIPVisionConfig] * 2:
        yield f"expected two CLIP encoders, found {', '.join(encoder.model_type for encoder in encoders)}"
    elif encoders[0].to_diff_dict() != encoders[1].to_diff_dict():
        yield "expected two encoders of one configuration, found two that differ"
    expected = {"connector": "shuffle", "shuffle": 2, "vision_feature_layer": -2, "merge_weights": [0.5, 0.5]}
    for key, value in expected.items():
        if getattr(config, key) != value:
            yield f"{key}: expected {value}, found {getattr(config, key)}"
    if text.model_type not in ("qwen2", "llama"):
        yield f"text_config.model_type: expected qwen2 or llama, found {text.model_type}"
        return
    if text.rope_parameters.get("rope_type", "default") != "default":
        yield f"text_config.rope_parameters: expected the default, found {text.rope_parameters}"
    if getattr(text, "use_sliding_window", False):
        yield "text_config.use_sliding_window: expected false, found true"
    if (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads) * text.num_attention_heads != (
        text.hidden_size
    ):
        yield f"text_config.head_dim: expected {text.hidden_size // text.num_attention_heads}, found {text.head_dim}"
