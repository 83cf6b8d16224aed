"""The model that a job starts from: a fresh one by its preset's name, or a checkpoint, checked before it is trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

import finetune.points  # noqa: F401 (makes the Auto classes know the family)
from finetune.config import TrainSettings
from finetune.points.model import PointsForConditionalGeneration
from finetune.points.presets import PRESETS, preset_config
from finetune.points.processing import PointsImageProcessor, PointsProcessor
from finetune.points.tiny import common_phrases, tiny_config, tiny_processor, tiny_tokenizer
from soup.checkpoints.hub import fetch_checkpoint, is_hub_id
from soup.errors import FinetuneError
from soup.hf.processors import open_processor
from soup.support.text import bullet_list, did_you_mean

__all__ = ["misfits", "open_start", "start_folder"]


def open_start(start: str, settings: TrainSettings, texts: Iterable[str] = ()) -> tuple[PreTrainedModel, Any]:
    """Open a checkpoint, or make a fresh model for a preset; gives the model in float32, and its processor.

    Weights move by steps far below bfloat16's resolution: they are trained in float32 and rounded once, when saved.

    Args:
        start: a directory, a Hub id, or a preset.
        settings: how attention is computed.
        texts: that a preset's tokenizer may learn phrases from.

    Raises:
        FinetuneError: no checkpoint there, not a vision-language model, or one whose parts don't belong together.
    """
    folder = start_folder(start)
    model, processor = _make_fresh(start, texts) if folder is None else _open_checkpoint(start, folder)
    _set_attention(model, settings)
    problems = list(misfits(model, processor))
    if problems:
        raise FinetuneError(f"{start}: can't be trained, for {len(problems)} reasons:\n{bullet_list(problems)}")
    return model, processor


def start_folder(start: str) -> Path | None:
    """Give the directory of a checkpoint, fetched from the Hub if it is not here; None for a preset.

    Raises:
        FinetuneError: it is none of these.
        CheckpointError: the Hub does not have it.
    """
    if Path(start).is_dir():
        return Path(start)
    if start in PRESETS:
        return None
    if is_hub_id(start) and not Path(start).exists():
        return fetch_checkpoint(start)[0]
    raise FinetuneError(f"{start}: no directory of a checkpoint, no Hub id, no preset.{did_you_mean(start, PRESETS)}")


def _make_fresh(preset: str, texts: Iterable[str]) -> tuple[PreTrainedModel, Any]:
    """Random weights. Nothing is fetched: sizes above tiny spell in bytes, but keep the rows of their vocabulary."""
    if preset == "tiny":
        processor = tiny_processor(common_phrases(texts))
        ids = (processor.image_token_id, processor.tokenizer.pad_token_id, processor.tokenizer.eos_token_id)
        return PointsForConditionalGeneration(tiny_config(len(processor.tokenizer), *ids)), processor
    config, tokenizer = preset_config(preset), tiny_tokenizer()
    text: PreTrainedConfig = config.text_config  # a mapping no longer, once the whole is built
    tokenizer.model_max_length = text.max_position_embeddings
    processor = PointsProcessor(PointsImageProcessor(tile=config.tile), tokenizer, config.tokens_per_tile)
    config.image_token_id = processor.image_token_id
    for part in (config, text):
        part.pad_token_id, part.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    return PointsForConditionalGeneration(config), processor


def _open_checkpoint(start: str, folder: Path) -> tuple[PreTrainedModel, Any]:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise FinetuneError(f"{start}: can't be opened as a checkpoint to start from.\n{error}") from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise FinetuneError(
            f"{start}: a {config.model_type} ({type(config).__name__}), no vision-language model. Expected one "
            "that transformers' AutoModelForImageTextToText opens; `soup assemble` makes one from parts."
        )
    try:
        model, loading_info = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, trust_remote_code=False
        )
        processor = open_processor(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise FinetuneError(f"{start}: can't be opened as a checkpoint to start from.\n{error}") from error
    wrong = [f"{name}: not in its files" for name in sorted(loading_info["missing_keys"])]
    wrong += [
        f"{name}: another shape than its configuration says" for name, *_ in sorted(loading_info["mismatched_keys"])
    ]
    wrong += [f"{name}: no weight of this model, would be lost" for name in sorted(loading_info["unexpected_keys"])]
    if wrong:
        raise FinetuneError(f"{start}: weights and configuration differ in {len(wrong)} tensors:\n{bullet_list(wrong)}")
    return model, processor


def _set_attention(model: PreTrainedModel, settings: TrainSettings) -> None:
    """Set how attention is computed, in all parts."""
    if settings.attn_implementation is None:
        return
    try:
        model.set_attn_implementation(settings.attn_implementation)
    except (ImportError, ValueError) as error:
        raise FinetuneError(
            f"attn_implementation: {settings.attn_implementation} can't be had here.\n{error}"
        ) from error


def misfits(model: PreTrainedModel, processor: Any) -> Iterable[str]:
    """Give what of the processor does not fit the model."""
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        yield f"a processor of tokenizer and image processor was expected, found {type(processor).__name__}"
        return
    token = getattr(processor, "image_token", None)
    ids = (getattr(model.config, key, None) for key in ("image_token_id", "image_token_index"))
    image_id = next((number for number in ids if number is not None), None)
    vocabulary = tokenizer.get_vocab()
    if token not in vocabulary:
        yield f"the tokenizer lacks the image token {token!r}: tokenizer.add_special_tokens, and resize the embeddings"
    # What stands in a prompt (Gemma3's start of an image) need not be what images are put in the place of.
    elif image_id not in (None, vocabulary[token], getattr(tokenizer, "image_token_id", None)):
        yield f"the image token {token!r} is {vocabulary[token]} to the processor and {image_id} to the configuration"
    rows = model.get_input_embeddings().num_embeddings
    if max(vocabulary.values()) >= rows:
        yield f"the tokenizer has tokens up to {max(vocabulary.values())}, the model embeds {rows}"
    for name in ("eos_token", "pad_token"):
        if getattr(tokenizer, name) is None:
            yield f"the tokenizer has no {name}"
    if processor.chat_template is None and getattr(tokenizer, "chat_template", None) is None:
        yield "the processor has no chat template: how a conversation is written is not known"
