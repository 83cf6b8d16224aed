"""Questions to a model in batches that fit: like with like, the longest first, smaller ones where memory runs out.

A message is VLMEvalKit's own list of parts: `{"type": "image", "value": path}` or `{"type": "text", "value": text}`.
"""

from __future__ import annotations

import gc
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

from soup.errors import EvaluatorError, SoupError
from soup.support.text import bullet_list

__all__ = ["LARGEST_BATCH", "BatchSize", "Engine", "Prompt", "ask", "is_out_of_memory", "release_memory"]

Prompt = list[dict[str, str]]

BatchSize = int | Literal["auto"]

LARGEST_BATCH = 64
"""Where `auto` starts. It halves whenever memory runs out, and stays there for as long as the model lives."""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed")
"""What CUDA and MPS, torch on the CPU, and cuBLAS say."""

logger = logging.getLogger(__name__)

_fitting: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


class Engine(Protocol):
    """A model that answers. With an attribute `module` (a torch module) candidates are streamed into it."""

    def answer(self, messages: list[Prompt]) -> list[str]:
        """One answer per message, in their order; an answer must not depend on its neighbours."""


class _OutOfMemoryError(EvaluatorError):
    """A batch did not fit; a smaller one may."""


def ask(
    answerer: Engine,
    messages: list[Prompt],
    batch_size: BatchSize,
    told: Callable[[list[Prompt], list[str]], None] = lambda messages, replies: None,
) -> list[str]:
    """The answers to all messages, in their order, asked in batches of similar length, the longest first.

    So padding is little, and memory that does not suffice is noticed at once instead of after hours. `told` hears
    each batch with its answers as soon as they are there.

    Raises:
        EvaluatorError: the model raised, ran out of memory, or did not give one text per message.
    """
    answers: list[str] = [""] * len(messages)
    size = _first_size(answerer, batch_size)
    for group in _groups(messages):
        waiting = group
        while waiting:
            batch = [messages[place] for place in waiting[:size]]
            replies = _replies_if_they_fit(answerer, batch, may_halve=batch_size == "auto")
            if replies is None:
                size = _halve(answerer, len(batch))
                continue
            told(batch, replies)
            for place, reply in zip(waiting, replies, strict=False):  # the batch is the first of those that wait
                answers[place] = reply
            waiting = waiting[len(batch) :]
    return answers


def _groups(messages: list[Prompt]) -> Iterator[list[int]]:
    """Places of messages that may go together. A batch never mixes messages with one image, several and none."""
    sizes = [_size(message) for message in messages]
    order = sorted(range(len(messages)), key=lambda place: (sizes[place], -place), reverse=True)
    for _, group in groupby(order, key=lambda place: sizes[place][0]):
        yield list(group)


def _size(message: Prompt) -> tuple[int, int, int]:
    """The number of images, their pixels and the characters of a message."""
    images = [part["value"] for part in message if part["type"] == "image"]
    return len(images), sum(map(_pixels, images)), sum(len(part["value"]) for part in message if part["type"] == "text")


@lru_cache(100_000)  # rotations of a question show the same image, and so does every candidate
def _pixels(path: str) -> int:
    """The number of pixels, from the header alone; 0 for what Pillow does not know (the model's to judge)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return int(image.width * image.height)
    except (UnidentifiedImageError, OSError):
        return 0


def _first_size(answerer: Engine, batch_size: BatchSize) -> int:
    if batch_size != "auto":
        return batch_size
    with suppress(TypeError):  # a user's class may have no hash or no weak references: then each call finds out anew
        return _fitting.get(answerer, LARGEST_BATCH)
    return LARGEST_BATCH


def _halve(answerer: Engine, size: int) -> int:
    """Half the batch, in memory that the larger one has left."""
    release_memory()
    logger.warning("Out of memory with %d questions at a time; going on with %d.", size, size // 2)
    with suppress(TypeError):
        _fitting[answerer] = size // 2
    return size // 2


def _replies_if_they_fit(answerer: Engine, messages: list[Prompt], *, may_halve: bool) -> list[str] | None:
    """The replies; None, with nothing held on to, where memory did not suffice but may for half of them."""
    try:
        return _replies(answerer, messages)
    except _OutOfMemoryError as error:
        if may_halve and len(messages) > 1:
            return None  # the exception holds the tensors of the attempt: it must be gone before the next
        hint = "" if len(messages) == 1 else " A smaller --batch-size may fit; auto finds it."
        raise EvaluatorError(f"{error}{hint}") from error


def _replies(answerer: Engine, messages: list[Prompt]) -> list[str]:
    name = type(answerer).__name__
    try:
        replies = answerer.answer(messages)
    except SoupError:
        raise
    except Exception as cause:
        kind = _OutOfMemoryError if is_out_of_memory(cause) else EvaluatorError
        tail = "".join(traceback.format_exception(cause)[-4:])
        raise kind(f"{name}.answer failed on a batch of {len(messages)} messages:\n{tail}") from cause
    if not isinstance(replies, list | tuple):
        raise EvaluatorError(f"{name}.answer: expected a list of str, found {type(replies).__name__}.")
    if len(replies) != len(messages):
        raise EvaluatorError(f"{name}.answer: expected {len(messages)} answers, found {len(replies)}.")
    strange = [f"answer {place}: {reply!r:.80}" for place, reply in enumerate(replies) if not isinstance(reply, str)]
    if strange:
        raise EvaluatorError(f"{name}.answer: expected a list of str, found:\n{bullet_list(strange)}")
    return list(replies)


def release_memory() -> None:
    """Give back what a failed attempt took, on the device too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at a time may do."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)
