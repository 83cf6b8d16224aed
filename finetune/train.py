"""One model, trained: start, freeze, transformers' Trainer, saved as an ordinary checkpoint."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers import set_seed as transformers_seed
from transformers.utils import logging as transformers_logging

import finetune.points  # noqa: F401 (makes the Auto classes know the family)
from finetune.config import Settings
from finetune.data import Album, Collator, Conversations, Sample, read_samples
from finetune.points.model import PointsForConditionalGeneration
from finetune.points.tiny import common_phrases, tiny_config, tiny_processor
from soup.errors import FinetuneError

__all__ = ["Progress", "train"]

Progress = Callable[[str, int, int, float], object]
"""Called with the job's name, steps done, steps in all, and the latest loss."""


def train(
    name: str,
    start: str,
    data: list[Path],
    settings: Settings,
    out: Path,
    *,
    features: Album | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains one model and writes it to `out`: weights, configuration, tokenizer and processor.

    Where both vision encoders are frozen, they look at each image once; `features` remembers what they saw, for the
    next jobs from the same start, too.

    Returns:
        What to tell of it: number of rows, steps, mean loss of the first and last tenth of the steps.

    Raises:
        FinetuneError: data, start or frozen parts that don't exist, or a loss that is not finite.
    """
    samples = [sample for directory in data for sample in read_samples(directory)]
    transformers_seed(settings.seed)
    with _without_bars():
        model, processor = open_start(start, samples)
        freeze(model, settings.freeze)
        collator = _collator(model, processor, settings, features)
        losses = _fit(name, model, samples, settings, collator, out, progress)
        save(model, processor, out, settings)
    tenth = max(1, len(losses) // 10)
    return {
        "rows": len(samples),
        "steps": len(losses),
        "first_loss": round(sum(losses[:tenth]) / tenth, 4),
        "last_loss": round(sum(losses[-tenth:]) / tenth, 4),
    }


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keeps transformers' own progress bars from running through the caller's."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def open_start(start: str, samples: list[Sample]) -> tuple[PreTrainedModel, Any]:
    """Model in float32 and processor, from a checkpoint, or fresh for `tiny`.

    Weights move by steps far below bfloat16's resolution: they are trained in float32 and rounded once, when saved.
    """
    if start == "tiny":
        texts = (turn["content"].replace("<image>\n", "") for sample in samples for turn in sample["messages"])
        processor = tiny_processor(common_phrases(texts))
        tokenizer = processor.tokenizer
        ids = (processor.image_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
        return PointsForConditionalGeneration(tiny_config(len(tokenizer), *ids)), processor
    try:
        model = AutoModelForImageTextToText.from_pretrained(start, dtype=torch.float32)
        return model, AutoProcessor.from_pretrained(start)
    except (OSError, ValueError) as error:
        raise FinetuneError(f"{start}: can't be opened as a checkpoint to start from.\n{error}") from error


def freeze(model: torch.nn.Module, parts: list[str]) -> None:
    """Stops the named parts from being trained.

    Raises:
        FinetuneError: a name that no parameter has as its own or its part's.
    """
    for part in parts:
        own = [p for name, p in model.named_parameters() if name == part or name.startswith(f"{part}.")]
        if not own:
            known = sorted(name for name, _ in model.named_children())
            raise FinetuneError(f"freeze: no parameter is called {part}. Parts of the model: {', '.join(known)}.")
        for parameter in own:
            parameter.requires_grad_(False)


def _collator(model: Any, processor: Any, settings: Settings, features: Album | None) -> Collator:
    """Gives the model tiles, or, where its encoders are frozen, what they saw in them."""
    if isinstance(model, PointsForConditionalGeneration) and {"general_vit", "ocr_vit"} <= set(settings.freeze):
        return Collator(processor, features or Album(), model.encode, "vision_features")
    return Collator(processor, Album())


def _fit(
    name: str,
    model: PreTrainedModel,
    samples: list[Sample],
    settings: Settings,
    collator: Collator,
    out: Path,
    progress: Progress | None,
) -> list[float]:
    """Trains in place. Gives the loss of each step."""
    told = _Told(name, settings.steps, progress)
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.lr,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup,  # below 1, transformers takes it as a share of the steps
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        adam_beta2=0.98,  # runs are short: the default's memory of a thousand steps outlasts them
        seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would put the mean of the steps before in a broken loss's place
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        log_level="warning",
    )
    rows = Conversations(samples, collator.processor)
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[told])
    trainer.remove_callback(PrinterCallback)  # it would print a line a step
    trainer.train()
    # A stop signal lets train() return as if all were well.
    if trainer.state.global_step < settings.steps:
        raise FinetuneError(f"{name}: stopped after {trainer.state.global_step} of {settings.steps} steps.")
    return told.losses


class _Told(TrainerCallback):
    """Collects the loss of each step, and tells of progress."""

    def __init__(self, name: str, steps: int, progress: Progress | None):
        self.name, self.steps, self.progress = name, steps, progress
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise FinetuneError(f"{self.name}: the loss became {loss} at step {state.global_step}; try a lower lr.")
        self.losses.append(loss)
        if self.progress:
            self.progress(self.name, state.global_step, self.steps, loss)


def save(model: PreTrainedModel, processor: Any, out: Path, settings: Settings) -> None:
    """An ordinary checkpoint, in the dtype that the settings name, which its configuration then names, too."""
    # The Trainer turns the cache off while it trains, and would have it off for everyone who loads the checkpoint.
    if "use_cache" in vars(model.config):
        del model.config.use_cache
    dtype = getattr(torch, settings.dtype)
    model.to(dtype)
    for part in filter(None, (getattr(model.config, name) for name in model.config.sub_configs)):
        part.dtype = dtype  # which still names the dtype of training
    model.save_pretrained(out, max_shard_size=settings.max_shard_size)
    processor.save_pretrained(out)
