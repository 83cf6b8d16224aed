"""The loss on rows that are not learnt.

The loss of a set of rows is the mean over all their learnt tokens, summed in float64 from the batches' means, so that
it does not depend on how the rows are cut into batches.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from finetune.data import HeldOutRows
from finetune.training.best_model import LOSS
from finetune.training.trainer import JobTrainer, count_learnt

__all__ = ["HeldOutLosses", "measure_losses"]


@dataclass(frozen=True)
class HeldOutLosses:
    """The mean loss over all tokens, and over those of each category."""

    loss: float
    categories: dict[str, float]

    def as_logs(self) -> dict[str, float]:
        """Give what is logged: one category's loss is the whole."""
        parts = self.categories if len(self.categories) > 1 else {}
        return {LOSS: self.loss, **{f"{LOSS}/{name}": loss for name, loss in parts.items()}}


def measure_losses(trainer: JobTrainer, rows: HeldOutRows, size: int) -> HeldOutLosses:
    """Measure the model as it is now; all processes take part, each on its share. Training goes on as if nothing was.

    Args:
        trainer: the model's, between two steps.
        rows: what is looked at.
        size: rows at once.
    """
    names = sorted(set(rows.categories))
    sums = torch.zeros(len(names), 2, dtype=torch.float64)  # of losses, and of tokens
    model = trainer.model_wrapped
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for name, batch in _batches(trainer, rows, size):
                tokens = count_learnt(batch) if name is not None else 0
                inputs = trainer._prepare_inputs(trainer.data_collator.normalise_tiles(batch))
                with trainer.compute_loss_context_manager():
                    loss = float(model(**inputs).loss)
                if tokens:
                    sums[names.index(str(name))] += torch.tensor([loss * tokens, tokens], dtype=torch.float64)
    finally:
        model.train(was_training)
    sums = trainer.accelerator.reduce(sums.to(trainer.args.device)).cpu()
    total, *means = ((part[0] / part[1]).item() for part in (sums.sum(0), *sums))
    return HeldOutLosses(total, dict(zip(names, means, strict=True)))


def _batches(trainer: JobTrainer, rows: HeldOutRows, size: int) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield this process's batches, each of one category; all have as many, or some would wait: None is not counted."""
    collator = copy.copy(trainer.data_collator)
    collator.replacement = rows.after if collator.replacement else None
    cuts = []
    for name, members in groupby(range(len(rows)), lambda n: rows.categories[n]):
        numbers = list(members)
        cuts += [(name, numbers[first : first + size]) for first in range(0, len(numbers), size)]
    rank, world = trainer.args.process_index, trainer.args.world_size
    for n in range(rank, -(-len(cuts) // world) * world, world):
        name, numbers = cuts[min(n, len(cuts) - 1)]
        yield (name if n < len(cuts) else None), collator([rows[number] for number in numbers])
