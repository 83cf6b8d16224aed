"""How likely a model finds answers that it is given: the words between whoever asks and whoever computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from soup.evaluation.api import Prompt

__all__ = ["AnswerLoss", "AnswerLosses", "AnswerTask"]


@dataclass(frozen=True)
class AnswerTask:
    """A prompt and the answer whose loss is wanted. `index` tells it from others, `where` is its name in errors."""

    index: int
    prompt: Prompt
    answer: str
    where: str = "an answer"


@dataclass(frozen=True)
class AnswerLoss:
    """The mean over an answer's tokens of their negative log likelihood, in nats; or why it can't be computed."""

    index: int
    loss: float = 0.0
    tokens: int = 0
    failure: str | None = None


AnswerLosses = Callable[[Iterable[AnswerTask]], Iterator[AnswerLoss]]
"""Computes losses as tasks come, in any order: one for each task. A prompt's pictures may be gone once it is given."""
