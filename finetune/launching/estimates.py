"""What a job would take, before it runs: memory of a GPU, rows, steps, time. Estimates, from headers and earlier runs.

    weights       4 bytes a parameter: all are held in float32
    trained       12 more: gradient, and Adam's two moments
    activations   34 S H bytes a layer (S tokens, width H, 16-bit), or 2 S H where they are computed again, and 10 bytes
                  a token and word of the vocabulary for the logits and their gradient

Source of the activations: Korthikanti et al., arXiv 2205.05198, section 4.1 and 5, without the attention's own matrix,
which sdpa and flash attention never hold. Rows count as long as `max_length`; encoders' activations, buffers and what
the allocator wastes are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypedDict

from finetune.config import DataSet, TrainSettings
from finetune.jobs import Job, Json, read_state
from finetune.launching.digests import Content
from finetune.launching.executors.local import local_gpus
from finetune.launching.start_check import adapted_layers, read_model_config, shapes_of, trained_in_full

__all__ = ["Estimate", "EstimateDocument", "estimate", "smallest_gpu_bytes", "trained_parameters"]

GENERAL = DataSet.model_fields["category"].default
# Settings that the time of a step depends on.
PACE = ("global_batch_size", "micro_batch", "max_length", "precision", "parallel", "freeze", "train", "lora", "packing")
SHARED = {"ddp": (1, 1), "zero2": (1, 2), "zero3": (2, 2), "fsdp": (2, 2)}  # weights, the rest: 2 is shared out


class EstimateDocument(TypedDict):
    """An `Estimate`, for JSON."""

    name: str
    rows: int | None
    steps: int | None
    parameters: int | None
    trained: int | None
    memory_bytes: int | None
    seconds: float | None


@dataclass(frozen=True)
class Estimate:
    """What a job would take; None is unknown.

    Args:
        name: The job's.
        rows: Of its data, each counted once.
        steps: How many there are.
        parameters: Of the model.
        trained: How many of those learn.
        memory_bytes: Of each GPU.
        seconds: Of the whole job.
    """

    name: str
    rows: int | None
    steps: int | None
    parameters: int | None
    trained: int | None
    memory_bytes: int | None
    seconds: float | None

    def as_json(self) -> EstimateDocument:
        """Give all of it."""
        return {
            "name": self.name,
            "rows": self.rows,
            "steps": self.steps,
            "parameters": self.parameters,
            "trained": self.trained,
            "memory_bytes": self.memory_bytes,
            "seconds": self.seconds,
        }


def estimate(job: Job, contents: Mapping[str, Content], gpus: int, others: Iterable[Job] = ()) -> Estimate:
    """Estimate what a job would take.

    Args:
        job: the job.
        contents: what its data sets hold, by their paths.
        gpus: of the job.
        others: jobs whose speed, or start, is used where this one has none yet.
    """
    others = list(others)
    start = _start(job, others)
    rows = [contents[data_set.path].rows for data_set in job.data if data_set.path in contents]
    known = [count for count in rows if count is not None]
    total = sum(known) if len(known) == len(job.data) else None
    shapes = shapes_of(start)
    steps = _steps(job, contents, total)
    trained = trained_parameters(shapes, job.settings) if shapes else None
    count = sum(map(math.prod, shapes.values())) if shapes else None
    memory = None
    if count is not None and trained is not None:
        memory = _state_bytes(count, trained, job.settings, gpus) + _activation_bytes(job, start, gpus)
    speed = _speed([job, *others])
    return Estimate(job.name, total, steps, count, trained, memory, speed * steps if speed and steps else None)


def _start(job: Job, others: Sequence[Job]) -> Path:
    """Where the headers are: those of the start, or of what the start is to be trained from."""
    before = next((other for other in others if other.name == job.after), None)
    return Path(job.start) if Path(job.start).is_dir() or before is None else Path(before.start)


def trained_parameters(shapes: Mapping[str, Sequence[int]], settings: TrainSettings) -> int:
    """Count the numbers that learn, by the names of tensors in the file, which are near to the model's."""
    rank = settings.lora.rank if settings.lora else 0
    pairs = sum(rank * sum(shapes[name]) for name in adapted_layers(shapes, settings))
    return pairs + sum(math.prod(shapes[name]) for name in trained_in_full(shapes, settings))


def _state_bytes(count: int, trained: int, settings: TrainSettings, gpus: int) -> int:
    """Weights, gradients and moments on one of the GPUs."""
    weights, rest = SHARED.get(settings.parallel, (1, 1))
    return 4 * count // (gpus if weights == 2 else 1) + 12 * trained // (gpus if rest == 2 else 1)


def _activation_bytes(job: Job, start: Path, gpus: int) -> int:
    """Return what a step keeps for the backward pass, as far as the language model's configuration tells."""
    config = _language_config(start)
    width, layers, words = (_whole(config.get(key)) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    if not width or not layers:
        return 0
    settings = job.settings
    rows = settings.micro_batch or max(1, settings.global_batch_size // max(1, gpus))
    tokens = rows * settings.max_length
    kept = 2 * layers + 34 if settings.gradient_checkpointing else 34 * layers
    return tokens * width * kept + 10 * tokens * words


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _language_config(start: Path) -> Json:
    whole = read_model_config(start)
    parts = (whole.get(name) for name in ("text_config", "llm_config"))
    return next((part for part in parts if isinstance(part, dict)), whole)


def _steps(job: Job, contents: Mapping[str, Content], rows: int | None) -> int | None:
    if job.settings.steps is not None:
        return job.settings.steps
    if rows is None or job.settings.packing:  # packs are counted once all rows' tokens are
        return None
    samples = _epoch_rows(job, contents) * Fraction(str(job.settings.epochs or 0))
    return math.ceil(samples / job.settings.global_batch_size)


def _epoch_rows(job: Job, contents: Mapping[str, Content]) -> Fraction:
    """Return the rows that an epoch visits: by weights and categories, without those that are held out.

    Shares of groups, and those that follow the model, leave the number as it is.
    """
    adapt, ratios = job.settings.mixture.adapt, job.settings.mixture.categories
    shares = [share for share in (job.settings.validation_share, adapt.held_out if adapt else 0) if share]
    visits: dict[str, Fraction] = {}
    for data_set in job.data:
        rows = contents[data_set.path].rows or 0
        learnt = rows - sum(max(1, round(share * rows)) for share in shares)
        visits[data_set.category] = visits.get(data_set.category, Fraction(0)) + learnt * Fraction(str(data_set.weight))
    general = visits.get(GENERAL, Fraction(0))
    return sum(
        (Fraction(str(ratios[name])) * general if name in ratios else n for name, n in visits.items()), Fraction(0)
    )


def _speed(jobs: Sequence[Job]) -> float | None:
    """Seconds a step, of the job's own earlier attempt, else of one that is trained alike."""
    settings = jobs[0].settings

    for job in jobs:
        state = read_state(job.folder)
        alike = all(getattr(job.settings, name) == getattr(settings, name) for name in PACE)
        if state and state.seconds_per_step and alike:
            return state.seconds_per_step
    return None


def smallest_gpu_bytes() -> int | None:
    """Give the memory of this host's smallest GPU; None where there is none that tells."""
    known = [gpu.memory_bytes for gpu in local_gpus() if gpu.memory_bytes]
    return min(known, default=None)
