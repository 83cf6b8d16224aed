"""Tiny checkpoints as POINTS v1 was published, and what its language model computes, written out."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file
from torch.nn.functional import linear, silu
from transformers import CLIPVisionConfig, CLIPVisionModel

from tests.helpers.tiny_points import TOKENIZER

VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
FAMILIES = {
    "qwen": {"num_kv_heads": 2, "qkv_proj_bias": True, "rotary_emb_base": 1000000},
    "yi": {"num_kv_heads": 2, "qkv_proj_bias": False, "rotary_emb_base": 5000000},
    "as many keys as heads": {"num_kv_heads": 4, "qkv_proj_bias": True, "rotary_emb_base": 10000},
}


def published_config(family, **more):
    """What config.json of a published checkpoint says."""
    return {
        "architectures": ["POINTSChatModel"],
        "auto_map": {"AutoModelForCausalLM": "modeling_points_chat.POINTSChatModel"},
        "model_type": "points_chat",
        "torch_dtype": "bfloat16",
        "vision_config": dict(VISION),
        "llm_config": {
            "model_type": "custom_llama",
            "vocab_size": len(TOKENIZER),
            "hidden_size": 48,
            "num_layers": 2,
            "num_attention_heads": 4,
            "ffn_hidden_size": 56,
            "hidden_act": "swiglu",
            "norm_type": "rms_norm",
            "layernorm_epsilon": 1e-6,
            "max_position_embeddings": 256,
            "out_proj_bias": False,
            "mlp_fc1_bias": False,
            "mlp_fc2_bias": False,
            "tie_word_embeddings": False,
            **FAMILIES[family],
            **more,
        },
    }


def published_shapes(config):
    """Every published name with its shape, from the facts of the published code."""
    llm = config["llm_config"]
    D, heads, keys, F = (llm[key] for key in ("hidden_size", "num_attention_heads", "num_kv_heads", "ffn_hidden_size"))
    head = D // heads
    with torch.device("meta"):
        vision = CLIPVisionModel(CLIPVisionConfig(**config["vision_config"]))
    shapes = {
        f"{vit}.vision_model.{name}": tuple(tensor.shape)
        for vit in ("general_vit", "ocr_vit")
        for name, tensor in vision.state_dict().items()
    }
    shapes |= {"llm.lm.embed_in.weight": (llm["vocab_size"], D), "llm.lm.final_layer_norm.weight": (D,)}
    for i in range(llm["num_layers"]):
        layer = f"llm.lm.layers.{i}"
        shapes |= {f"{layer}.{name}_layernorm.weight": (D,) for name in ("input", "post_attention")}
        rows = {"query_dense": heads * head, "key_value_dense": 2 * keys * head}
        for name, count in ({"query_key_value": 3 * D} if keys == heads else rows).items():
            shapes[f"{layer}.attention.{name}.weight"] = (count, D)
            if llm["qkv_proj_bias"]:
                shapes[f"{layer}.attention.{name}.bias"] = (count,)
        shapes[f"{layer}.attention.dense.weight"] = (D, D)
        shapes |= {f"{layer}.mlp.dense_h_to_4h.weight": (2 * F, D), f"{layer}.mlp.dense_4h_to_h.weight": (D, F)}
    if not llm["tie_word_embeddings"]:
        shapes["llm.embed_out.weight"] = (llm["vocab_size"], D)
    wide = 4 * config["vision_config"]["hidden_size"]
    return shapes | {
        "vision_projector.0.weight": (D, wide),
        "vision_projector.0.bias": (D,),
        "vision_projector.2.weight": (D, D),
        "vision_projector.2.bias": (D,),
    }


def publish(folder, family="qwen", *, files=3, dtype=torch.bfloat16, **more):
    """A published checkpoint in `folder`; gives its tensors."""
    folder.mkdir(parents=True)
    config = published_config(family, **more)
    generator = torch.Generator().manual_seed(7)
    tensors = {
        name: (torch.randn(shape, generator=generator) * 0.2 + (1.0 if "norm" in name else 0.0)).to(dtype)
        for name, shape in published_shapes(config).items()
    }
    names, weight_map = list(tensors), {}
    for i in range(files):
        file = f"model-{i + 1:05d}-of-{files:05d}.safetensors" if files > 1 else "model.safetensors"
        some = names[i * len(names) // files : (i + 1) * len(names) // files]
        save_file({name: tensors[name] for name in some}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(some, file)
    if files > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2] * 3})
    )
    (folder / "modeling_points_chat.py").write_text("raise ImportError('code of a checkpoint was run')\n")
    TOKENIZER.save_pretrained(folder)
    return tensors


def published_logits(tensors, config, x):
    """Logits [S, vocabulary] of embedded tokens, by the published language model's own arithmetic."""
    llm = config["llm_config"]
    D, heads, keys = llm["hidden_size"], llm["num_attention_heads"], llm["num_kv_heads"]
    S, head = len(x), D // heads
    weight = {name.removeprefix("llm."): tensor.to(x.dtype) for name, tensor in tensors.items()}
    angle = torch.arange(S)[:, None] * llm["rotary_emb_base"] ** (-torch.arange(0, head, 2, dtype=x.dtype) / head)
    angle = torch.cat([angle, angle], 1)[:, None]

    def norm(x, name):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + llm["layernorm_epsilon"]) * weight[f"{name}.weight"]

    def dense(x, name):
        return linear(x, weight[f"{name}.weight"], weight.get(f"{name}.bias"))

    def rotate(x):
        half = torch.cat([-x[..., head // 2 :], x[..., : head // 2]], -1)
        return x * angle.cos() + half * angle.sin()

    def attend(x, name):
        if keys == heads:
            q, k, v = dense(x, f"{name}.query_key_value").view(S, heads, 3 * head).split(head, -1)
        else:
            q = dense(x, f"{name}.query_dense").view(S, heads, head)
            k, v = dense(x, f"{name}.key_value_dense").view(S, keys, 2 * head).split(head, -1)
            k, v = (part.repeat_interleave(heads // keys, 1) for part in (k, v))
        scores = torch.einsum("qhd,khd->hqk", rotate(q), rotate(k)) / head**0.5
        scores = scores.masked_fill(torch.ones(S, S).triu(1).bool(), float("-inf")).softmax(-1)
        return dense(torch.einsum("hqk,khd->qhd", scores, v).reshape(S, D), f"{name}.dense")

    for i in range(llm["num_layers"]):
        x = x + attend(norm(x, f"lm.layers.{i}.input_layernorm"), f"lm.layers.{i}.attention")
        wide = dense(norm(x, f"lm.layers.{i}.post_attention_layernorm"), f"lm.layers.{i}.mlp.dense_h_to_4h")
        up, gate = wide.chunk(2, -1)
        x = x + dense(up * silu(gate), f"lm.layers.{i}.mlp.dense_4h_to_h")
    head_name = "embed_out.weight" if "embed_out.weight" in weight else "lm.embed_in.weight"
    return linear(norm(x, "lm.final_layer_norm"), weight[head_name])
