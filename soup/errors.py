"""All errors that soup raises on purpose.

    SoupError
    |- CheckpointError   unreadable, incomplete or damaged checkpoint
    |- PoolError         ingredients that do not belong together
    |- RecipeError       a recipe that cannot be made
    |- EvaluatorError    the harness or engine failed, or gave no score
    |- JournalError      damaged or locked journal
    |- FinetuneError     a fine-tune that cannot start or failed
    `- OutputError       destination exists, disk too small

The library raises; only `soup/cli/app.py` turns a `SoupError` into text. A message says what, where, expected and
found, and what to do next. All mismatches of a kind come in one error.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "EvaluatorError",
    "FinetuneError",
    "JournalError",
    "OutputError",
    "PoolError",
    "RecipeError",
    "SoupError",
]


class SoupError(Exception):
    """The base of all errors that soup raises on purpose; its text is meant for the user."""


class CheckpointError(SoupError):
    """A checkpoint is unreadable, incomplete or damaged."""


class PoolError(SoupError):
    """Ingredients do not belong together."""


class RecipeError(SoupError):
    """A recipe can't be made."""


class EvaluatorError(SoupError):
    """A harness or engine failed, or gave no score."""


class JournalError(SoupError):
    """A journal is damaged, or locked by another run."""


class FinetuneError(SoupError):
    """A fine-tune can't start, or failed."""


class OutputError(SoupError):
    """A destination exists already, or its disk is too small."""
