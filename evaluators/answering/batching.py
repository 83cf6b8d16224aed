"""Prompts to a model in batches that fit: like with like, the longest first, smaller ones where memory runs out.

A prompt is a list of parts, as VLMEvalKit has them: see `soup.evaluation.api.Prompt`.
"""

from __future__ import annotations

import gc
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from typing import Literal, Protocol
from weakref import WeakKeyDictionary

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import OnBatch, Prompt
from soup.support.options import option_name
from soup.support.text import bullet_list, pluralize

__all__ = [
    "LARGEST_BATCH",
    "BatchSize",
    "Model",
    "ask",
    "is_out_of_memory",
    "prompt_beginning",
    "prompt_size",
    "release_memory",
]

BatchSize = int | Literal["auto"]

LARGEST_BATCH = 64
"""Where `auto` starts. It halves whenever memory runs out, and stays there for as long as the model lives."""

EXCERPT_CHARACTERS = 80  # of a prompt, in an error

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed")
"""What CUDA and MPS, torch on the CPU, and cuBLAS say."""

logger = logging.getLogger(__name__)

_fitting_sizes: WeakKeyDictionary[Model, int] = WeakKeyDictionary()


class Model(Protocol):
    """What `--model` names. With an attribute `module` (a torch module) candidates are streamed into it."""

    def answer(self, prompts: list[Prompt], /) -> list[str]:
        """Give one answer per prompt, in their order; an answer must not depend on its neighbours."""


class _OutOfMemoryError(EvaluatorError):
    """A batch did not fit; a smaller one may."""


def ask(
    model: Model,
    prompts: list[Prompt],
    batch_size: BatchSize,
    on_batch: OnBatch = lambda prompts, replies: None,
) -> list[str]:
    """Answer all prompts, in their order, asking in batches of similar length, the longest first.

    So padding is little, and memory that does not suffice is noticed at once instead of after hours.

    Args:
        model: What answers.
        prompts: In any order.
        batch_size: How many prompts are asked at a time; `auto` finds the most that memory can hold.
        on_batch: Called with each batch and its answers as soon as they are there.

    Raises:
        EvaluatorError: the model raised, ran out of memory, or did not give one text per prompt.
    """
    answers: list[str] = [""] * len(prompts)
    size = _first_size(model, batch_size)
    for group in _groups(prompts):
        waiting = group
        while waiting:
            batch = [prompts[index] for index in waiting[:size]]
            replies = _replies_if_they_fit(model, batch, may_halve=batch_size == "auto")
            if replies is None:
                size = _halve(model, len(batch))
                continue
            on_batch(batch, replies)
            for index, reply in zip(waiting, replies, strict=False):  # the batch is the first of those that wait
                answers[index] = reply
            waiting = waiting[len(batch) :]
    return answers


def _groups(prompts: list[Prompt]) -> Iterator[list[int]]:
    """Yield the indices of prompts that may go together: never prompts with one image, several and none."""
    sizes = [prompt_size(prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: (sizes[index], -index), reverse=True)
    for _, group in groupby(order, key=lambda index: sizes[index][0]):
        yield list(group)


def prompt_size(prompt: Prompt) -> tuple[int, int, int]:
    """Return the number of images, their pixels and the characters of a prompt."""
    images = [part["value"] for part in prompt if part["type"] == "image"]
    return len(images), sum(map(_pixels, images)), sum(len(part["value"]) for part in prompt if part["type"] == "text")


def prompt_beginning(prompt: Prompt) -> str:
    """Return what tells a prompt from others, for an error: how its text begins, and its first image's file."""
    text = " ".join(part["value"] for part in prompt if part["type"] == "text")
    images = [part["value"] for part in prompt if part["type"] == "image"]
    shown = f" with {images[0]}" if images else ""
    others = f" and {len(images) - 1} more" if len(images) > 1 else ""
    return f"{text[:EXCERPT_CHARACTERS]!r}{shown}{others}"


@lru_cache(100_000)  # rotations of a question show the same image, and so does every candidate
def _pixels(path: str) -> int:
    """Return the number of pixels, from the header alone; 0 for what Pillow does not know (the model's to judge)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return int(image.width * image.height)
    except (UnidentifiedImageError, OSError):
        return 0


def _first_size(model: Model, batch_size: BatchSize) -> int:
    if batch_size != "auto":
        return batch_size
    with suppress(TypeError):  # a user's class may have no hash or no weak references: then each call finds out anew
        return _fitting_sizes.get(model, LARGEST_BATCH)
    return LARGEST_BATCH


def _halve(model: Model, size: int) -> int:
    """Return half the size, with the memory given back that the larger batch held."""
    release_memory()
    logger.warning("Out of memory with %d questions at a time; going on with %d.", size, size // 2)
    with suppress(TypeError):
        _fitting_sizes[model] = size // 2
    return size // 2


def _replies_if_they_fit(model: Model, prompts: list[Prompt], *, may_halve: bool) -> list[str] | None:
    """Return the replies; None, with nothing held on to, where memory did not suffice but may for half of them."""
    try:
        return _replies(model, prompts)
    except _OutOfMemoryError as error:
        if may_halve and len(prompts) > 1:
            return None  # the exception holds the tensors of the attempt: it must be gone before the next
        hint = "" if len(prompts) == 1 else f" A smaller {option_name('batch_size')} may fit; auto finds it."
        raise EvaluatorError(f"{error}{hint}") from error


def _replies(model: Model, prompts: list[Prompt]) -> list[str]:
    name = type(model).__name__
    try:
        replies = model.answer(prompts)
    except SoupError:
        raise
    except Exception as cause:
        kind = _OutOfMemoryError if is_out_of_memory(cause) else EvaluatorError
        tail = "".join(traceback.format_exception(cause)[-4:])
        batch = f"{pluralize(len(prompts), 'prompt')}, the first {prompt_beginning(prompts[0])}"
        raise kind(f"{name}.answer failed on a batch of {batch}:\n{tail}") from cause
    if not isinstance(replies, list | tuple):
        raise EvaluatorError(f"{name}.answer: expected a list of str, found {type(replies).__name__}.")
    if len(replies) != len(prompts):
        raise EvaluatorError(f"{name}.answer: expected {pluralize(len(prompts), 'answer')}, found {len(replies)}.")
    strange = [f"answer {index}: {reply!r:.80}" for index, reply in enumerate(replies) if not isinstance(reply, str)]
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
    """Whether the error says that memory ran out, so that fewer prompts at a time may do."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)
