"""Tiny POINTS models of every kind: encoders, connectors and language models, from configurations alone."""

from __future__ import annotations

import torch
from PIL import Image
from transformers import BatchFeature

from finetune.points import PointsConfig, PointsForConditionalGeneration
from finetune.points.processing import PointsImageProcessor, PointsProcessor
from finetune.points.tiny import tiny_tokenizer

TILE = 32

_ATTENDING = {"num_hidden_layers": 3, "num_attention_heads": 2, "image_size": TILE, "patch_size": 8}
_SMALL = {"hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.1}

# Each sees a tile of 32 as 4 x 4 patches, but for the ConvNeXt's 8 x 8.
ENCODERS = {
    "clip": {"model_type": "clip_vision_model", **_SMALL, **_ATTENDING},
    "siglip": {"model_type": "siglip_vision_model", **_SMALL, **_ATTENDING},
    "eva_clip": {"model_type": "blip_2_vision_model", **_SMALL, **_ATTENDING},
    "convnext": {
        "model_type": "convnext",
        "image_size": TILE,
        "patch_size": 2,
        "hidden_sizes": [8, 16, 32, 40],
        "depths": [1, 1, 2, 1],
        "initializer_range": 0.1,
    },
    "dinov2": {"model_type": "dinov2", **_SMALL, **_ATTENDING},
    "none": {"model_type": "points_patches", "image_size": TILE, "patch_size": 8},
}

_WORDS = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "bos_token_id": None,
}
LANGUAGE_MODELS = {
    "qwen2": {"model_type": "qwen2", **_WORDS},
    "qwen2_tied": {"model_type": "qwen2", "tie_word_embeddings": True, **_WORDS},
    "llama": {"model_type": "llama", **_WORDS},
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 48,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 512,
        "initializer_range": 0.1,
        "bos_token_id": None,
    },
}

TOKENIZER = tiny_tokenizer(["What is it?"])


def points_config(encoder="clip", ocr=None, connector="shuffle", llm="qwen2", **more):
    """A configuration from the names of its parts; `ocr` may name a second encoder."""
    ids = {"pad_token_id": TOKENIZER.pad_token_id, "eos_token_id": TOKENIZER.eos_token_id}
    return PointsConfig(
        general_config=dict(ENCODERS[encoder]),
        ocr_config=dict(ENCODERS[ocr]) if ocr else None,
        text_config={**LANGUAGE_MODELS[llm], **ids, "vocab_size": len(TOKENIZER)},
        connector=connector,
        image_token_id=TOKENIZER.convert_tokens_to_ids("<|image_pad|>"),
        **ids,
        **more,
    )


def points_model(*parts, seed=0, **more):
    """A fresh model of these parts, with weights from the seed."""
    torch.manual_seed(seed)
    return PointsForConditionalGeneration(points_config(*parts, **more)).eval()


def processor_of(model):
    """The processor that feeds a model."""
    images = PointsImageProcessor(tile=model.config.tile, max_tiles=4, single_thumbnail=False)
    return PointsProcessor(images, TOKENIZER, tokens_per_tile=model.config.tokens_per_tile)


def noise(width, height, seed):
    """A picture of random pixels."""
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed)).byte()
    return Image.fromarray(pixels.numpy())


def prompt_of(images, more=""):
    """A question about so many images."""
    return f"<|im_start|>user\n{'<|image_pad|>' * images}What is it?{more}<|im_end|>\n<|im_start|>assistant\n"


def batch_of(model, images, texts, side="left") -> BatchFeature:
    """Images and texts as the model takes them, padded on one side."""
    return processor_of(model)(
        images=images or None, text=texts, return_tensors="pt", padding=True, text_kwargs={"padding_side": side}
    )
