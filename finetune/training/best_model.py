"""The best model so far, as the ingredient that it would be: `best-step40/` in the job's folder.

One is removed only when a checkpoint is complete that remembers a better one: a job that goes on from there never needs
it again. Those of steps behind the checkpoint are made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.config import TrainSettings

__all__ = ["LOSS", "best_folder", "best_step", "is_stalled", "remove_later", "remove_others"]

LOSS = "validation/loss"  # in the log; behind it, where there are several, the categories'
PREFIX = "best-step"


def best_folder(folder: Path, step: int) -> Path:
    """Give where a job's model of a step is kept while it is the best."""
    return folder / f"{PREFIX}{step}"


def remove_later(folder: Path, step: int) -> None:
    """Remove the models of steps behind the one that a job goes on from."""
    for path in folder.glob(f"{PREFIX}*"):
        if int(path.name.removeprefix(PREFIX)) > step:
            shutil.rmtree(path)


def remove_others(folder: Path, step: int | None) -> None:
    """Remove all models but that of a step; None: all of them."""
    for path in folder.glob(f"{PREFIX}*"):
        if step is None or path != best_folder(folder, step):
            shutil.rmtree(path)


def best_step(history: Sequence[Mapping[str, float]]) -> int | None:
    """Give the step of the lowest loss in a log, the first of equal ones; None before there is any."""
    measured = [log for log in history if LOSS in log]
    return int(min(measured, key=lambda log: log[LOSS])["step"]) if measured else None


def is_stalled(history: Sequence[Mapping[str, float]], settings: TrainSettings) -> bool:
    """Whether as many losses as `early_stopping` says, the last ones of a log, were no lower than the best."""
    best = best_step(history)
    if settings.early_stopping is None or best is None:
        return False
    return sum(log["step"] > best for log in history if LOSS in log) >= settings.early_stopping
