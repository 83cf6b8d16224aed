"""Rows with one question and one answer in columns of their own, as conversations: Alpaca, ms-swift, or any by name.

alpaca  {"instruction": "...", "input": "..." (put below it), "output": "...", "history": [["...", "..."], ...]}
swift   {"query": "...", "response": "...", "history": ...}; its rows with `messages` are read as OpenAI's
flat    {"question", "input", "answer", "history"}, which `columns` finds under other names

All may have `system`, `images` or `image`, and `videos` or `video`. Where no text says `<image>` or `<video>`, these
stand before the first question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from finetune.config import Columns

__all__ = ["FLAT", "as_conversation", "is_absent", "listed", "rename_columns"]

FLAT = {
    "alpaca": ("instruction", "input", "output"),
    "swift": ("query", None, "response"),
    "flat": ("question", "input", "answer"),
}
"""Question, what stands below it, and answer, by format."""
ABSENT = ("", "none", "nan", "null", "<na>")
CARRIED = ("system", "images", "image", "video", "videos", "audio", "audios", "objects")


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
        ValueError: a history that is no list of pairs, or a column that holds several values where a text is expected.
    """
    question, below, answer = FLAT[format]
    several = [name for name in FLAT[format] if name and isinstance(raw.get(name), list | tuple | Mapping)]
    if several:  # as the answers of many people: joined they would be one that nobody gave
        kind = type(raw[several[0]]).__name__
        raise ValueError(f"{several[0]}: expected one text, found {kind}; choose one of its values")
    texts = [raw.get(question), raw.get(below) if below else None]
    user_text = "\n".join(str(text) for text in texts if text not in (None, "") and not _is_nan(text))
    turns = [text for pair in _history(raw.get("history")) for text in pair] + [user_text, raw.get(answer)]
    carried = {name: raw[name] for name in CARRIED if raw.get(name) is not None}
    user_words = " ".join(map(str, turns[::2]))
    images = len(listed(carried.get("images")) or listed(carried.get("image")))
    # A list under `video` is the frames of one.
    videos = bool(listed(carried.get("video"))) + len(listed(carried.get("videos")))
    before = "<image>\n" * images * ("<image>" not in user_words)
    before += "<video>\n" * videos * ("<image>" not in user_words and "<video>" not in user_words)
    turns[0] = f"{before}{turns[0]}" if before else turns[0]
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


def is_absent(value: object) -> bool:
    """Whether a value means that there is none: tables write it as null, NaN (pandas), "" or the words for these."""
    if isinstance(value, str):
        return value.strip().lower() in ABSENT
    return value is None or (isinstance(value, float) and math.isnan(value))


def listed(value: object) -> list[object]:
    """Return one or several images, without those that are none."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [item for item in values if not is_absent(item)]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
