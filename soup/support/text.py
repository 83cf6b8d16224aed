"""Text for people: lists in error messages, plurals, the nearest known name, byte counts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["bullet_list", "did_you_mean", "format_bytes", "pluralize"]


def bullet_list(lines: Iterable[str], most: int = 20) -> str:
    """One indented line each, the first `most` of them, and how many were left out."""
    rows = list(lines)
    shown = [f"  - {row}" for row in rows[:most]]
    if len(rows) > most:
        shown.append(f"  - ... and {len(rows) - most} more")
    return "\n".join(shown)


def pluralize(count: int, what: str) -> str:
    """`1 problem`, `2 problems`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'? Known: x, y, z.` for an error about an unknown name, the nearest first."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    question = f" Did you mean '{near[0]}'?" if near else ""
    return f"{question} Known: {', '.join(names) or 'none'}."


def format_bytes(count: int) -> str:
    """`1.24 GB`: decimal units, as disks are sold."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.2f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"
