"""Rows into batches for any vision-language model of transformers: by its own processor, row by row.

POINTS has a quicker way (`finetune.data`), which knows its tiles. Here a processor reports where in its text it put
what for each image, and where in that text each token stands: so answers are found whatever stands around them.

    B   rows of a batch       S   tokens of a row
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from finetune.config import TrainSettings
from finetune.data import IGNORED, Corpus, TrainingRows
from finetune.data.row_images import load_image
from finetune.data.rows import TrainingRow
from soup.errors import FinetuneError

__all__ = ["ProcessorCollator", "other_family_rows"]

RowProgress = Callable[[int, int], object]
"""Called with rows looked at, and rows in all."""
TEXT = ("input_ids", "attention_mask", "labels")


def other_family_rows(
    corpus: Corpus, processor: Any, settings: TrainSettings, progress: RowProgress | None = None
) -> TrainingRows:
    """Give the rows of a run, without their lengths: the model's processor would have to open all pictures for them.

    Raises:
        FinetuneError: bad rows, unless they are to be skipped; packing, which needs their lengths.
    """
    if settings.packing:
        raise FinetuneError("packing: only for POINTS models: of others how long a row will be is not known.")
    return TrainingRows(corpus, settings, processor, progress=progress)


class ProcessorCollator:
    """A batch from rows, padded on the right: all that the model's own processor makes of them, and labels."""

    def __init__(self, processor: Any, max_length: int):
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.max_length = max_length
        if not self.tokenizer.is_fast:
            raise FinetuneError(
                f"{type(self.tokenizer).__name__} does not tell where a token stands: no fast tokenizer."
            )

    def normalise_tiles(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give the batch as it is: its images are normalised already."""
        return batch

    def __call__(self, rows: Sequence[TrainingRow]) -> dict[str, Tensor]:
        """Make `input_ids`, `attention_mask`, `labels` [B, S], and what else the model takes.

        Raises:
            FinetuneError: a row that is too long, or that the processor can't take.
        """
        batches = [self._encoded(row) for row in rows]
        longest = max(batch["input_ids"].shape[1] for batch in batches)
        columns: dict[str, list[Tensor]] = {}
        for batch in batches:
            length = batch["input_ids"].shape[1]
            for name, tensor in batch.items():
                of_text = tensor.shape[:2] == (1, length) and tensor.dim() == 2
                columns.setdefault(name, []).append(self._padded(name, tensor, longest) if of_text else tensor)
        return {name: _concatenate(tensors) for name, tensors in columns.items()}

    def _padded(self, name: str, tensor: Tensor, longest: int) -> Tensor:
        filler = {"input_ids": self.tokenizer.pad_token_id, "labels": IGNORED}.get(name, 0)
        return pad(tensor, (0, longest - tensor.shape[1]), value=filler)

    def _encoded(self, row: TrainingRow) -> dict[str, Tensor]:
        """One row [1, S], and its images."""
        text = "".join(piece for piece, _ in row["segments"])
        try:
            inputs = self._process(text, [load_image(picture) for picture in row["images"]])
        except (ValueError, TypeError, IndexError, KeyError) as error:
            name = type(self.processor).__name__
            raise FinetuneError(f"{row['where']}: {name} can't make a row of it ({error}).") from error
        offsets, replaced = inputs.pop("offset_mapping")[0], inputs.pop("text_replacement_offsets", [[]])
        batch = {name: torch.as_tensor(value) for name, value in inputs.items()}
        batch["labels"] = self._labels(
            batch["input_ids"], offsets, _spans(row["segments"], replaced[0] if replaced else [])
        )
        if batch["input_ids"].shape[1] > self.max_length:
            count = batch["input_ids"].shape[1]
            raise FinetuneError(f"{row['where']}: {count} tokens, more than max_length {self.max_length}.")
        return batch

    def _process(self, text: str, images: list[Any]) -> dict[str, Any]:
        bos = self.tokenizer.bos_token
        options = {
            "add_special_tokens": not (bos and text.startswith(bos)),  # templates write it themselves
            "return_offsets_mapping": True,
            "return_tensors": "pt",
        }
        if images:
            options["return_text_replacement_offsets"] = True
        return dict(self.processor(text=[text], images=[images] if images else None, **options))

    def _labels(self, ids_1S: Tensor, offsets: Any, spans: list[tuple[int, int]]) -> Tensor:
        """Return the tokens that lie in the answers, up to the end of each one's turn [1, S].

        Raises:
            FinetuneError: an answer of which no token was found.
        """
        labels, ids = torch.full_like(ids_1S, IGNORED), ids_1S[0].tolist()
        tokens = [(int(begin), int(end)) for begin, end in offsets]
        for first, last in spans:
            answer = [i for i, (begin, end) in enumerate(tokens) if begin < end and begin < last and end > first]
            ends = [i for i in answer if ids[i] == self.tokenizer.eos_token_id]
            answer = [i for i in answer if not ends or i <= ends[0]]
            if not answer:
                raise FinetuneError(f"{type(self.processor).__name__}: an answer's tokens can't be found in its text.")
            labels[0, answer] = ids_1S[0, answer]
        return labels


def _spans(segments: list[tuple[str, bool]], replaced: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Where the answers stand once images are replaced by their tokens: first character, and the one after the last."""
    ends = [image["span"][1] for image in replaced]
    gained = [0, *(image["new_span"][1] - image["span"][1] for image in replaced)]
    spans, position = [], 0
    for text, learnt in segments:
        moved = position + gained[bisect.bisect_right(ends, position)]
        spans += [(moved, moved + len(text))] * learnt
        position += len(text)
    return spans


def _concatenate(tensors: list[Tensor]) -> Tensor:
    """One after another along the first dimension; where they differ in another one, the smaller end in zeros.

    So processors of several images do, too, and models leave out images that are zero altogether.
    """
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    filled = []
    for tensor in tensors:
        missing = [target - size for target, size in zip(shape, tensor.shape[1:], strict=True)]
        filled.append(pad(tensor, [n for size in reversed(missing) for n in (0, size)]))
    return torch.cat(filled)
