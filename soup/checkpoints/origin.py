"""What a checkpoint says of the model that its training started from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from soup.checkpoints.card import read_card
from soup.checkpoints.reader import Checkpoint

__all__ = ["different_starts"]

_RECORDS = (  # file, key: soup's own, PEFT's, ms-swift's, transformers' before 5
    ("finetune.json", "start"),
    ("adapter_config.json", "base_model_name_or_path"),
    ("args.json", "model"),
    ("config.json", "_name_or_path"),
)
_MOST_BYTES = 2**22
_NO_NAME = re.compile(r"checkpoint-\d+|final|last|best|latest|output|model|merged", re.IGNORECASE)


def different_starts(checkpoints: Mapping[str, Checkpoint]) -> str | None:
    """Say from which models the ingredients were trained where they were trained from several.

    A directory and a Hub id of the same name count as one model: where it lay is no difference.

    Args:
        checkpoints: The ingredients by name; one that says nothing is passed over.
    """
    starts = {name: start for name, checkpoint in checkpoints.items() if (start := _start(checkpoint)) is not None}
    if len({_model_name(start) for start in starts.values()}) < 2:
        return None
    by_start: dict[str, list[str]] = {}
    for name, start in starts.items():
        by_start.setdefault(start, []).append(name)
    listed = "; ".join(f"{', '.join(names)}: {start}" for start, names in by_start.items())
    return f"the ingredients were trained from different models, whose mean is seldom a good one: {listed}"


def _start(checkpoint: Checkpoint) -> str | None:
    """Return the name or path of the model that a checkpoint was trained from, as the first record says it."""
    for file, key in _RECORDS:
        start = _value(checkpoint.path / file, key)
        if start is not None and start not in ("", ".") and Path(start).absolute() != checkpoint.path.absolute():
            return start
    return next(iter(read_card(checkpoint.path).base_models), None)


def _value(path: Path, key: str) -> str | None:
    text = _text(path)
    try:
        document = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    value = document.get(key) if isinstance(document, dict) else None
    return value if isinstance(value, str) else None


def _text(path: Path) -> str | None:
    """Read a small file; None where there is none, or something else than text."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _model_name(start: str) -> str:
    """Return the part of a Hub id or path that names the model; all of it where its last part names none."""
    if hub := re.search(r"models--[^/]*?--([^/]+)/snapshots/", start):
        return hub.group(1).casefold()
    words: Sequence[str] = start.replace("\\", "/").rstrip("/").split("/")
    return start if _NO_NAME.fullmatch(words[-1]) else words[-1].split("@")[0].casefold()
