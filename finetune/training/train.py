"""One model, trained: start, parts and adapters, rows, transformers' Trainer, saved as an ordinary checkpoint."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments
from transformers import set_seed as transformers_seed
from transformers.utils import logging as transformers_logging

from finetune.data import Corpus
from finetune.jobs import Job, read_stamp
from finetune.points.model import PointsForConditionalGeneration
from finetune.training import checkpoints, parallel
from finetune.training.adapters import attach, fold
from finetune.training.arguments import precision, training_arguments
from finetune.training.components import choose_trained, learning_rates
from finetune.training.disk_space import check_room
from finetune.training.input_pipeline import Feed, feed
from finetune.training.logs import loggers
from finetune.training.saving import Origin, one_tensor_each, publish, save, versions
from finetune.training.start_model import open_start, start_place
from finetune.training.trainer import JobTrainer, StopRequest, Watch
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["Run", "prepare", "train_job"]

Tell = Callable[[int, int, float, float], object]
"""Called with steps done, steps in all, the latest loss, and seconds a step."""


@dataclass
class Run:
    """All that one training is made of, ready to begin."""

    job: Job
    digest: str
    trainer: JobTrainer
    model: PreTrainedModel
    origin: Origin
    food: Feed

    def write(self, state: dict[str, Tensor], out: Path) -> None:
        """The model as an ordinary checkpoint: adapters folded in, rounded once."""
        settings = self.job.settings
        save(self.model, fold(state, settings), self.origin, settings, out)

    def keep(self, out: Path, **about: Any) -> None:
        """Writes the model as it is now to `out`; all processes take part, the first one writes."""
        state = self.trainer.accelerator.get_state_dict(self.trainer.model_wrapped)
        # One that an attempt before has written stays: it is the same.
        if self.trainer.is_world_process_zero() and not _made_by(self.digest, out):
            publish(self.job.folder / "part", out, self.stamp() | about, lambda part: self.write(state, part))
        self.trainer.accelerator.wait_for_everyone()

    def stamp(self) -> dict[str, Any]:
        """What `finetune.json` says."""
        job = self.job
        told: dict[str, Any] = {"digest": self.digest, "digests": dict(job.digests), "name": job.name}
        told |= {"start": job.start, "data": [one.model_dump() for one in job.data]}
        told |= {"settings": job.settings.as_stored(), "mixture": self.food.manifest}
        return told | {"precision": precision(job.settings), "versions": versions()} | self.metrics()

    def metrics(self) -> dict[str, Any]:
        """How it went: losses are means of the first and last tenth of the steps."""
        logs = [log for log in self.trainer.state.log_history if "loss" in log]
        losses = [log["loss"] for log in logs] or [float("nan")]
        tenth = max(1, len(losses) // 10)
        last = logs[-1] if logs else {"step": 0, "seconds": 0.0, "tokens": 0, "rows": 0}
        return {
            "steps": last["step"],
            "rows": self.food.count,
            "rows_seen": last["rows"],
            "tokens": last["tokens"],
            "seconds": round(last["seconds"], 1),
            "first_loss": round(sum(losses[:tenth]) / tenth, 4),
            "last_loss": round(sum(losses[-tenth:]) / tenth, 4),
        }


def train_job(job: Job, digest: str, tell: Tell, stop: StopRequest) -> bool:
    """Trains a job's model, from its last checkpoint where it has one, and writes its ingredient; whether it is done.

    It is not where `stop` was asked for: then a checkpoint was written at the end of the step.

    Raises:
        FinetuneError: settings, data or start that don't work, no room, or a loss that is not finite.
        OSError: a file that can't be written.
    """
    parallel.join(job.settings.parallel)
    with _without_bars():
        run = prepare(job, digest, tell, stop)
        resumed = checkpoints.newest(job.folder, digest)
        run.trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if stop.heeded:
            return False
        run.keep(job.out)
    return True


def prepare(job: Job, digest: str, tell: Tell, stop: StopRequest) -> Run:
    """Everything before the first step, all checks among it.

    Raises:
        FinetuneError: as `train_job`.
    """
    corpus = Corpus(job.data)
    model, origin = _opened(job, corpus)
    food = feed(corpus, model, origin.processor, job.settings)
    job.folder.mkdir(parents=True, exist_ok=True)
    check_room(model, job.settings, food.rows.steps, job.folder)
    _check_kept(job, digest, food.rows.steps)
    resumed = checkpoints.newest(job.folder, digest)
    done = int(resumed.name.removeprefix("step-")) if resumed else 0
    trainer = JobTrainer(
        settings=job.settings,
        folder=job.folder,
        digest=digest,
        keep=lambda step: run.keep(_kept(job, step), step=step),
        model=model,
        args=_arguments(job, model, food.rows.steps),
        train_dataset=food.rows,
        data_collator=food.collator,
        callbacks=[Watch(job.name, stop, tell), *loggers(job.settings, job.name, job.folder, done)],
    )
    run = Run(job, digest, trainer, model, origin, food)
    return run


def _opened(job: Job, corpus: Corpus) -> tuple[PreTrainedModel, Origin]:
    """The model, its adapters in place and what stays frozen, and what it came with."""
    transformers_seed(job.settings.seed)
    # A tokenizer that is made here knows the words of the first data set: those of one pool share that, and no other.
    model, processor = open_start(job.start, job.settings, corpus.texts())
    origin = Origin(copy.deepcopy(model.config), processor, start_place(job.start), one_tensor_each(model))
    if job.settings.lora:
        attach(model, job.settings)
    choose_trained(model, job.settings)
    model.train()  # the model knows of weights that nothing depends on
    learning_rates(model, job.settings)
    return model, origin


def _arguments(job: Job, model: PreTrainedModel, steps: int) -> TrainingArguments:
    even = isinstance(model, PointsForConditionalGeneration)  # a batch of text goes by way of all that is trained
    return training_arguments(job.settings, steps, parallel.world_size(), checkpoints.scratch(job.folder), even=even)


def _kept(job: Job, step: int) -> Path:
    return job.out.with_name(f"{job.out.name}-step{step}")


def _check_kept(job: Job, digest: str, steps: int) -> None:
    """Says where models on the way would have to be written over others.

    Raises:
        FinetuneError: they stand there already.
    """
    every = job.settings.keep_every or steps
    places = [_kept(job, step) for step in range(every, steps, every)]
    taken = [str(place) for place in places if place.exists() and not _made_by(digest, place)]
    if taken:
        raise FinetuneError(
            f"{len(taken)} models stand there already, of another job; remove them:\n{bullet_list(taken)}"
        )


def _made_by(digest: str, out: Path) -> bool:
    stamp = read_stamp(out)
    return stamp is not None and stamp.get("digest") == digest


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
