"""In-context rows: examples of the same data set before a row's question, their pictures and texts in its one turn.

The examples of a row are drawn by a hash of its number: the same ones in every epoch and job, and never the row
itself. Of an example its first question and answer are taken; nothing of it is learnt, as it is the user's words.

Source: MM1.5, arXiv 2409.20566, whose few-shot prompts are interleaved pictures and texts; the wording is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, islice

import numpy as np

from finetune.data.mixture import hashed
from finetune.data.rows import Message, Picture, Sample
from soup.evaluation.examples import answered

__all__ = ["chosen_examples", "with_examples"]

EXAMPLES = 7  # the hash's seed
Parts = list[dict[str, str]]


def chosen_examples(row: int, rows: int, shots: int) -> list[int]:
    """Choose so many other rows of a data set, each once.

    Args:
        row: whose examples.
        rows: of the data set; more than `shots`.
        shots: how many.
    """
    drawn = (int(hashed(np.array([n]), EXAMPLES, row)[0] % np.uint64(rows)) for n in count())
    others: dict[int, None] = {}
    for other in drawn:
        if other != row:
            others[other] = None
        if len(others) == shots:
            return list(others)
    raise AssertionError("numbers have no end")


def with_examples(sample: Sample, examples: Sequence[Sample]) -> Sample:
    """Give a row with examples in its first question."""
    turn, before = _first_question(sample)
    parts, pictures = [], []
    for example in examples:
        of_example, pictures_of_example = _question_and_answer(example)
        parts += of_example
        pictures += pictures_of_example
    parts += _parts(sample["messages"][turn]["content"])
    user_message: Message = {"role": "user", "content": parts if any(map(_is_image, parts)) else _text(parts)}
    messages = [user_message if i == turn else message for i, message in enumerate(sample["messages"])]
    images = [*sample["images"][:before], *pictures, *sample["images"][before:]]
    return {**sample, "messages": messages, "images": images}


def _question_and_answer(example: Sample) -> tuple[Parts, list[Picture]]:
    turn, before = _first_question(example)
    question = _parts(example["messages"][turn]["content"])
    answers = islice((m["content"] for m in example["messages"][turn + 1 :] if m["role"] == "assistant"), 1)
    words = "".join(_text(_parts(content)) for content in answers)
    pictures = example["images"][before : before + sum(map(_is_image, question))]
    return [*question, {"type": "text", "text": answered(words)}], pictures


def _first_question(sample: Sample) -> tuple[int, int]:
    """Return the number of the first turn of the user's, and how many pictures stand before it."""
    turn = next(i for i, message in enumerate(sample["messages"]) if message["role"] == "user")
    return turn, sum(_is_image(part) for m in sample["messages"][:turn] for part in _parts(m["content"]))


def _parts(content: str | Parts) -> Parts:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(parts: Parts) -> str:
    return "".join(part.get("text", "") for part in parts)


def _is_image(part: dict[str, str]) -> bool:
    return part["type"] == "image"
