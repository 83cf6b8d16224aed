"""Token ids and labels of rows by a model's own processor: for any vision-language model of transformers.

A processor reports where in its text it put what for each image, and where in that text each token stands: so answers
are found whatever stands around them. How long a row will be is told by blank pictures of its pictures' sizes.

    S   tokens of a row
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from finetune.data.rows import Segments
from finetune.data.tokens import IGNORED, RowTokenizer
from soup.errors import FinetuneError

__all__ = ["ProcessorRows"]

REMEMBERED = 4096  # sizes of pictures whose image tokens are kept: 10 KB each
Size = tuple[int, int]


class ProcessorRows:
    """Encodes rows of a model that is not POINTS.

    Raises:
        FinetuneError: the processor's tokenizer does not tell where a token stands.
    """

    def __init__(self, processor: Any):
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.template = RowTokenizer(processor)
        self.image_texts: dict[tuple[Size, ...], list[str]] = {}
        if not self.tokenizer.is_fast:
            raise FinetuneError(
                f"{type(self.tokenizer).__name__} does not tell where a token stands: no fast tokenizer."
            )

    def encoded(self, segments: Segments, images: Sequence[object]) -> dict[str, Tensor]:
        """Give all that the processor makes of one row [1, S], and `labels`.

        Raises:
            FinetuneError: the processor can't take it, or an answer of which no token is found.
        """
        inputs = self._process("".join(piece for piece, _ in segments), images)
        offsets, replaced = inputs.pop("offset_mapping")[0], inputs.pop("text_replacement_offsets", [[]])
        batch = {name: torch.as_tensor(value) for name, value in inputs.items()}
        batch["labels"] = self._labels(batch["input_ids"], offsets, _spans(segments, replaced[0] if replaced else []))
        return batch

    def length(self, segments: Segments, sizes: Sequence[Size]) -> int:
        """Count the tokens of a row whose pictures have these sizes; none is opened.

        Raises:
            FinetuneError: as `encoded`.
        """
        text, key = "".join(piece for piece, _ in segments), tuple(sizes)
        if key in self.image_texts:
            (text,), _ = self.processor.get_text_with_replacements([text], self.image_texts[key])
            return len(self.tokenizer(text, add_special_tokens=self._adds_specials(text))["input_ids"])
        inputs = self._process(text, [Image.new("RGB", size) for size in sizes])
        replaced = inputs.get("text_replacement_offsets") or [[]]
        if len(replaced[0]) == len(sizes):
            if len(self.image_texts) >= REMEMBERED:
                self.image_texts.clear()
            self.image_texts[key] = [str(image["replacement"]) for image in replaced[0]]
        return int(inputs["input_ids"].shape[1])

    def _adds_specials(self, text: str) -> bool:
        """Whether the tokenizer is to write its own special tokens: not where the template did."""
        bos = self.tokenizer.bos_token
        return not (bos and text.startswith(bos))

    def _process(self, text: str, images: Sequence[object]) -> dict[str, Any]:
        options = {
            "add_special_tokens": self._adds_specials(text),
            "return_offsets_mapping": True,
            "return_tensors": "pt",
        }
        if images:
            options["return_text_replacement_offsets"] = True
        try:
            return dict(self.processor(text=[text], images=[list(images)] if images else None, **options))
        except MemoryError:
            raise
        except Exception as error:  # processors raise anything at pictures and texts that they were not written for
            name = type(self.processor).__name__
            raise FinetuneError(f"{name} can't make a row of it ({error or type(error).__name__}).") from error

    def _labels(self, ids_1S: Tensor, offsets: Any, spans: list[tuple[int, int]]) -> Tensor:
        """Return the tokens that lie in the answers, up to the end of each one's turn [1, S].

        Raises:
            FinetuneError: an answer of which no token was found.
        """
        labels, ids = torch.full_like(ids_1S, IGNORED), ids_1S[0].tolist()
        tokens = [(int(begin), int(end)) for begin, end in offsets]
        for first, last in spans:
            answer = [i for i, (begin, end) in enumerate(tokens) if begin < end and begin < last and end > first]
            answer = answer[: self.template.count_learnt([ids[i] for i in answer])]
            if not answer:
                raise FinetuneError(f"{type(self.processor).__name__}: an answer's tokens can't be found in its text.")
            labels[0, answer] = ids_1S[0, answer]
        return labels


def _spans(segments: Segments, replaced: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Where the answers stand once images are replaced by their tokens: first character, and the one after the last."""
    ends = [image["span"][1] for image in replaced]
    gained = [0, *(image["new_span"][1] - image["span"][1] for image in replaced)]
    spans, position = [], 0
    for text, learnt in segments:
        moved = position + gained[bisect.bisect_right(ends, position)]
        spans += [(moved, moved + len(text))] * learnt
        position += len(text)
    return spans
