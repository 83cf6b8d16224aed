r"""Rows into batches: pictures become tiles, conversations token ids, and nothing is done before a batch asks for it.

B   rows of a batch       S   tokens of a row       T   tiles of all images of a batch, one after another
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from finetune.data.pixels import as_numbers
from finetune.data.row_images import look
from finetune.data.rows import Picture
from finetune.data.tokens import IGNORED, Tokens
from soup.errors import FinetuneError

__all__ = ["Album", "Collator"]

Row = dict[str, Any]
log = logging.getLogger(__name__)
TRIED_INSTEAD = 100


class Album:
    """What was made of each picture, remembered up to a limit: tiles, or the features of frozen encoders."""

    def __init__(self, max_bytes: int = 2**30):
        self.room_bytes = max_bytes
        self.pages: dict[str, Tensor] = {}

    def get(self, keys: Sequence[str], make: Callable[[list[str]], list[Tensor]]) -> list[Tensor]:
        """One tensor per key; those not remembered are made in one call."""
        missing = [key for key in dict.fromkeys(keys) if key not in self.pages]
        made = dict(zip(missing, make(missing), strict=True)) if missing else {}
        for key, page in made.items():
            if page.nbytes <= self.room_bytes:
                self.room_bytes -= page.nbytes
                # A copy: a part of a larger tensor would keep the whole of it in memory.
                self.pages[key] = page.clone()
        return [made[key] if key in made else self.pages[key] for key in keys]


class Collator:
    """A batch from rows: tokens with as many image tokens as tiles need, padded on the right, and the images.

    `see` turns the tiles of images [T, 3, V, V] into what is remembered of them and given to the model as `name`: the
    tiles themselves, or the features of frozen encoders. Rows are never cut: one of more than `max_length` tokens is an
    error. With `instead` a row that turns out to be bad (a picture whose header was fine, but not the rest) is left out
    of its batch, and told to the log; where nothing is left, `instead` says which row takes the place of the last one.

    With `packing` each item is a list of rows, and all rows of a batch make one sequence [1, S] without padding, whose
    `position_ids` start at 0 with each row: without an attention mask, transformers then keeps each row to itself.

    With `as_bytes` the tiles are bytes, for `as_numbers` to make numbers of where the model is.
    """

    def __init__(
        self,
        processor: Any,
        album: Album,
        see: Callable[[Tensor], Tensor] | None = None,
        name: str = "pixel_values",
        *,
        max_length: int | None = None,
        packing: bool = False,
        instead: Callable[[Row], Row] | None = None,
        as_bytes: bool = False,
    ):
        self.processor = processor
        self.tokens = Tokens(processor)
        self.album = album
        if see and as_bytes:
            raise ValueError("what is to be seen must be numbers, not bytes.")
        self.see = see
        self.name = name
        self.as_bytes = as_bytes
        self.max_length, self.packing, self.instead = max_length, packing, instead

    def __call__(self, rows: Sequence[Row] | Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """`input_ids`, `labels` [B, S], and the images of the batch where it has any.

        And `attention_mask` [B, S], or with packing `position_ids` [1, S].

        Raises:
            FinetuneError: a bad row, by its data set, number and picture.
        """
        items: Sequence[Any] = rows  # a row each, or with packing a list of them
        flat: list[Row] = [row for item in items for row in item] if self.packing else list(items)
        pages_of_row, flat = self._pages(flat)
        encoded = [self._encoded(row, pages) for row, pages in zip(flat, pages_of_row, strict=True)]
        batch = _packed(encoded) if self.packing else self._padded(encoded)
        images = [page for own in pages_of_row for page in own]
        return batch | ({self.name: _joined(images)} if images else {})

    def as_numbers(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with tiles that the model takes, wherever it lies now."""
        return as_numbers(batch, self.processor.image_processor) if self.as_bytes else batch

    def _pages(self, rows: list[Row]) -> tuple[list[list[Tensor]], list[Row]]:
        """What is known of each row's pictures, and the rows that are left."""
        try:
            return self._pages_of(rows), rows
        except FinetuneError:
            if not self.instead:
                raise
        good, pages = [], []
        for row in rows:
            try:
                pages += self._pages_of([row])
                good.append(row)
            except FinetuneError as error:
                log.warning("left out: %s", error)
        return (pages, good) if good else self._pages_instead(rows[-1], self.instead)

    def _pages_instead(self, row: Row, instead: Callable[[Row], Row]) -> tuple[list[list[Tensor]], list[Row]]:
        for _ in range(TRIED_INSTEAD):
            row = instead(row)
            try:
                return self._pages_of([row]), [row]
            except FinetuneError as error:
                log.warning("left out: %s", error)
        raise FinetuneError(f"{TRIED_INSTEAD} rows one after another are bad: see the log for each of them.")

    def _pages_of(self, rows: list[Row]) -> list[list[Tensor]]:
        pictures = {picture.key: picture for row in rows for picture in row["images"]}
        keys = [picture.key for row in rows for picture in row["images"]]
        pages = iter(self.album.get(keys, lambda missing: self._look([pictures[key] for key in missing])))
        return [[next(pages) for _ in row["images"]] for row in rows]

    def _look(self, pictures: list[Picture]) -> list[Tensor]:
        """What is to be remembered of each picture."""
        # As many frames of a video as its data set says, whatever the processor's own setting.
        frames = max((picture.frames for picture in pictures if picture.frames), default=None)
        settings = {"frames": frames, "do_normalize": not self.as_bytes}
        if not self.see:
            # One by one: no more than one decoded picture is kept, and its tiles lie where the last one's did.
            return [self.processor.image_processor([look(one)], **settings)["pixel_values"] for one in pictures]
        seen = self.processor.image_processor([look(one) for one in pictures], **settings)
        with torch.no_grad():
            pages = self.see(seen["pixel_values"])
        return list(pages.split(list(seen["num_tiles"])))

    def _encoded(self, row: Row, pages: list[Tensor]) -> tuple[list[int], list[int]]:
        """Token ids and labels of one row."""
        try:
            ids, labels = self.tokens.encoded(row["segments"], [len(page) for page in pages])
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


def _joined(pages: list[Tensor]) -> Tensor:
    """All pages one after another; of a worker process in memory that it shares with the training process."""
    if get_worker_info() is None:
        return torch.cat(pages)
    storage = pages[0]._typed_storage()._new_shared(sum(page.numel() for page in pages))
    out = pages[0].new(storage).resize_(sum(len(page) for page in pages), *pages[0].shape[1:])
    return torch.cat(pages, out=out)


def _packed(encoded: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
    """All rows one after another [1, S]; a row's first token is not to be told from the row before."""
    ids = [token for own, _ in encoded for token in own]
    labels = [label for _, own in encoded for label in [IGNORED, *own[1:]]]
    positions = [i for own, _ in encoded for i in range(len(own))]
    return {
        name: torch.tensor([v]) for name, v in [("input_ids", ids), ("labels", labels), ("position_ids", positions)]
    }
