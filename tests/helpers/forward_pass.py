"""A forward pass of any image-text-to-text model of transformers, by the names of what its `forward` takes."""

from __future__ import annotations

import inspect
import re

import torch

TEXT = torch.arange(8, 16)[None]


class ForwardError(Exception):
    """No input that could be made was taken; the cause is what the first was refused with."""


def run_once(model):
    """Run a model on the first inputs that it takes, and give their names; what comes out has to be finite."""
    model = model.eval()
    failures = []
    queue = [*_inputs(model)]
    while queue:
        inputs = queue.pop(0)
        try:
            with torch.no_grad():
                outputs = model(**inputs)
        except Exception as error:
            failures.append(error)
            queue[:0] = _with_image_tokens(model, inputs, str(error))
            continue
        logits = outputs.logits if getattr(outputs, "logits", None) is not None else outputs[0]
        assert torch.isfinite(logits).all(), f"what comes out for {[*inputs]} is not finite"
        return [*inputs]
    raise ForwardError(f"{type(failures[0]).__name__}: {failures[0]}") from failures[0]


def _inputs(model):
    """Text with what the model insists on, then with a decoder's text, then with all that can be made."""
    parameters = inspect.signature(model.forward).parameters
    possible = {name: make for name, make in _makers(model).items() if name in parameters}
    text = [name for name in ("input_ids", "attention_mask") if name in possible]
    decoder = [name for name in ("decoder_input_ids",) if name in possible]
    needed = [name for name in possible if parameters[name].default is inspect.Parameter.empty]
    others = [name for name in possible if name not in (*text, *decoder)]
    for names in (text + needed, text + needed + decoder, text + needed + decoder + others, needed + decoder + others):
        inputs = {name: possible[name]() for name in dict.fromkeys(names)}
        yield inputs
        if "pixel_values" in inputs:  # classes that take several pictures, or videos
            yield {**inputs, "pixel_values": inputs["pixel_values"][:, None]}


def _makers(model):
    """What can be made, by the names that transformers' models have for it."""
    config = model.config
    vision = next((part for name in ("vision_config", "encoder") if (part := getattr(config, name, None))), config)
    size = getattr(vision, "image_size", None) or 64
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    flat = getattr(vision, "patch_embed_hidden_size", 0)
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return {
        "input_ids": lambda: TEXT,
        "attention_mask": lambda: torch.ones_like(TEXT),
        "decoder_input_ids": lambda: TEXT,
        "qformer_input_ids": lambda: TEXT,
        "bbox": lambda: torch.zeros(1, 8, 4, dtype=torch.long),
        "pixel_values": lambda: torch.randn(1, getattr(vision, "num_channels", 3), height, width, dtype=dtype),
        "flattened_patches": lambda: torch.cat([torch.ones(1, 4, 2), torch.randn(1, 4, flat)], dim=-1).to(dtype),
        "image_attention_mask": lambda: torch.ones(1, 8, 1, dtype=torch.long),
        "image_embeds_position_mask": lambda: (TEXT < 12).long(),
    }


def _with_image_tokens(model, inputs, failure):
    """The same with as many image tokens before the text as the model said that there are features; once."""
    expected = re.search(r"features?:? *(\d+)", failure)
    if not expected or inputs.get("input_ids") is not TEXT:
        return
    kind = "video" if "ideo" in failure else "image"
    for token in (getattr(model.config, f"{kind}_token_{suffix}", None) for suffix in ("id", "index")):
        if token is not None:
            ids = torch.cat([torch.full((1, int(expected[1])), token), TEXT], dim=1)
            yield {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
