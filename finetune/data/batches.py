r"""Rows into batches: pictures become tiles, conversations token ids, and nothing is done before a batch asks for it.

B   rows of a batch       S   tokens of a row       T   tiles of all images of a batch, one after another
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from finetune.data.pixels import normalise_tiles
from finetune.data.row_images import load_image
from finetune.data.rows import Picture, TrainingRow
from finetune.data.tokens import IGNORED, RowTokenizer
from finetune.jobs import LEFT_OUT
from finetune.points.token_layout import Tiles, as_tiles
from soup.errors import FinetuneError

Made = TypeVar("Made")
__all__ = ["Collator", "FeatureCache", "Replacement", "replace_bad_row"]

log = logging.getLogger(__name__)
TRIED_INSTEAD = 100
Replacement = Callable[[TrainingRow], TrainingRow]
"""Gives the row after one that turned out to be bad."""


class Encoded(NamedTuple):
    """What was made of a picture: `values` of its tiles, one after another, and how they become tokens."""

    values: Tensor
    tiles: Tiles


class FeatureCache:
    """What was made of each picture, kept up to a limit: tiles, or the features of frozen encoders."""

    def __init__(self, max_bytes: int = 2**30):
        self.free_bytes = max_bytes
        self.features: dict[str, Encoded] = {}

    def get(self, keys: Sequence[str], make: Callable[[list[str]], list[Encoded]]) -> list[Encoded]:
        """Give what was made per key; what is not kept is made in one call."""
        missing = [key for key in dict.fromkeys(keys) if key not in self.features]
        added = dict(zip(missing, make(missing), strict=True)) if missing else {}
        for key, (values, tiles) in added.items():
            if values.nbytes <= self.free_bytes:
                self.free_bytes -= values.nbytes
                # A copy: a part of a larger tensor would keep the whole of it in memory.
                self.features[key] = Encoded(values.clone(), tiles)
        return [added[key] if key in added else self.features[key] for key in keys]


class Collator:
    """A batch from rows: tokens with as many image tokens as tiles need, padded on the right, and the images.

    Rows are never cut: one of more than `max_length` tokens is an error. With `packing` each item is a list of rows,
    and all rows of a batch make one sequence [1, S] without padding, whose `position_ids` start at 0 with each row:
    without an attention mask, transformers then keeps each row to itself.

    Args:
        processor: the model's.
        cache: of what is made of each picture.
        encode: turns the tiles of images [T, 3, V, V] into the features of frozen encoders; by default the tiles
            themselves are given to the model.
        name: the model's argument that takes them.
        max_length: tokens of a row.
        packing: several rows in one sequence.
        replacement: gives the row after one that turned out to be bad (a picture whose header was fine, but not the
            rest). Bad rows are then left out of their batch, and logged; where nothing is left, a row takes the place
            of the last one.
        as_bytes: leave the tiles bytes, for `normalise_tiles` to make numbers of where the model is.
    """

    def __init__(
        self,
        processor: Any,
        cache: FeatureCache,
        encode: Callable[[Tensor], Tensor] | None = None,
        name: str = "pixel_values",
        *,
        max_length: int | None = None,
        packing: bool = False,
        replacement: Replacement | None = None,
        as_bytes: bool = False,
    ):
        self.processor = processor
        self.tokens = RowTokenizer(processor)
        self.cache = cache
        if encode and as_bytes:
            raise ValueError("what is to be encoded must be numbers, not bytes.")
        self.encode = encode
        self.name = name
        self.as_bytes = as_bytes
        self.max_length, self.packing, self.replacement = max_length, packing, replacement

    def __call__(self, items: Sequence[TrainingRow] | Sequence[Sequence[TrainingRow]]) -> dict[str, Tensor]:
        """Make `input_ids`, `labels` [B, S], and the images of the batch where it has any.

        And `attention_mask` [B, S], or with packing `position_ids` [1, S].

        Raises:
            FinetuneError: a bad row, by its data set, number and picture.
        """
        rows = [row for item in items for row in ([item] if isinstance(item, dict) else item)]
        features_of_row, rows = self._features(rows)
        encoded = [self._encoded(row, features) for row, features in zip(rows, features_of_row, strict=True)]
        batch = _packed(encoded) if self.packing else self._padded(encoded)
        images = [encoded for features in features_of_row for encoded in features]
        if not images:
            return batch
        kept = self.processor.kept_tokens([image.tiles for image in images])
        batch[self.name] = _concatenate([image.values for image in images])
        return batch if kept is None else {**batch, "kept_tokens": kept}

    def normalise_tiles(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give the batch with tiles that the model takes, wherever it is now."""
        return normalise_tiles(batch, self.processor.image_processor) if self.as_bytes else batch

    def _features(self, rows: list[TrainingRow]) -> tuple[list[list[Encoded]], list[TrainingRow]]:
        """Return what is made of each row's pictures, and the rows that are left."""
        try:
            return self._features_of(rows), rows
        except FinetuneError:
            if not self.replacement:
                raise
        good, features = [], []
        for row in rows:
            try:
                features += self._features_of([row])
                good.append(row)
            except FinetuneError as error:
                log.warning("%s%s", LEFT_OUT, error)
        if good:
            return features, good
        return replace_bad_row(rows[-1], self.replacement, lambda row: (self._features_of([row]), [row]))

    def _features_of(self, rows: list[TrainingRow]) -> list[list[Encoded]]:
        pictures = {picture.key: picture for row in rows for picture in row["images"]}
        keys = [picture.key for row in rows for picture in row["images"]]
        features = iter(self.cache.get(keys, lambda missing: self._make([pictures[key] for key in missing])))
        return [[next(features) for _ in row["images"]] for row in rows]

    def _make(self, pictures: list[Picture]) -> list[Encoded]:
        """Tiles or features of each picture."""
        # As many frames of a video as its data set has, whatever the processor's own setting.
        frames = max((picture.frames for picture in pictures if picture.frames), default=None)
        options = {"frames": frames, "do_normalize": not self.as_bytes}
        process = self.processor.image_processor
        if not self.encode:
            # One by one: no more than one decoded picture is kept, and its tiles lie where the last one's did.
            made = [process([load_image(picture)], **options) for picture in pictures]
            return [Encoded(inputs["pixel_values"], *_tiles(inputs)) for inputs in made]
        inputs = process([load_image(picture) for picture in pictures], **options)
        with torch.no_grad():
            features = self.encode(inputs["pixel_values"])
        return [Encoded(*each) for each in zip(features.split(inputs["num_tiles"]), _tiles(inputs), strict=True)]

    def _encoded(self, row: TrainingRow, features: list[Encoded]) -> tuple[list[int], list[int]]:
        """Token ids and labels of one row."""
        try:
            ids, labels = self.tokens.encoded(row["segments"], [encoded.tiles for encoded in features])
        except ValueError as error:
            raise FinetuneError(f"{row['where']}: {error}.") from error
        if self.max_length and len(ids) > self.max_length:
            raise FinetuneError(f"{row['where']}: {len(ids)} tokens, more than max_length {self.max_length}.")
        return ids, labels

    def _padded(self, encoded: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
        shape = len(encoded), max(len(ids) for ids, _ in encoded)
        # By numpy: torch takes a microsecond for every few numbers of a list.
        ids_BS = np.full(shape, self.processor.tokenizer.pad_token_id, np.int64)
        labels_BS = np.full(shape, IGNORED, np.int64)
        mask_BS = np.zeros(shape, np.int64)
        for i, (ids, labels) in enumerate(encoded):
            ids_BS[i, : len(ids)] = ids
            labels_BS[i, : len(ids)] = labels
            mask_BS[i, : len(ids)] = 1
        rows = {"input_ids": ids_BS, "attention_mask": mask_BS, "labels": labels_BS}
        return {name: torch.from_numpy(values) for name, values in rows.items()}


def _tiles(inputs: Any) -> list[Tiles]:
    """Return what the tokens of each image follow from, as the image processor tells it."""
    return [as_tiles(fields) for fields in inputs["layouts"]] if "layouts" in inputs else list(inputs["num_tiles"])


def replace_bad_row(row: TrainingRow, replacement: Replacement, make: Callable[[TrainingRow], Made]) -> Made:
    """Give what is made of the next good row behind a bad one; the bad ones between are logged.

    Args:
        row: the bad one.
        replacement: gives the next.
        make: raises FinetuneError where that is bad, too.

    Raises:
        FinetuneError: too many rows one after another are bad.
    """
    for _ in range(TRIED_INSTEAD):
        row = replacement(row)
        try:
            return make(row)
        except FinetuneError as error:
            log.warning("%s%s", LEFT_OUT, error)
    raise FinetuneError(f"{TRIED_INSTEAD} rows one after another are bad: see the log for each of them.")


def _concatenate(images: list[Tensor]) -> Tensor:
    """All images one after another; of a worker process in memory that it shares with the training process."""
    if get_worker_info() is None:
        return torch.cat(images)
    storage = images[0]._typed_storage()._new_shared(sum(image.numel() for image in images))
    out = images[0].new(storage).resize_(sum(len(image) for image in images), *images[0].shape[1:])
    return torch.cat(images, out=out)


def _packed(encoded: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
    """All rows one after another [1, S]; a row's first token is not to be learnt from the row before."""
    ids = [token for ids_of_row, _ in encoded for token in ids_of_row]
    labels = [label for _, labels_of_row in encoded for label in [IGNORED, *labels_of_row[1:]]]
    positions = [i for ids_of_row, _ in encoded for i in range(len(ids_of_row))]
    return {
        name: torch.tensor([v]) for name, v in [("input_ids", ids), ("labels", labels), ("position_ids", positions)]
    }
