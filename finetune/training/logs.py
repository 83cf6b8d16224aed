"""Where a job's curves go: TensorBoard, Trackio or Weights & Biases, by name."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from transformers import TrainerCallback

from finetune.config import TrainSettings
from soup.errors import FinetuneError

__all__ = ["loggers"]


def loggers(settings: TrainSettings, name: str, folder: Path, step: int) -> list[TrainerCallback]:
    """Give the callbacks that log each step.

    Args:
        settings: `log_to`.
        name: the job's.
        folder: the job's.
        step: the last one that counts: what was logged of later ones before an interruption is removed.

    Raises:
        FinetuneError: packages that are not installed.
    """
    if absent := [package for package in settings.log_to if importlib.util.find_spec(package) is None]:
        raise FinetuneError(f"log_to: {', '.join(absent)} not installed: pip install {' '.join(absent)}")
    makers = {"tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb}
    return [makers[package](name, folder, step) for package in settings.log_to]


def _tensorboard(name: str, folder: Path, step: int) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1))


def _trackio(name: str, folder: Path, step: int) -> TrainerCallback:
    from transformers.integrations import TrackioCallback

    os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
    return TrackioCallback()


def _wandb(name: str, folder: Path, step: int) -> TrainerCallback:
    """Nothing leaves the machine before `wandb sync`."""
    from transformers.integrations import WandbCallback

    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_DIR", str(folder))
    os.environ.setdefault("WANDB_NAME", name)
    return WandbCallback()
