"""Requests of one evaluation, dealt out to workers: the words between a harness here and the same harness there.

A harness that finds a dealer with its candidate asks no engine: it hands its requests to the dealer, and some worker's
harness gets them in `Harness.answer`, together with the candidate. Nobody between the two looks into a request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from soup.errors import EvaluatorError
from soup.evaluation.api import Candidate, OnReplies

__all__ = ["Dealer", "MissingFilesError", "dealer_of", "require_files"]

T = TypeVar("T")


class Dealer(Protocol):
    """Has requests answered with a candidate's weights, by whoever is free."""

    def deal(self, requests: Sequence[Any], on_replies: OnReplies, size: Callable[[Any], Any]) -> list[Any]:
        """Return the reply to each request, in their order.

        Args:
            requests: What can be pickled, and what `Harness.answer` of the same harness understands.
            on_replies: Called in the thread that deals, with each request's reply once.
            size: What requests are sorted by: the largest, which take longest, are asked first.

        Raises:
            EvaluatorError: an answer did not come.
        """

    def aside(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, while other evaluations go on: for what waits for something outside."""


class MissingFilesError(EvaluatorError):
    """A worker does not see files that its requests name; they are sent to it."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__(f"not there: {', '.join(paths[:3])}")
        self.paths = tuple(paths)

    def __reduce__(self) -> tuple[type[MissingFilesError], tuple[tuple[str, ...]]]:
        return MissingFilesError, (self.paths,)


def dealer_of(candidate: Candidate) -> Dealer | None:
    """Return who has the candidate's requests answered; None where the harness asks its own engine."""
    dealer: Dealer | None = getattr(candidate, "dealer", None)  # candidates of the user's own tests have none
    return dealer


def require_files(paths: Sequence[str]) -> None:
    """Refuse requests that name files which this machine does not see.

    Raises:
        MissingFilesError: has their paths.
    """
    if missing := [path for path in dict.fromkeys(paths) if not Path(path).is_file()]:
        raise MissingFilesError(missing)
