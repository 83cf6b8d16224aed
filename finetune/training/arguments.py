"""The settings of a job as arguments of transformers' Trainer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import TrainingArguments

from finetune.config import TrainSettings
from soup.errors import FinetuneError

__all__ = ["precision", "shares", "training_arguments"]


def shares(settings: TrainSettings, devices: int) -> tuple[int, int]:
    """Give the rows that a device takes at once, and how often, until the step's `global_batch_size` rows are through.

    Raises:
        FinetuneError: a batch that can't be divided so.
    """
    rows = settings.global_batch_size
    rows_of_device, rest = divmod(rows, devices)
    if rest:
        raise FinetuneError(
            f"global_batch_size {rows} can't be divided over {devices} devices: take a multiple of their number."
        )
    micro = settings.micro_batch or rows_of_device
    times, rest = divmod(rows_of_device, micro)
    if rest:
        raise FinetuneError(
            f"global_batch_size {rows} over {devices} devices is {rows_of_device} rows for each, which micro_batch "
            f"{micro} does not divide."
        )
    return micro, times


def precision(settings: TrainSettings) -> str:
    """Give the precision of the arithmetic: as the settings say, else bfloat16 where a GPU has it, else float32."""
    if settings.precision:
        return settings.precision
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def training_arguments(
    settings: TrainSettings, steps: int, devices: int, scratch: Path, *, even: bool = False
) -> TrainingArguments:
    """Give the Trainer's arguments.

    Args:
        settings: of the job.
        steps: of the run.
        devices: that train together.
        scratch: the directory of unfinished checkpoints.
        even: every batch, those of text alone too, reaches every weight that is trained.

    Raises:
        FinetuneError: a batch that can't be divided over the devices.
    """
    micro, times = shares(settings, devices)
    alone = not torch.accelerator.is_available()
    recompute = "activation_checkpointing"  # as transformers now calls gradient checkpointing
    recompute = recompute if hasattr(TrainingArguments, recompute) else "gradient_checkpointing"
    arguments = TrainingArguments(
        output_dir=str(scratch),
        max_steps=steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=times,
        learning_rate=settings.lr,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_ratio,  # below 1, transformers takes it as a share of the steps
        lr_scheduler_type="cosine",
        max_grad_norm=settings.max_grad_norm,
        adam_beta1=settings.adam_betas[0],
        adam_beta2=settings.adam_betas[1],
        seed=settings.seed,
        bf16=precision(settings) == "bfloat16",
        train_sampling_strategy="sequential",  # the data set is the whole run's rows, in their order
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would put the mean of the steps before in a broken loss's place
        save_strategy="steps" if settings.checkpoint_every else "no",
        save_steps=settings.checkpoint_every or steps,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=settings.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        # A rank whose rows hold no picture, or layers that are never run, must not leave the others waiting.
        ddp_find_unused_parameters=not even if devices > 1 else None,
        ddp_backend="gloo" if alone and devices > 1 else None,
        use_cpu=alone,
        log_level="warning",
        **{recompute: settings.gradient_checkpointing},
    )
    if devices == 1 and arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process takes one device; it would copy the model to all that are visible
    return arguments
