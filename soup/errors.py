"""What can go wrong, drawn as a tree.

    SoupError
    |- CheckpointError   unreadable, incomplete or damaged checkpoint
    |- PoolError         ingredients that do not belong together
    |- RecipeError       a recipe that cannot be made
    |- EvaluatorError    the harness failed, or gave no score
    |- JournalError      damaged or locked journal
    |- FinetuneError     a fine-tune that cannot start or failed
    `- OutputError       destination exists, disk too small

The library raises; only `soup/cli.py` turns a `SoupError` into text. A message says what, where, expected and found,
and what to do next. All mismatches of a kind come in one error.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "EvaluatorError",
    "FinetuneError",
    "JournalError",
    "OutputError",
    "PoolError",
    "RecipeError",
    "SoupError",
    "counted",
    "did_you_mean",
    "listing",
]


class SoupError(Exception):
    """Anything that soup raises on purpose; its text is meant to be read by the user."""


class CheckpointError(SoupError):
    """A checkpoint is unreadable, incomplete or damaged."""


class PoolError(SoupError):
    """Ingredients do not belong together."""


class RecipeError(SoupError):
    """A recipe can't be made."""


class EvaluatorError(SoupError):
    """A harness failed, or gave no score."""


class JournalError(SoupError):
    """A journal is damaged, or locked by another run."""


class FinetuneError(SoupError):
    """A fine-tune can't start, or failed."""


class OutputError(SoupError):
    """A destination exists already, or its disk is too small."""


def listing(lines: Iterable[str], most: int = 20) -> str:
    """One indented line each, the first `most` of them, and how many were left out."""
    rows = list(lines)
    shown = [f"  - {row}" for row in rows[:most]]
    if len(rows) > most:
        shown.append(f"  - ... and {len(rows) - most} more")
    return "\n".join(shown)


def counted(count: int, what: str) -> str:
    """`1 problem`, `2 problems`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'? Known: x, y, z.` for an error about an unknown name, the nearest first."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    question = f" Did you mean '{near[0]}'?" if near else ""
    return f"{question} Known: {', '.join(names) or 'none'}."
