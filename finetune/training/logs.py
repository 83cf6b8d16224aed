"""Where a job's curves go: `loss.jsonl` in its folder, and TensorBoard, Trackio or Weights & Biases, by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from finetune.config import TrainSettings
from finetune.jobs import LOSSES
from finetune.training.parallel import is_first
from soup.errors import FinetuneError
from soup.support.atomic_files import write_atomic
from soup.support.extras import absent_libraries
from soup.support.json_text import log_lines

__all__ = ["LossFile", "loggers"]


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
    if absent := absent_libraries(settings.log_to, "finetune"):
        raise FinetuneError(f"log_to: {'; '.join(absent)}")
    makers = {"tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb}
    return [LossFile(folder / LOSSES, step), *(makers[package](name, folder, step) for package in settings.log_to)]


class LossFile(TrainerCallback):
    """Writes a line of JSON for each log, with its `step`.

    Args:
        path: the file.
        step: the last one that counts; lines of later ones, or that a crash damaged, are removed.
    """

    def __init__(self, path: Path, step: int):
        self.path = path
        if is_first():
            logs = log_lines(path) if step else ()
            earlier = [log for log in logs if isinstance(at := log.get("step"), int) and at <= step]
            write_atomic(path, "".join(json.dumps(log) + "\n" for log in earlier))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Write it, but for the summary of the whole at the end."""
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


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
