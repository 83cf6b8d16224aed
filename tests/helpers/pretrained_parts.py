"""Tiny pretrained parts for a POINTS model, as transformers saves them: encoders, language models, a tokenizer."""

from __future__ import annotations

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from finetune.points.encoders import build_encoder
from tests.helpers.tiny_points import ENCODERS, LANGUAGE_MODELS, TOKENIZER

TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
CLIPS = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}


def config_of(table, name):
    options = dict(table[name])
    return AutoConfig.for_model(options.pop("model_type"), **options)


def save_encoder(folder, name, *, whole=False, pixels=CLIPS, seed=0, dtype=torch.float32, **changes):
    """A vision checkpoint as transformers saves it; `whole` with its text side. Gives the vision module's tensors."""
    torch.manual_seed(seed)
    options = {**ENCODERS[name], **changes}
    if whole:
        options.pop("model_type")
        kind, config = {"clip": (CLIPModel, CLIPConfig), "siglip": (SiglipModel, SiglipConfig)}[name]
        model = kind(config(vision_config=options, text_config=TEXT))
        vision = model.vision_model
    else:
        model = vision = build_encoder(config_of({name: options}, name))
    model.to(dtype).save_pretrained(folder)
    if pixels:
        (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return {key: tensor.clone() for key, tensor in vision.state_dict().items()}


def plain_tokenizer():
    """A tokenizer that knows nothing of images and conversations, as Llama's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: i for i, sign in enumerate([*alphabet, "</s>"])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def save_llm(folder, name="qwen2", *, tokenizer=TOKENIZER, rows=300, dtype=torch.bfloat16):
    """A language model as transformers saves it. Gives its tensors."""
    torch.manual_seed(5)
    options = {**LANGUAGE_MODELS[name], "vocab_size": rows, "eos_token_id": 2}
    model = AutoModelForCausalLM.from_config(config_of({name: options}, name)).to(dtype)
    model.save_pretrained(folder, max_shard_size="40KB")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    tied = model.all_tied_weights_keys
    return {key: tensor.clone() for key, tensor in model.state_dict().items() if key not in tied}
