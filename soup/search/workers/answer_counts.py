"""How often it is told how many prompts are answered: each message crosses processes, and a board draws it."""

from __future__ import annotations

import math
import time

from soup.evaluation.candidate import OnAnswers

__all__ = ["throttle"]

ANSWERS_SECONDS = 1.0


def throttle(on_answers: OnAnswers) -> OnAnswers:
    """Return what passes counts of answers on, once in `ANSWERS_SECONDS` at most."""
    last_seconds = -math.inf

    def tell(count: int, total: int, what: str) -> None:
        nonlocal last_seconds
        if (now := time.monotonic()) - last_seconds >= ANSWERS_SECONDS:
            last_seconds = now
            on_answers(count, total, what)

    return tell
