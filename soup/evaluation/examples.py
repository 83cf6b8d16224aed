"""Examples before a question: how a question that is answered already is written, in training as in judging."""

from __future__ import annotations

__all__ = ["answered"]


def answered(answer: str) -> str:
    """Give what follows an example's question."""
    return f"\nAnswer: {answer}\n\n"
