"""One model, trained: start, parts and adapters, rows, transformers' Trainer, saved as an ordinary checkpoint."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments
from transformers import set_seed as transformers_seed

from finetune.config import TrainSettings
from finetune.data import Corpus
from finetune.data.adaptive_order import AdaptiveOrder, reweigh
from finetune.jobs import Job, Stamp, has_digest
from finetune.points.model import PointsForConditionalGeneration
from finetune.training import checkpoints, parallel
from finetune.training.adapters import attach, fold, write_adapter
from finetune.training.arguments import precision, shares, training_arguments
from finetune.training.best_model import LOSS, best_folder, best_step, is_stalled, remove_later, remove_others
from finetune.training.components import choose_trained, learning_rates
from finetune.training.disk_space import check_disk_space
from finetune.training.evaluation import scores_on_the_way
from finetune.training.input_pipeline import InputPipeline, build_input_pipeline
from finetune.training.listener import Listener
from finetune.training.logs import loggers
from finetune.training.saving import Origin, publish, publish_written, save, tied_names, versions
from finetune.training.start_model import open_start, start_folder
from finetune.training.trainer import JobTrainer, StopCallback, StopRequest
from finetune.training.validation import measure_losses
from finetune.training.watching import check_evaluation
from soup.errors import FinetuneError
from soup.hf.progress_bars import without_progress_bars
from soup.support.text import bullet_list

__all__ = ["TrainingRun", "prepare", "train_job"]

SHARES = "mixture/"  # in the log, before a category's name


@dataclass
class TrainingRun:
    """All that one training is made of, ready to begin; `trained` are the names of the weights that learn."""

    job: Job
    digest: str
    trainer: JobTrainer
    model: PreTrainedModel
    origin: Origin
    pipeline: InputPipeline
    trained: list[str]
    listener: Listener

    def write(self, state: dict[str, Tensor], out: Path) -> None:
        """Write the model as an ordinary checkpoint, adapters folded in, rounded once; or its adapter by itself."""
        settings = self.job.settings
        if settings.lora and settings.lora.keep_adapter:
            write_adapter(state, self.trained, settings, self.job.start, out)
        else:
            save(self.model, fold(state, settings), self.origin, settings, out)

    def keep(self, out: Path, step: int | None = None) -> None:
        """Write the model as it is now to `out`; all processes take part, the first one writes.

        Args:
            out: where the ingredient goes.
            step: of a snapshot before the end.
        """
        state = self.trainer.accelerator.get_state_dict(self.trainer.model_wrapped)
        # One that an attempt before has written stays: it is the same.
        if self.trainer.is_world_process_zero() and not has_digest(out, self.digest):
            publish(self.job.folder / "part", out, self.stamp(step), lambda part: self.write(state, part))
        self.trainer.accelerator.wait_for_everyone()

    def judge(self, step: int) -> None:
        """Score the model as it is now, into the log and its curves."""
        scores = scores_on_the_way(self.model, self.origin.processor, self.job.settings)
        self.trainer.log({f"score/{name}": score for name, score in scores.items()})
        self.listener.scores(step, scores)

    def validate(self, step: int) -> bool:
        """Take the loss on what is held out, keep the model if it is the best; whether training is to end."""
        settings, trainer = self.job.settings, self.trainer
        losses = measure_losses(trainer, self.pipeline.validation, trainer.args.per_device_train_batch_size)
        trainer.log(losses.as_logs())
        best = best_step(trainer.state.log_history) or step
        self.listener.losses(step, losses.loss, best)
        if settings.keep_best and best == step:
            self.keep(best_folder(self.job.folder, step), step)
            if not settings.checkpoint_every and trainer.is_world_process_zero():
                remove_others(self.job.folder, step)
        return is_stalled(trainer.state.log_history, settings)

    def adapt(self, step: int) -> None:
        """Weigh the categories of the stretch after the next by the losses that the model has now."""
        adapt, order = self.job.settings.mixture.adapt, self.pipeline.rows.order
        if adapt is None or not isinstance(order, AdaptiveOrder):
            raise TypeError("expected a mixture that follows the model")
        losses = measure_losses(
            self.trainer, self.pipeline.rows.steering, self.trainer.args.per_device_train_batch_size
        )
        stretch = step // adapt.every + 1
        weighed = reweigh(order.shares_of(stretch - 1), losses.categories, adapt)
        order.set_shares(stretch, weighed)
        logs = {f"{SHARES}{name}": share for name, share in weighed.items()}
        self.trainer.log({**logs, **{f"mixture_loss/{name}": loss for name, loss in losses.categories.items()}})
        self.listener.shares(step, weighed)

    def finish(self) -> None:
        """Write the ingredient: the model as it is now, or with `keep_best` the one that had the lowest loss."""
        best = best_step(self.trainer.state.log_history) if self.job.settings.keep_best else None
        if best is None:
            self.keep(self.job.out)
        elif self.trainer.is_world_process_zero():
            loss = min(log[LOSS] for log in self.trainer.state.log_history if LOSS in log)
            stamp: Stamp = {**self.stamp(best), "validation_loss": round(loss, 4)}
            publish_written(best_folder(self.job.folder, best), self.job.out, stamp)
        self.trainer.accelerator.wait_for_everyone()

    def stamp(self, step: int | None = None) -> Stamp:
        """Give what `finetune.json` holds: what the model was made from, and how training went."""
        job = self.job
        stamp: Stamp = {
            "digest": self.digest,
            "digests": job.digests,
            "name": job.name,
            "start": job.start,
            "data": [data_set.model_dump() for data_set in job.data],
            "settings": job.settings.as_stored(),
            "mixture": self.pipeline.rows.manifest,
            "precision": precision(job.settings),
            "versions": versions(),
            **self.metrics(),
        }
        return stamp if step is None else {**stamp, "step": step}

    def metrics(self) -> Stamp:
        """Give how training went: losses are means of the first and last tenth of the steps."""
        logs = [log for log in self.trainer.state.log_history if "loss" in log]
        losses = [log["loss"] for log in logs] or [float("nan")]
        tenth = max(1, len(losses) // 10)
        last: dict[str, Any] = logs[-1] if logs else {"step": 0, "seconds": 0.0, "tokens": 0, "rows": 0}
        return {
            "steps": last["step"],
            "rows": self.pipeline.count,
            "rows_seen": last["rows"],
            "tokens": last["tokens"],
            "seconds": round(last["seconds"], 1),
            "first_loss": round(sum(losses[:tenth]) / tenth, 4),
            "last_loss": round(sum(losses[-tenth:]) / tenth, 4),
        }


def train_job(job: Job, digest: str, stop: StopRequest, listener: Listener | None = None) -> bool:
    """Train a job's model, from its last checkpoint where it has one, and write its ingredient; whether it is done.

    Args:
        job: what to train.
        digest: the job's.
        stop: where it is requested, a checkpoint is written at the end of the step, and the job is not done.
        listener: hears how it goes.

    Raises:
        FinetuneError: settings, data or start that don't work, too small a disk, or a loss that is not finite.
        EvaluatorError: a benchmark of `evaluate` is unknown, or its data are not here.
        OSError: a file that can't be written.
    """
    parallel.join(job.settings.parallel)
    with without_progress_bars():
        run = prepare(job, digest, stop, listener)
        resumed = checkpoints.newest(job.folder, digest)
        run.trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if stop.heeded:
            return False
        run.finish()
    return True


def prepare(job: Job, digest: str, stop: StopRequest, listener: Listener | None = None) -> TrainingRun:
    """Do everything before the first step, all checks among it; arguments as `train_job` has them.

    Raises:
        FinetuneError: as `train_job`.
    """
    listener = listener or Listener()
    check_evaluation(job.settings, parallel.world_size())
    corpus = Corpus(job.data)
    model, origin = _open_model(job, corpus)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    pipeline = build_input_pipeline(corpus, model, origin.processor, job.settings)
    job.folder.mkdir(parents=True, exist_ok=True)
    check_disk_space(model, job.settings, pipeline.rows.steps, job.folder)
    _check_snapshots(job, digest, pipeline.rows.steps)
    resumed = checkpoints.newest(job.folder, digest)
    done = int(resumed.name.removeprefix("step-")) if resumed else 0
    if parallel.is_first():
        remove_later(job.folder, done)
    _restore_shares(pipeline, job.settings, resumed)
    trainer = JobTrainer(
        settings=job.settings,
        folder=job.folder,
        digest=digest,
        keep=lambda step: run.keep(_snapshot(job, step), step),
        judge=lambda step: run.judge(step),
        validate=lambda step: run.validate(step),
        adapt=lambda step: run.adapt(step),
        model=model,
        args=_arguments(job, model, pipeline.rows.steps),
        train_dataset=pipeline.rows,
        data_collator=pipeline.collator,
        callbacks=[StopCallback(job.name, stop, listener), *loggers(job.settings, job.name, job.folder, done)],
    )
    run = TrainingRun(job, digest, trainer, model, origin, pipeline, trained, listener)
    return run


def _open_model(job: Job, corpus: Corpus) -> tuple[PreTrainedModel, Origin]:
    """Return the model, its adapters in place and what stays frozen, and what it came with."""
    transformers_seed(job.settings.seed)
    # A tokenizer that is made here knows the words of the first data set: those of one pool share that, and no other.
    model, processor = open_start(job.start, job.settings, corpus.texts())
    origin = Origin(copy.deepcopy(model.config), processor, start_folder(job.start), tied_names(model))
    if job.settings.lora:
        if job.settings.lora.keep_adapter and origin.folder is None:
            raise FinetuneError(
                f"lora.keep_adapter: an adapter needs the checkpoint that it stands on, and {job.start} is made anew "
                "here. Train the start first (`start: {start: ..., data: ...}`), or name one that is written."
            )
        attach(model, job.settings)
    choose_trained(model, job.settings)
    model.train()  # where the model freezes the weights that nothing depends on
    learning_rates(model, job.settings)
    return model, origin


def _arguments(job: Job, model: PreTrainedModel, steps: int) -> TrainingArguments:
    even = isinstance(model, PointsForConditionalGeneration)  # whose batches of text alone reach all trained weights
    return training_arguments(job.settings, steps, parallel.world_size(), checkpoints.scratch(job.folder), even=even)


def _restore_shares(pipeline: InputPipeline, settings: TrainSettings, resumed: Path | None) -> None:
    """Have a mixture that follows the model go on with the shares of a checkpoint's log.

    Raises:
        FinetuneError: so many batches are read ahead that shares would come too late.
    """
    adapt, order = settings.mixture.adapt, pipeline.rows.order
    if adapt is None or not isinstance(order, AdaptiveOrder):
        return
    least = math.ceil((2 * settings.workers + 2) / shares(settings, parallel.world_size())[1])
    if adapt.every < least:
        raise FinetuneError(f"mixture.adapt.every: batches are read ahead; expected {least} or more, or fewer workers.")
    history = json.loads((resumed / "trainer_state.json").read_text())["log_history"] if resumed else []
    for log in history:
        new_shares = {name.removeprefix(SHARES): share for name, share in log.items() if name.startswith(SHARES)}
        if new_shares:
            order.set_shares(log["step"] // adapt.every + 1, new_shares)


def _snapshot(job: Job, step: int) -> Path:
    return job.out.with_name(f"{job.out.name}-step{step}")


def _check_snapshots(job: Job, digest: str, steps: int) -> None:
    """Check that no snapshot would be written over another job's.

    Raises:
        FinetuneError: they stand there already.
    """
    every = job.settings.keep_every or steps
    paths = [_snapshot(job, step) for step in range(every, steps, every)]
    existing = [str(path) for path in paths if path.exists() and not has_digest(path, digest)]
    if existing:
        raise FinetuneError(
            f"{len(existing)} models stand there already, of another job; remove them:\n{bullet_list(existing)}"
        )
