"""What a run is fed: the row at each of its positions, and what makes batches of them."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.config import TrainSettings
from finetune.data import Album, Collator, Corpus, TrainingRows
from finetune.points.model import PointsForConditionalGeneration
from finetune.training.other_families import ProcessorCollator, foreign_rows
from finetune.training.parallel import environment_of, world_size
from soup.errors import FinetuneError

__all__ = ["Feed", "feed"]

log = logging.getLogger(__name__)
TILES_BYTES = 2**30  # of small data sets, tiles are remembered, too


@dataclass(frozen=True)
class Feed:
    """`rows`: by their place in the whole run; `count`: good rows; `manifest`: what the mixture came to."""

    rows: TrainingRows
    collator: Callable[[list[Any]], dict[str, torch.Tensor]]
    count: int
    manifest: dict[str, Any]


def feed(corpus: Corpus, model: Any, processor: Any, settings: TrainSettings) -> Feed:
    """For a model whose parts are frozen already.

    Raises:
        FinetuneError: rows or settings that don't work with each other or with the model.
    """
    if not isinstance(model, PointsForConditionalGeneration):
        return _foreign(corpus, model, processor, settings)
    rows = TrainingRows(corpus, settings, processor, progress=_told)
    album, see, name = _seen(model, settings)
    instead = rows.after if settings.on_bad_row == "skip" else None
    collator = Collator(
        processor,
        album,
        see,
        name,
        max_length=settings.max_length,
        packing=settings.packing,
        instead=instead,
        as_bytes=settings.workers > 0,  # a quarter of the memory that workers share with this process
    )
    return Feed(rows, collator, len(corpus) - rows.survey.bad, rows.manifest)


def _foreign(corpus: Corpus, model: Any, processor: Any, settings: TrainSettings) -> Feed:
    """For a model of another family: by its own processor."""
    if settings.cache_features:
        raise FinetuneError(f"cache_features: only for POINTS models, not for a {type(model).__name__}.")
    rows = foreign_rows(corpus, processor, settings, _told)
    collator = ProcessorCollator(processor, settings.max_length)
    return Feed(rows, collator, len(corpus) - rows.survey.bad, rows.manifest)


def _told(done: int, count: int) -> None:
    if done % 100_000 == 0 or done == count > 100_000:
        log.info("looked at %d of %d rows", done, count)


def _memory_bytes() -> int:
    """Of this machine; features that don't fit into their share of it are asked for again."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _seen(model: Any, settings: TrainSettings) -> tuple[Album, Callable[[Tensor], Tensor] | None, str]:
    """What the model is given: tiles, or, where its encoders are frozen and it is asked for, what they saw in them.

    Raises:
        FinetuneError: features are to be remembered of encoders that change, or of a model that can't be given them.
    """
    if not settings.cache_features:
        return Album(0 if settings.workers else TILES_BYTES), None, "pixel_values"
    encoders = model.config.vision_configs
    moving = [name for name in encoders if any(p.requires_grad for p in model.get_submodule(name).parameters())]
    if moving:
        raise FinetuneError(f"cache_features: {', '.join(moving)} would be trained; name them in `freeze`, too.")
    if settings.workers:
        raise FinetuneError("cache_features: the training process itself asks the encoders: set workers to 0.")
    if world_size() > 1 and environment_of(settings.parallel):
        raise FinetuneError("cache_features: the encoders are asked apart from the model, which must not be cut up.")
    return (
        Album(_memory_bytes() // 4 // world_size()),
        lambda tiles: model.encode(tiles.to(model.device)).cpu(),
        "vision_features",
    )
