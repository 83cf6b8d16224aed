"""The input of a run: the row at each of its positions, and what makes batches of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.config import TrainSettings
from finetune.data import Collator, Corpus, FeatureCache, HeldOutRows, TrainingRows
from finetune.data.tokens import training_processor
from finetune.data.training_rows import rows_to_look_at
from finetune.points.model import PointsForConditionalGeneration
from finetune.training.other_families import ProcessorCollator, other_family_rows
from finetune.training.packed_families import positions_of
from finetune.training.parallel import environment_of, world_size
from soup.errors import FinetuneError

__all__ = ["InputPipeline", "build_input_pipeline", "check_family"]

log = logging.getLogger(__name__)
TILES_BYTES = 2**30  # of small data sets, tiles are cached, too


@dataclass(frozen=True)
class InputPipeline:
    """`rows`: by their position in the whole run; `validation`: those that the model is only looked at by."""

    rows: TrainingRows
    collator: Callable[[list[Any]], dict[str, torch.Tensor]]
    validation: HeldOutRows

    @property
    def count(self) -> int:
        """Good rows, those that are held out among them."""
        return len(self.rows.corpus) - self.rows.scan.bad


def build_input_pipeline(corpus: Corpus, model: Any, processor: Any, settings: TrainSettings) -> InputPipeline:
    """Build the input of a run.

    Args:
        corpus: rows of all data sets.
        model: whose parts are frozen already.
        processor: the model's.
        settings: of the job.

    Raises:
        FinetuneError: rows or settings that don't work with each other or with the model.
    """
    if not isinstance(model, PointsForConditionalGeneration):
        return _of_other_family(corpus, model, processor, settings)
    processor = training_processor(processor, settings.tiling)
    rows = TrainingRows(corpus, settings, processor, progress=_log_progress)
    cache, encode, name = _image_input(model, settings)
    replacement = rows.after if settings.on_bad_row == "skip" else None
    collator = Collator(
        processor,
        cache,
        encode,
        name,
        max_length=settings.max_length,
        packing=settings.packing,
        replacement=replacement,
        as_bytes=settings.workers > 0,  # a quarter of the memory that workers share with this process
    )
    return InputPipeline(rows, collator, _validation(rows, processor, settings))


def _validation(rows: TrainingRows, processor: Any, settings: TrainSettings) -> HeldOutRows:
    """Return what is held out of the job's own data sets, or the good rows of those that are named for it."""
    return rows_to_look_at(settings, processor) if settings.validation_sets else rows.held_out


def check_family(model: Any, settings: TrainSettings) -> None:
    """Check that a model's family can do what the settings ask for.

    Raises:
        FinetuneError: it is not POINTS, and that alone can, or few others.
    """
    if isinstance(model, PointsForConditionalGeneration):
        return
    for name in ("cache_features", "tiling"):
        if getattr(settings, name):
            raise FinetuneError(f"{name}: only for POINTS models, not for a {type(model).__name__}.")
    if settings.packing:
        positions_of(model)


def _of_other_family(corpus: Corpus, model: Any, processor: Any, settings: TrainSettings) -> InputPipeline:
    """For a model of another family: by its own processor."""
    check_family(model, settings)
    rows = other_family_rows(corpus, processor, settings, _log_progress)
    replacement = rows.after if settings.on_bad_row == "skip" else None
    positions = positions_of(model) if settings.packing else None
    collator = ProcessorCollator(processor, settings.max_length, replacement, positions)
    return InputPipeline(rows, collator, _validation(rows, processor, settings))


def _log_progress(done: int, count: int) -> None:
    if done % 100_000 == 0 or done == count > 100_000:
        log.info("looked at %d of %d rows", done, count)


def _memory_bytes() -> int:
    """Of this machine; features that don't fit into their share of it are made again."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _image_input(model: Any, settings: TrainSettings) -> tuple[FeatureCache, Callable[[Tensor], Tensor] | None, str]:
    """Return the cache, the encoding and the name of what the model is given: tiles, or features of frozen encoders.

    Raises:
        FinetuneError: features are to be cached of encoders that change, or of a model that can't be given them.
    """
    if not settings.cache_features:
        return FeatureCache(0 if settings.workers else TILES_BYTES), None, "pixel_values"
    encoders = model.config.vision_configs
    moving = [name for name in encoders if any(p.requires_grad for p in model.get_submodule(name).parameters())]
    if moving:
        raise FinetuneError(f"cache_features: {', '.join(moving)} would be trained; name them in `freeze`, too.")
    if settings.workers:
        raise FinetuneError("cache_features: the training process itself runs the encoders: set workers to 0.")
    if world_size() > 1 and environment_of(settings.parallel):
        raise FinetuneError("cache_features: the encoders run apart from the model, which must not be sharded.")
    return (
        FeatureCache(_memory_bytes() // 4 // world_size()),
        lambda tiles: model.encode(tiles.to(model.device)).cpu(),
        "vision_features",
    )
