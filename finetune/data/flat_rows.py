"""Rows with one question and one answer in columns of their own, as conversations: Alpaca, ms-swift, or any by name.

alpaca  {"instruction": "...", "input": "..." (put below it), "output": "...", "history": [["...", "..."], ...]}
swift   {"query": "...", "response": "...", "history": ...}; its rows with `messages` are read as OpenAI's
flat    {"question", "input", "answer", "history"}, which `columns` finds under other names

All may have `system`, and `images` or `image`. Where no text says `<image>`, images stand before the first question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from finetune.config import Columns

__all__ = ["FLAT", "as_conversation", "rename_columns"]

FLAT = {
    "alpaca": ("instruction", "input", "output"),
    "swift": ("query", None, "response"),
    "flat": ("question", "input", "answer"),
}
"""Question, what stands below it, and answer, by format."""
CARRIED = ("system", "images", "image", "video", "videos")


def rename_columns(raw: Mapping[str, object], columns: Columns) -> dict[str, object]:
    """Give a row under the names that formats have.

    Raises:
        ValueError: the row lacks columns that are named.
    """
    named = columns.model_dump(exclude_none=True)
    if absent := [name for name in named.values() if name not in raw]:
        raise ValueError(f"columns: no {', '.join(absent)} in it; found {', '.join(map(str, raw)) or 'nothing'}")
    others = {name: value for name, value in raw.items() if name not in named.values() and name not in named}
    return others | {ours: raw[theirs] for ours, theirs in named.items()}


def as_conversation(raw: Mapping[str, object], format: str) -> dict[str, object]:
    """Give a flat row as one with conversations.

    Args:
        raw: the row.
        format: a key of `FLAT`.

    Raises:
        ValueError: a history that is no list of pairs.
    """
    question, below, answer = FLAT[format]
    texts = [raw.get(question), raw.get(below) if below else None]
    user_text = "\n".join(str(text) for text in texts if text not in (None, "") and not _is_nan(text))
    turns = [text for pair in _history(raw.get("history")) for text in pair] + [user_text, raw.get(answer)]
    carried = {name: raw[name] for name in CARRIED if raw.get(name) is not None}
    images = carried.get("images") or carried.get("image") or []
    count = len(images) if isinstance(images, list | tuple) else 1
    if not any("<image>" in str(text) for text in turns[::2]):
        turns[0] = "<image>\n" * count + str(turns[0])
    roles = ("human", "gpt") * (len(turns) // 2)
    conversation = [{"from": role, "value": text} for role, text in zip(roles, turns, strict=True)]
    return {**carried, "conversations": conversation}


def _history(history: object) -> list[list[object]]:
    """Earlier turns as pairs of question and answer."""
    if history is None or _is_nan(history):
        return []
    if not isinstance(history, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history):
        raise ValueError("history: expected pairs of question and answer")
    return [list(pair) for pair in history]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
