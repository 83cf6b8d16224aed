"""Rows into batches for any vision-language model of transformers: by its own processor, row by row.

POINTS has a quicker way (`finetune.data`), which knows its tiles. Here a processor is asked to say where in its text it
put what for each image, and where in that text each token stands: so answers are found whatever stands around them.

    B   rows of a batch       S   tokens of a row
"""

import bisect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from finetune.config import TrainSettings
from finetune.data import IGNORED, Corpus, TrainingRows
from finetune.data.row_images import look
from soup.errors import FinetuneError

__all__ = ["ProcessorCollator", "foreign_rows"]

Row = dict[str, Any]
TEXT = ("input_ids", "attention_mask", "labels")


def foreign_rows(corpus: Corpus, processor: Any, settings: TrainSettings, progress: Any = None) -> TrainingRows:
    """The rows of a run. How long each will be, only the model's processor could tell, and it would open all pictures.

    Raises:
        FinetuneError: bad rows, unless they are to be skipped; packing, which needs their lengths.
    """
    if settings.packing:
        raise FinetuneError("packing: only for POINTS models: of others it is not known how long a row will be.")
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

    def as_numbers(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch: its images are numbers already."""
        return batch

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask`, `labels` [B, S], and what else the model takes.

        Raises:
            FinetuneError: a row that is too long, or that the processor can't take.
        """
        batches = [self._encoded(row) for row in rows]
        longest = max(batch["input_ids"].shape[1] for batch in batches)
        found: dict[str, list[Tensor]] = {}
        for batch in batches:
            length = batch["input_ids"].shape[1]
            for name, tensor in batch.items():
                of_text = tensor.shape[:2] == (1, length) and tensor.dim() == 2
                found.setdefault(name, []).append(self._padded(name, tensor, longest) if of_text else tensor)
        return {name: _joined(tensors) for name, tensors in found.items()}

    def _padded(self, name: str, tensor: Tensor, longest: int) -> Tensor:
        filler = {"input_ids": self.tokenizer.pad_token_id, "labels": IGNORED}.get(name, 0)
        return pad(tensor, (0, longest - tensor.shape[1]), value=filler)

    def _encoded(self, row: Row) -> dict[str, Tensor]:
        """One row [1, S], and its images."""
        text = "".join(piece for piece, _ in row["segments"])
        try:
            made = self._asked(text, [look(picture) for picture in row["images"]])
        except (ValueError, TypeError, IndexError, KeyError) as error:
            name = type(self.processor).__name__
            raise FinetuneError(f"{row['where']}: {name} can't make a row of it ({error}).") from error
        places, put = made.pop("offset_mapping")[0], made.pop("text_replacement_offsets", [[]])
        batch = {name: torch.as_tensor(value) for name, value in made.items()}
        batch["labels"] = self._labels(batch["input_ids"], places, _spans(row["segments"], put[0] if put else []))
        if batch["input_ids"].shape[1] > self.max_length:
            count = batch["input_ids"].shape[1]
            raise FinetuneError(f"{row['where']}: {count} tokens, more than max_length {self.max_length}.")
        return batch

    def _asked(self, text: str, images: list[Any]) -> dict[str, Any]:
        bos = self.tokenizer.bos_token
        words = {
            "add_special_tokens": not (bos and text.startswith(bos)),  # templates write it themselves
            "return_offsets_mapping": True,
            "return_tensors": "pt",
        }
        if images:
            words["return_text_replacement_offsets"] = True
        return dict(self.processor(text=[text], images=[images] if images else None, **words))

    def _labels(self, ids_1S: Tensor, places: Any, spans: list[tuple[int, int]]) -> Tensor:
        """The tokens that lie in the answers, up to the end of each one's turn [1, S].

        Raises:
            FinetuneError: an answer of which no token was found.
        """
        labels, ids = torch.full_like(ids_1S, IGNORED), ids_1S[0].tolist()
        tokens = [(int(begin), int(end)) for begin, end in places]
        for first, last in spans:
            own = [i for i, (begin, end) in enumerate(tokens) if begin < end and begin < last and end > first]
            ends = [i for i in own if ids[i] == self.tokenizer.eos_token_id]
            own = [i for i in own if not ends or i <= ends[0]]
            if not own:
                raise FinetuneError(f"{type(self.processor).__name__}: an answer's tokens can't be found in its text.")
            labels[0, own] = ids_1S[0, own]
        return labels


def _spans(segments: list[tuple[str, bool]], put: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Where the answers stand once images have taken their places: first character, and the one after the last."""
    ends = [one["span"][1] for one in put]
    gained = [0, *(one["new_span"][1] - one["span"][1] for one in put)]
    spans, place = [], 0
    for text, learnt in segments:
        moved = place + gained[bisect.bisect_right(ends, place)]
        spans += [(moved, moved + len(text))] * learnt
        place += len(text)
    return spans


def _joined(tensors: list[Tensor]) -> Tensor:
    """One after another along the first dimension; where they differ in another one, the smaller end in zeros.

    So processors of several images do, too, and models leave out images that are zero altogether.
    """
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    filled = []
    for tensor in tensors:
        missing = [wanted - size for wanted, size in zip(shape, tensor.shape[1:], strict=True)]
        filled.append(pad(tensor, [n for size in reversed(missing) for n in (0, size)]))
    return torch.cat(filled)
