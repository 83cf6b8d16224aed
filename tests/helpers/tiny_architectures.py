"""Tiny models of any image-text-to-text class of transformers, and pools of them."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import torch
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES

from tests.helpers.forward_pass import ForwardError, run_once
from tests.helpers.tiny_configs import ATTEMPTS, is_token, tiny_config

__all__ = ["ARCHITECTURES", "CLASSES", "fine_tunes", "tiny_model", "working_config", "write_pool_of"]

ARCHITECTURES = (
    "llava",
    "llava_next",
    "llava_onevision",
    "internvl",
    "paligemma",
    "gemma3",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "mistral3",
    "smolvlm",
    "idefics3",
    "blip-2",
)
"""The model types that the ordinary tests make; `make zoo` makes all of `CLASSES`."""

MOST_PARAMETERS = 20_000_000


def tiny_model(name):
    """A freshly initialised model of a model type; its weights come from torch's global seed."""
    return AutoModelForImageTextToText.from_config(deepcopy(working_config(name)))  # a model writes its dtype into it


def fine_tunes(name):
    """Three bfloat16 models of one architecture in which every parameter differs, norms and biases too."""
    for seed in range(3):
        torch.manual_seed(seed)
        model = tiny_model(name).to(torch.bfloat16)
        for parameter in model.parameters():
            parameter.data.add_(0.02 * torch.randn_like(parameter))
        yield model


def write_pool_of(models, folder, shards):
    """Save models as model-0, model-1, ... in about so many files each, and give the folder."""
    for index, (model, count) in enumerate(zip(models, shards, strict=True)):
        size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        model.save_pretrained(folder / f"model-{index}", max_shard_size=size // count + 1000 if count > 1 else "5GB")
    return folder


@cache
def working_config(name):
    """The first of the tiny configurations whose model runs, or else the first of which a model can be made."""
    made, failures = [], []
    for sizes in ATTEMPTS:
        try:
            made.append(config := _checked(tiny_config(CONFIG_MAPPING[name], sizes)))
        except Exception as error:
            failures.append(error)
            continue
        if _runs(config):
            return config
    if not made:
        raise failures[0]
    return made[0]


def _checked(config):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(deepcopy(config))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"the tiny configuration still has {parameters:,} parameters")
    return config


def _runs(config):
    """Whether the configuration's model runs; a token that its code reads and the defaults lack is added."""
    for _ in range(4):
        try:
            run_once(AutoModelForImageTextToText.from_config(deepcopy(config)))
        except ForwardError as error:
            cause = error.__cause__
            if not isinstance(cause, AttributeError) or not is_token(cause.name or ""):
                return False
            setattr(config, cause.name, 5)
        else:
            return True
    return False
