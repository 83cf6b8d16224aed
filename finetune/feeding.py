"""What a run is fed: the row at each of its positions, and what makes batches of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from finetune.config import Settings
from finetune.data import Album, Collator, Conversations, Corpus
from finetune.points.model import PointsForConditionalGeneration
from soup.errors import FinetuneError

__all__ = ["Feed", "feed"]


@dataclass(frozen=True)
class Feed:
    """`rows`: by their position in the whole run; `count`: how many there are before any is repeated."""

    rows: Dataset
    collator: Callable[[list[Any]], dict[str, torch.Tensor]]
    count: int
    steps: int


def feed(corpus: Corpus, model: Any, processor: Any, settings: Settings, features: Album) -> Feed:
    """For a model whose parts are frozen already.

    Raises:
        FinetuneError: rows or settings that don't work with each other or with the model.
    """
    steps = settings.steps or -(-int(len(corpus) * settings.epochs) // settings.batch)
    rows = _Positions(Conversations(corpus, processor), steps * settings.batch, settings.seed)
    return Feed(rows, _collator(model, processor, settings, features), len(corpus), steps)


class _Positions(Dataset):
    """The rows of a whole run: every epoch all of them, each epoch in an order of its own."""

    def __init__(self, rows: Dataset, count: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        epochs = -(-count // len(rows))
        orders = [torch.randperm(len(rows), generator=generator) for _ in range(epochs)]
        self.rows, self.order = rows, torch.cat(orders)[:count].tolist()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> Any:
        return self.rows[self.order[i]]


def _collator(model: Any, processor: Any, settings: Settings, features: Album) -> Collator:
    """Gives the model tiles, or, where its encoders are frozen and it is asked for, what they saw in them.

    Raises:
        FinetuneError: features are to be remembered of encoders that change, or of a model that can't be given them.
    """
    if not settings.cache_features:
        return Collator(processor, Album())
    if not isinstance(model, PointsForConditionalGeneration):
        raise FinetuneError(f"cache_features: only of POINTS models, not of {type(model).__name__}.")
    encoders = model.config.vision_configs
    moving = [name for name in encoders if any(p.requires_grad for p in model.get_submodule(name).parameters())]
    if moving:
        raise FinetuneError(f"cache_features: {', '.join(moving)} would be trained; name them in `freeze`, too.")
    if settings.workers:
        raise FinetuneError("cache_features: the training process itself asks the encoders: set workers to 0.")
    return Collator(processor, features, model.encode, "vision_features")
