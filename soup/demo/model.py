"""A LLaVA of some ten thousand numbers, as transformers reads it, and its answers in plain torch.

Its vision tower averages squares of a picture, its projector holds all that is learnt, and its other layers hand on
what they get: their last matrices are zero. So the answer to a picture at the end of a prompt is a few lines of torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from soup.demo.pictures import ANSWERS, SIDE
from soup.testing.tiny_checkpoints import tiny_checkpoint, tiny_tensor

if TYPE_CHECKING:
    import torch

__all__ = ["FIRST_ANSWER", "HIDDEN", "LEARNT", "answer_logits", "frozen_tensors", "projected", "save_model"]

SQUARES = 48  # 4 x 4 of each of 3 colours
HIDDEN, INNER, TOKENS = 128, 16, 64
_SPECIAL = ("<pad>", "<eos>", "<image>")
WORDS = (*_SPECIAL, "what", "?", *ANSWERS, *(word for words in ANSWERS.values() for word in words))
FIRST_ANSWER = WORDS.index("red")

LEARNT = "model.multi_modal_projector.linear_2.weight"
_TOWER, _PROJECTOR, _LANGUAGE = "model.vision_tower.", "model.multi_modal_projector.", "model.language_model."
_PATCHES, _HEAD = f"{_TOWER}embeddings.patch_embedding.weight", "lm_head.weight"
_WORDS = f"{_LANGUAGE}embed_tokens.weight"
_BLOCK, _LAYER = f"{_TOWER}encoder.layers.0.", f"{_LANGUAGE}layers.0."

SHAPES: Mapping[str, tuple[int, ...]] = {
    f"{_TOWER}embeddings.class_embedding": (SQUARES,),
    _PATCHES: (SQUARES, 3, SIDE, SIDE),
    f"{_TOWER}embeddings.position_embedding.weight": (2, SQUARES),
    **{
        f"{_TOWER}{norm}.{part}": (SQUARES,)
        for norm in ("pre_layrnorm", "post_layernorm")
        for part in ("weight", "bias")
    },
    **{f"{_BLOCK}self_attn.{name}.weight": (SQUARES, SQUARES) for name in ("q_proj", "k_proj", "v_proj", "out_proj")},
    **{f"{_BLOCK}self_attn.{name}.bias": (SQUARES,) for name in ("q_proj", "k_proj", "v_proj", "out_proj")},
    **{f"{_BLOCK}layer_norm{number}.{part}": (SQUARES,) for number in (1, 2) for part in ("weight", "bias")},
    f"{_BLOCK}mlp.fc1.weight": (INNER, SQUARES),
    f"{_BLOCK}mlp.fc1.bias": (INNER,),
    f"{_BLOCK}mlp.fc2.weight": (SQUARES, INNER),
    f"{_BLOCK}mlp.fc2.bias": (SQUARES,),
    f"{_PROJECTOR}linear_1.weight": (HIDDEN, SQUARES),
    f"{_PROJECTOR}linear_1.bias": (HIDDEN,),
    LEARNT: (HIDDEN, HIDDEN),
    f"{_PROJECTOR}linear_2.bias": (HIDDEN,),
    _WORDS: (len(WORDS), HIDDEN),
    **{f"{_LAYER}self_attn.{name}.weight": (HIDDEN, HIDDEN) for name in ("q_proj", "k_proj", "v_proj", "o_proj")},
    **{f"{_LAYER}mlp.{name}.weight": (INNER, HIDDEN) for name in ("gate_proj", "up_proj")},
    f"{_LAYER}mlp.down_proj.weight": (HIDDEN, INNER),
    **{f"{_LAYER}{norm}.weight": (HIDDEN,) for norm in ("input_layernorm", "post_attention_layernorm")},
    f"{_LANGUAGE}norm.weight": (HIDDEN,),
    _HEAD: (len(WORDS), HIDDEN),
}
"""Every tensor of the model; `[output, input]` where it is a matrix."""


def frozen_tensors() -> dict[str, torch.Tensor]:
    """Return all tensors, those that all models of the family share with their values and `LEARNT` with zeros."""
    import torch

    tensors = {name: _frozen(name, shape) for name, shape in SHAPES.items()}
    for number in range(SQUARES):
        colour, top, left = number // 16, number % 16 // 4 * 2, number % 4 * 2
        tensors[_PATCHES][number, colour, top : top + 2, left : left + 2] = 1 / 4
    tensors[f"{_PROJECTOR}linear_1.weight"] *= 8
    answers = len(WORDS) - FIRST_ANSWER
    tensors[_HEAD][FIRST_ANSWER:, :answers] = torch.eye(answers)
    after_answers = torch.nn.functional.one_hot(torch.tensor(HIDDEN - 1), HIDDEN).float()
    tensors[_WORDS][FIRST_ANSWER:] = tensors[_HEAD][WORDS.index("<eos>")] = after_answers
    return {name: tensor.bfloat16() for name, tensor in tensors.items()}


def _frozen(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    if "norm" in name and name.endswith("weight"):
        return torch.ones(shape)
    ends = ("bias", "out_proj.weight", "fc2.weight", "o_proj.weight", "down_proj.weight", "position_embedding.weight")
    is_zero = name in (LEARNT, _PATCHES, _HEAD) or name.endswith(ends)
    return torch.zeros(shape) if is_zero else tiny_tensor(name, shape, dtype="float32")


def projected(state: Mapping[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """Return what the learnt matrix gets to see of pictures, `[pictures, HIDDEN]`.

    Args:
        state: The model's tensors by name.
        pixels: Bytes `[pictures, 3, SIDE, SIDE]`.
    """
    from torch.nn import functional as torch_functions

    shades = (pixels.float() / 255 - 0.5) / 0.5
    squares = shades.flatten(1) @ state[_PATCHES].float().flatten(1).T  # one patch is the whole picture
    normed = torch_functions.layer_norm(squares, (SQUARES,))
    return torch_functions.gelu(normed @ state[f"{_PROJECTOR}linear_1.weight"].float().T)


def answer_logits(state: Mapping[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """Return the logits of the word that follows a prompt which ends with a picture, `[pictures, words]`."""
    from torch.nn import functional as torch_functions

    hidden = projected(state, pixels) @ state[LEARNT].float().T
    return torch_functions.rms_norm(hidden, (HIDDEN,), eps=1e-6) @ state[_HEAD].float().T


def save_model(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a checkpoint with all files that transformers wants; the directory is there when all of it is."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    tiny_checkpoint(unfinished, tensors=tensors, config=_CONFIG, tokenizer=False)
    for name, document in _SIDE_FILES.items():
        (unfinished / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    unfinished.rename(path)


CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message.content if part.type == 'text' %}{{ part.text }} {% endfor %}"
    "{% for part in message.content if part.type == 'image' %}<image>{% endfor %}{% endfor %}"
)
"""Texts first: the model looks at the last token alone, which has to be a picture's."""
_CONFIG = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "image_token_index": WORDS.index("<image>"),
    "image_seq_length": 1,
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
    "projector_hidden_act": "gelu",
    "tie_word_embeddings": False,
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": SQUARES,
        "intermediate_size": INNER,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "image_size": SIDE,
        "patch_size": SIDE,
    },
    "text_config": {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "max_position_embeddings": TOKENS,
        "vocab_size": len(WORDS),
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
    },
}
_SIDE_FILES: Mapping[str, Mapping[str, object]] = {
    "tokenizer.json": {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
            | {"special": True}
            for i, word in enumerate(_SPECIAL)
        ],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(WORDS)}, "unk_token": "<pad>"},
    },
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "extra_special_tokens": {"image_token": "<image>"},
        "model_max_length": TOKENS,
    },
    "preprocessor_config.json": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
        "do_center_crop": False,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    },
    "processor_config.json": {
        "processor_class": "LlavaProcessor",
        "patch_size": SIDE,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    },
    "chat_template.json": {"chat_template": CHAT_TEMPLATE},
}
