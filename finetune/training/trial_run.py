"""Settings tried before any job: on the start's model without a weight (torch's meta device), by what the jobs call."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

import finetune.points  # noqa: F401 (makes the Auto classes know the family)
from finetune.config import TrainSettings
from finetune.data.tokens import training_processor
from finetune.training.adapters import attach
from finetune.training.components import choose_trained, learning_rates
from finetune.training.input_pipeline import check_family
from finetune.training.start_model import misfits
from soup.errors import FinetuneError

__all__ = ["faults_on_outline"]


def faults_on_outline(start: Path, processor: Any, all_settings: Iterable[TrainSettings]) -> list[str]:
    """Give why jobs can't train a start by their settings, each fault once; what its weights alone tell is left out.

    Args:
        start: the directory of a checkpoint.
        processor: its own, or None where it can't be opened.
        all_settings: of the jobs.
    """
    faults: dict[str, None] = {}
    for settings in {_model_settings(each): each for each in all_settings}.values():
        try:
            model = _outline(start)
        except (OSError, ValueError, KeyError, ImportError) as error:
            return [f"start {start}: can't be opened as a checkpoint to start from ({error})"]
        if processor is not None:
            faults |= dict.fromkeys(f"start {start}: {misfit}" for misfit in misfits(model, processor))
        try:
            check_family(model, settings)
            training_processor(processor, settings.tiling)
            if settings.lora:
                attach(model, settings)
            choose_trained(model, settings)
            learning_rates(model, settings)
        except FinetuneError as error:
            faults[f"start {start}: {error}"] = None
    return list(faults)


def _model_settings(settings: TrainSettings) -> str:
    """Return what is tried of settings: those that differ in the rest alone are tried once."""
    names = ("freeze", "train", "lora", "lr_overrides", "packing", "cache_features", "tiling")
    return repr([getattr(settings, name) for name in names])


def _outline(start: Path) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(start, trust_remote_code=False)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(config)
    return model
