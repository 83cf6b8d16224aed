"""The model scored on the way: as the checkpoint that it would be written as, without writing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from finetune.config import TrainSettings
from finetune.training.adapters import fold
from soup.search.evaluate import evaluate

__all__ = ["scores_on_the_way"]


def scores_on_the_way(model: PreTrainedModel, processor: object, settings: TrainSettings) -> dict[str, float]:
    """Score the model as it is now on the benchmarks of the settings; training then goes on as if nothing had been.

    Raises:
        SoupError: the harness failed.
    """
    with as_written(model, settings):
        scores = evaluate(model=model, processor=processor, eval=settings.evaluate)
    return {name: score.value for name, score in scores.items()}


@contextmanager
def as_written(model: PreTrainedModel, settings: TrainSettings) -> Iterator[None]:
    """Let the weights be those that would be written for a while: adapters folded in, rounded once."""
    dtype = getattr(torch, settings.dtype)
    with torch.no_grad():
        state = fold(dict(model.state_dict()), settings)
    kept: list[tuple[Tensor, Tensor]] = []
    layers = [module for module in model.modules() if hasattr(module, "_disable_adapters")]
    try:
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            written = state.get(name.replace(".base_layer.", "."))
            if written is not None and written.is_floating_point():
                kept.append((tensor, tensor.data))
                tensor.data = written.detach().to(dtype)
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False
        for tensor, data in kept:
            tensor.data = data
