"""The loss of the right choice of each question, from the likelihoods that lm-eval asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["losses_of_choices"]


def losses_of_choices(
    samples: Mapping[str, Sequence[Mapping[str, Any]]], encode: Callable[[str], Sequence[int]]
) -> Iterator[float]:
    """Yield of each question the right choice's negative log likelihood per token, in nats.

    Args:
        samples: lm-eval's rows by task, several of one question where a task has several filters.
        encode: Gives the tokens of a text.
    """
    for rows in samples.values():
        for row in {row["doc_id"]: row for row in rows}.values():
            choices = [arguments[1] for arguments in row["arguments"]]
            right = _index(row["target"], choices)
            (log_likelihood, _) = row["resps"][right][0]
            yield -float(log_likelihood) / max(1, len(encode(choices[right])))


def _index(target: object, choices: Sequence[str]) -> int:
    """Return the index of the right choice (of several the first), which a task gives as such or by its text."""
    if isinstance(target, list):
        target = target[0]
    if isinstance(target, int):
        return target
    return [choice.strip() for choice in choices].index(str(target).strip())
