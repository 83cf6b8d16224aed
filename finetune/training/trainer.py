"""transformers' Trainer, with our parameter groups, our checkpoints, and ingredients on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback

from finetune.config import TrainSettings
from finetune.data import IGNORED
from finetune.training import checkpoints
from finetune.training.best_model import best_step, remove_others
from finetune.training.components import parameter_groups
from finetune.training.listener import Listener
from soup.errors import FinetuneError

__all__ = ["JobTrainer", "StopCallback", "StopRequest", "count_learnt"]

WINDOW = 20  # steps that the time of a step is the mean of


@dataclass
class StopRequest:
    """The signal that asks the job to stop, once one came."""

    signal: int = 0
    possible: bool = field(default=False, init=False)  # there are steps, at whose end it is looked at
    heeded: bool = field(default=False, init=False)  # training ended because of it

    def agreed(self, device: torch.device) -> bool:
        """Whether any of the processes got a signal: all stop at the same step, or the others would wait for ever."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            signals = torch.tensor([self.signal], device=device)
            torch.distributed.all_reduce(signals, op=torch.distributed.ReduceOp.MAX)
            self.signal = int(signals.item())
        return self.signal != 0


class StopCallback(TrainerCallback):
    """Stops at a loss that is not finite, or when a stop is requested; reports each step."""

    def __init__(self, name: str, stop: StopRequest, listener: Listener):
        self.name, self.stop, self.listener = name, stop, listener
        self.times: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.stop.possible = True
        self.times = [time.monotonic()]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Check the loss, before the step's checkpoint is written: a broken model is never resumed from."""
        if not logs or "loss" not in logs:
            return
        for name, value in (("loss", logs["loss"]), ("norm of the gradient", logs.get("grad_norm", 0.0))):
            if value != value or abs(value) == float("inf"):
                step = state.global_step
                raise FinetuneError(f"{self.name}: the {name} became {value} at step {step}; try a lower lr.")
        self.times = [*self.times[-WINDOW:], time.monotonic()]
        pace = (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        self.listener.step(state.global_step, state.max_steps, logs["loss"], pace)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint, and for the end, where a signal came."""
        if state.global_step < state.max_steps and self.stop.agreed(args.device):
            self.stop.heeded = control.should_save = control.should_training_stop = True


class JobTrainer(Trainer):
    """Trains one model.

    At steps of `keep_every` all processes call `keep`, at those of `evaluate_every` `judge`, at those of
    `validate_every` and after the last `validate`, which tells whether training is to end, at those of
    `mixture.adapt.every` `adapt`.
    """

    optimizer: Any  # None until there is one

    def __init__(
        self,
        *,
        settings: TrainSettings,
        folder: Path,
        digest: str,
        keep: Callable[[int], object],
        judge: Callable[[int], object],
        validate: Callable[[int], bool],
        adapt: Callable[[int], object],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)  # it would print a line a step
        self.settings, self.folder, self.digest = settings, folder, digest
        self.keep, self.judge, self.validate, self.adapt = keep, judge, validate, adapt
        self.kept = self.judged = self.looked_at = 0
        self.counts = [0, 0]  # tokens and rows since the last log
        self.began = time.monotonic()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make AdamW, with a group for each learning rate."""
        if self.optimizer is None:
            model = self.model if model is None else model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            groups = parameter_groups(model, self.settings, self.get_decay_parameter_names(model))
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Give the micro-batches of a step, tiles that came as bytes normalised, and how many tokens it learns.

        Tokens and rows are counted.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.counts = [sum(counts) for counts in zip(self.counts, *map(_counts, batches), strict=True)]
        batches = [self.data_collator.normalise_tiles(batch) for batch in batches]
        if items is None:
            learnt = torch.tensor(sum(count_learnt(batch) for batch in batches), device=device)
            items = self.accelerator.reduce(learnt)
        return batches, items

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Give a micro-batch's part of the loss of the step, each token of which weighs the same.

        Some models (Qwen2.5-VL, Qwen3-VL) know the mean over the micro-batch alone, which transformers divides by
        their number in the step, and torch by the number of processes.
        """
        if self.model_accepts_loss_kwargs or num_items_in_batch is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        mean, outputs = super().compute_loss(model, inputs, return_outputs=True)
        parts = self.current_gradient_accumulation_steps * self.accelerator.num_processes
        loss = mean * (parts * count_learnt(inputs) / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Tensor]) -> int:
        """Give 0: to count would walk through all parameters at every step, to multiply by 6."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log speed, totals, and the learning rates of parts with their own.

        Totals go on after an interruption: they stand in the checkpoint with the rest of the log.
        """
        if "loss" in logs:
            now = time.monotonic()
            passed, self.began = max(now - self.began, 1e-9), now
            before: dict[str, float] = next((log for log in reversed(self.state.log_history) if "loss" in log), {})
            totals = self.accelerator.reduce(torch.tensor(self.counts, device=self.args.device)).tolist()
            self.counts = [0, 0]
            for name, count in zip(("tokens", "rows"), totals, strict=True):
                logs[name], logs[f"{name}_per_second"] = before.get(name, 0) + count, count / passed
            logs["seconds"] = before.get("seconds", 0.0) + passed
            share = logs["learning_rate"] / self.optimizer.param_groups[0]["initial_lr"]  # of the schedule
            logs |= {f"learning_rate/{part}": share * rate for part, rate in self.settings.lr_overrides.items()}
        super().log(logs, start_time)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self._look()
        super()._maybe_log_save_evaluate(*args, **kwargs)
        step, every = self.state.global_step, self.settings.keep_every
        if every and step % every == 0 and self.kept < step < self.state.max_steps:
            self.kept = step
            self.keep(step)
        if (interval := self.settings.evaluate_every) and step % interval == 0 and step > self.judged:
            self.judged = step
            self.judge(step)

    def _look(self) -> None:
        """Look at what is held out, before the step's checkpoint, which has its losses in its log."""
        step, every, was_to_log = self.state.global_step, self.settings.validate_every, self.control.should_log
        if step <= self.looked_at:
            return
        self.looked_at = step
        if (adapt := self.settings.mixture.adapt) and step % adapt.every == 0 and step < self.state.max_steps:
            self.adapt(step)
        if every and (step % every == 0 or step == self.state.max_steps) and self.validate(step):
            self.control.should_training_stop = True
            self.control.should_save = False  # from a checkpoint of this step training would go on
        self.control.should_log = was_to_log  # which a log of the losses took for done

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save as transformers does, then move it to its name."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            checkpoints.complete(self.folder, self.state.global_step, self.digest)
            remove_others(self.folder, best_step(self.state.log_history))
        self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save what training has changed; where parameters are sharded, they are in the optimizer's state."""
        if self.is_world_process_zero() and not self._is_sharded:
            checkpoints.save_trained(self.model, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._is_sharded:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            checkpoints.load_trained(self.model, Path(resume_from_checkpoint))

    @property
    def _is_sharded(self) -> bool:
        return self.is_fsdp_enabled or self.is_deepspeed_enabled


def count_learnt(batch: dict[str, Tensor]) -> int:
    """Count the tokens that a batch's loss is the mean over: the first of a sequence is not predicted."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


def _counts(batch: dict[str, Tensor]) -> tuple[int, int]:
    """Tokens and rows of a batch, padding left out; packed rows begin where positions do."""
    if "attention_mask" in batch:
        return int(batch["attention_mask"].sum()), len(batch["input_ids"])
    of_text = batch["position_ids"].reshape(-1, batch["input_ids"].numel())[0]
    return batch["input_ids"].numel(), int((of_text == 0).sum())
