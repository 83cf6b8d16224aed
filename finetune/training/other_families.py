"""Rows into batches for any vision-language model of transformers: by its own processor, row by row.

POINTS has a quicker way (`finetune.data`), which knows its tiles.

    B   rows of a batch       S   tokens of a row
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from finetune.config import TrainSettings
from finetune.data import IGNORED, Corpus, TrainingRows
from finetune.data.batches import Replacement, replace_bad_row
from finetune.data.processor_rows import ProcessorRows
from finetune.data.row_images import load_image
from finetune.data.rows import TrainingRow
from finetune.jobs import LEFT_OUT
from finetune.training.packed_families import Positions, is_of_text, pack
from soup.errors import FinetuneError

__all__ = ["ProcessorCollator", "other_family_rows"]

log = logging.getLogger(__name__)
RowProgress = Callable[[int, int], object]
"""Called with rows looked at, and rows in all."""


def other_family_rows(
    corpus: Corpus, processor: Any, settings: TrainSettings, progress: RowProgress | None = None
) -> TrainingRows:
    """Give the rows of a run.

    Raises:
        FinetuneError: bad rows, unless they are to be skipped.
    """
    return TrainingRows(corpus, settings, processor, progress=progress)


class ProcessorCollator:
    """A batch from rows, padded on the right: all that the model's own processor makes of them, and labels.

    With `replacement` a row that turns out to be bad is left out, as the `Collator` of POINTS does. With `positions`
    each item is a list of rows, and all rows of a batch make one sequence [1, S] without padding.

    Args:
        processor: the model's.
        max_length: tokens of a row.
        replacement: gives the row after one that turned out to be bad.
        positions: gives the `position_ids` of a row [1, S], or [4, 1, S] (see `finetune.training.packed_families`).
    """

    def __init__(
        self,
        processor: Any,
        max_length: int,
        replacement: Replacement | None = None,
        positions: Positions | None = None,
    ):
        self.tokenizer = processor.tokenizer
        self.rows = ProcessorRows(processor)
        self.max_length, self.replacement, self.positions = max_length, replacement, positions

    def normalise_tiles(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Give the batch as it is: its images are normalised already."""
        return batch

    def __call__(self, items: Sequence[TrainingRow] | Sequence[Sequence[TrainingRow]]) -> dict[str, Any]:
        """Make `input_ids`, `labels` [B, S], and what else the model takes; of packed rows no `attention_mask`.

        Raises:
            FinetuneError: a row that is too long, or that the processor can't take.
        """
        rows = [row for item in items for row in ([item] if isinstance(item, dict) else item)]
        batches = self._encoded_rows(rows)
        if self.positions:
            return pack(batches, self.positions, concatenate)
        longest = max(batch["input_ids"].shape[1] for batch in batches)
        columns: dict[str, list[Tensor]] = {}
        for batch in batches:
            for name, tensor in batch.items():
                whole = self._padded(name, tensor, longest) if is_of_text(tensor, batch) else tensor
                columns.setdefault(name, []).append(whole)
        return {name: concatenate(tensors) for name, tensors in columns.items()}

    def _padded(self, name: str, tensor: Tensor, longest: int) -> Tensor:
        filler = {"input_ids": self.tokenizer.pad_token_id, "labels": IGNORED}.get(name, 0)
        return pad(tensor, (0, longest - tensor.shape[1]), value=filler)

    def _encoded_rows(self, rows: Sequence[TrainingRow]) -> list[dict[str, Tensor]]:
        """Return the rows that are good, at least one: bad ones are left out where there is a `replacement`."""
        encoded = []
        for row in rows:
            try:
                encoded.append(self._encoded(row))
            except FinetuneError as error:
                if not self.replacement:
                    raise
                log.warning("%s%s", LEFT_OUT, error)
        return encoded or [replace_bad_row(rows[-1], self.replacement, self._encoded)] if self.replacement else encoded

    def _encoded(self, row: TrainingRow) -> dict[str, Tensor]:
        """One row [1, S], and its images."""
        images = [load_image(picture) for picture in row["images"]]
        try:
            batch = self.rows.encoded(row["segments"], images)
        except FinetuneError as error:
            raise FinetuneError(f"{row['where']}: {error}") from error
        if (count := batch["input_ids"].shape[1]) > self.max_length:
            raise FinetuneError(f"{row['where']}: {count} tokens, more than max_length {self.max_length}.")
        return batch


def concatenate(tensors: list[Tensor]) -> Tensor:
    """One after another along the first dimension; where they differ in another one, the smaller end in zeros.

    So processors of several images do, too, and models leave out images that are zero altogether.
    """
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    filled = []
    for tensor in tensors:
        missing = [target - size for target, size in zip(shape, tensor.shape[1:], strict=True)]
        filled.append(pad(tensor, [n for size in reversed(missing) for n in (0, size)]))
    return torch.cat(filled)
