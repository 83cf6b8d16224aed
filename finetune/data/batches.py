r"""Conversations into batches, lazily: nothing is tokenised or opened before a batch asks for it.

A data set is a directory with `data.json`, a list of LLaVA's samples:

    {"id": "7", "image": "images/7.png", "conversations": [{"from": "human", "value": "<image>\nWhat ..."},
                                                            {"from": "gpt", "value": "..."}]}

    B   rows of a batch       S   tokens of a row       T   tiles of all images of a batch, one after another
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from soup.errors import FinetuneError

__all__ = ["IGNORED", "Album", "Collator", "Conversations", "read_samples"]

IGNORED = -100  # a label that no loss is taken over
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}

Sample = dict[str, Any]


def read_samples(directory: Path) -> list[Sample]:
    """All samples of a data set, their image paths made absolute.

    Raises:
        FinetuneError: no `data.json`, or one that is no list of conversations.
    """
    path = Path(directory) / "data.json"
    if not path.is_file():
        raise FinetuneError(f"{directory}: expected a data set here, but there is no data.json.")
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))
        return [_checked(sample, path.parent) for sample in samples]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FinetuneError(f"{path}: not a list of LLaVA conversations ({error!r}).") from error


def _checked(sample: Sample, root: Path) -> Sample:
    images = sample.get("image", [])
    names = [images] if isinstance(images, str) else images
    messages = [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in sample["conversations"]]
    wanted = sum(message["content"].count("<image>") for message in messages)
    if wanted != len(names):
        raise ValueError(f"sample {sample.get('id')}: {wanted} <image> in the text, {len(names)} images")
    return {"messages": messages, "images": [str(root / name) for name in names]}


class Album:
    """What was made of each image, remembered up to a limit: tiles, or the features of frozen encoders."""

    def __init__(self, max_bytes: int = 2**30):
        self.room_bytes = max_bytes
        self.pages: dict[str, Tensor] = {}

    def get(self, paths: Sequence[str], make: Callable[[list[str]], list[Tensor]]) -> list[Tensor]:
        """One tensor per path; those not remembered are made in one call."""
        missing = [path for path in dict.fromkeys(paths) if path not in self.pages]
        made = dict(zip(missing, make(missing), strict=True)) if missing else {}
        for path, page in made.items():
            if page.nbytes <= self.room_bytes:
                self.room_bytes -= page.nbytes
                self.pages[path] = page
        return [made[path] if path in made else self.pages[path] for path in paths]


class Conversations(Dataset):
    """Rows of token ids and labels; labels are the assistant's words and the end of its turn, nothing else."""

    def __init__(self, samples: Sequence[Sample], processor: Any):
        self.samples = samples
        self.processor = processor

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """`segments`: pieces of text, each to be learnt or not; `images`: paths, in the order of the text."""
        sample = self.samples[i]
        return {"segments": self._segments(sample["messages"]), "images": sample["images"]}

    def _segments(self, messages: list[dict[str, str]]) -> list[tuple[str, bool]]:
        """The conversation as the chat template writes it, cut where the assistant's words begin and end.

        Each piece is tokenised by itself: at inference the prompt is, too.
        """
        messages = [{**message, "content": _parts(message["content"])} for message in messages]
        segments, done = [], ""
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                prompt = self._written(messages[:i], add_generation_prompt=True)
                whole = self._written(messages[: i + 1])
                if not (prompt.startswith(done) and whole.startswith(prompt)):
                    raise FinetuneError("the chat template rewrites earlier turns: the answers can't be told apart.")
                segments += [(prompt[len(done) :], False), (whole[len(prompt) :], True)]
                done = whole
        return segments

    def _written(self, messages: list[dict[str, Any]], **settings: Any) -> str:
        return self.processor.apply_chat_template(messages, tokenize=False, **settings)


def _parts(content: str) -> list[dict[str, str]] | str:
    r"""LLaVA's `<image>\n` in a text as parts of a message; the line break after it belongs to the marker."""
    if "<image>" not in content:
        return content
    parts: list[dict[str, str]] = []
    for i, text in enumerate(content.replace("<image>\n", "<image>").split("<image>")):
        parts += [{"type": "image"}] * (i > 0) + [{"type": "text", "text": text}] * bool(text)
    return parts


class Collator:
    """A batch from rows: tokens with as many image tokens as tiles need, padded on the right, and the images.

    `see` turns the tiles of images [T, 3, V, V] into what is remembered of them and given to the model as `name`: the
    tiles themselves, or the features of frozen encoders.
    """

    def __init__(
        self, processor: Any, album: Album, see: Callable[[Tensor], Tensor] | None = None, name: str = "pixel_values"
    ):
        self.processor = processor
        self.album = album
        self.see = see or (lambda tiles: tiles)
        self.name = name

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask`, `labels` [B, S], and the images of the batch where it has any."""
        pages = iter(self.album.get([path for row in rows for path in row["images"]], self._look))
        pages_of_row = [[next(pages) for _ in row["images"]] for row in rows]
        encoded = [self._encoded(row["segments"], own) for row, own in zip(rows, pages_of_row, strict=True)]
        batch = self._padded(encoded)
        images = [page for own in pages_of_row for page in own]
        return batch | ({self.name: torch.cat(images)} if images else {})

    def _look(self, paths: list[str]) -> list[Tensor]:
        """What is to be remembered of each image."""
        seen = self.processor.image_processor([_opened(path) for path in paths])
        with torch.no_grad():
            pages = self.see(seen["pixel_values"])
        return list(pages.split(list(seen["num_tiles"])))

    def _encoded(self, segments: list[tuple[str, bool]], pages: list[Tensor]) -> tuple[list[int], list[int]]:
        """Token ids and labels of one row."""
        token, counts = self.processor.image_token, iter(pages)
        ids: list[int] = []
        labels: list[int] = []
        for text, learnt in segments:
            pieces = text.split(token)
            for piece in pieces[1:]:
                pieces[0] += self.processor.replace_image_token({"num_tiles": [len(next(counts))]}, 0) + piece
            new = self.processor.tokenizer(pieces[0], add_special_tokens=False)["input_ids"]
            ids += new
            labels += self._until_end(new) if learnt else [IGNORED] * len(new)
        return ids, labels

    def _until_end(self, ids: list[int]) -> list[int]:
        """The ids up to the end of the turn; what the template puts behind it is not the assistant's to say."""
        eos = self.processor.tokenizer.eos_token_id
        end = ids.index(eos) + 1 if eos in ids else len(ids)
        return ids[:end] + [IGNORED] * (len(ids) - end)

    def _padded(self, encoded: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
        longest = max(len(ids) for ids, _ in encoded)
        pad = self.processor.tokenizer.pad_token_id
        rows = {"input_ids": [], "attention_mask": [], "labels": []}
        for ids, labels in encoded:
            empty = longest - len(ids)
            rows["input_ids"].append(ids + [pad] * empty)
            rows["attention_mask"].append([1] * len(ids) + [0] * empty)
            rows["labels"].append(labels + [IGNORED] * empty)
        return {name: torch.tensor(values) for name, values in rows.items()}


def _opened(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise FinetuneError(f"{path}: an image of the training data that can't be opened ({error}).") from error
