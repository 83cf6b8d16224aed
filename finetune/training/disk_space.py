"""Whether the disk holds what a job will write, checked before the first step."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from finetune.config import TrainSettings
from soup.errors import FinetuneError
from soup.support.disk_space import FreeSpace, require_bytes
from soup.support.text import format_bytes, pluralize

__all__ = ["check_disk_space", "checkpoint_bytes", "ingredient_bytes"]

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def ingredient_bytes(model: nn.Module, settings: TrainSettings) -> int:
    """Give the size of an ingredient on the disk."""
    return sum(parameter.numel() for parameter in model.parameters()) * DTYPE_BYTES[settings.dtype]


def checkpoint_bytes(model: nn.Module) -> int:
    """Give the size of a checkpoint: what is trained, in float32, and Adam's two moments of it."""
    return 3 * 4 * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def check_disk_space(model: nn.Module, settings: TrainSettings, steps: int, folder: Path) -> None:
    """Check for two checkpoints at a time (the next one is complete before the last one goes), and all ingredients.

    Raises:
        FinetuneError: less is free.
    """
    checkpoints = 2 * checkpoint_bytes(model) if settings.checkpoint_every else 0
    # Of `keep_best` the next best one is complete before the last one goes.
    ingredients = 1 + settings.earlier_models(steps) + settings.keep_best
    needed_bytes = checkpoints + ingredients * ingredient_bytes(model, settings)

    def error(free: FreeSpace) -> FinetuneError:
        return FinetuneError(
            f"{folder}: {format_bytes(free.bytes)} are free, and {format_bytes(needed_bytes)} may be needed: "
            f"{format_bytes(checkpoints)} for checkpoints, the rest for {pluralize(ingredients, 'ingredient')}. Make "
            "room, or name an `out` on another disk."
        )

    require_bytes(folder, needed_bytes, error)
