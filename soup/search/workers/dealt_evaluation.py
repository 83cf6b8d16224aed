"""One candidate on one benchmark whose requests workers answer, while its harness runs in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any, TypeVar

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import OnReplies, Score
from soup.evaluation.candidate import SoupCandidate
from soup.evaluation.suite import SuiteEntry, bounded, evaluate_within, time_is_up
from soup.search.workers.answer_counts import throttle
from soup.search.workers.chunks import ChunkQueue, Deal
from soup.search.workers.coroutine import Coroutine
from soup.search.workers.protocol import (
    AnswersEvent,
    Chunk,
    ChunkDone,
    EvalTask,
    Event,
    RepliesEvent,
)

__all__ = ["DealtEvaluation"]

T = TypeVar("T")


class DealtEvaluation:
    """A candidate on one benchmark, evaluated in this process; for its harness it is the dealer.

    Args:
        task: The candidate's.
        index: The benchmark's in the suite.
        entry: The benchmark, with what is asked of it.
        candidate: The candidate.
        timeout_seconds: How long it may take, in workers' seconds and this process's.
        queue: Takes the requests.
        returned: Gets the coroutine when it is back from what it waited for outside.
        tell: Has a search know of an event.

    `seconds` is the work that it took, `chunks` are those that workers have, by number, `score` or `error` the outcome.
    """

    def __init__(
        self,
        task: EvalTask,
        index: int,
        entry: SuiteEntry,
        candidate: SoupCandidate,
        timeout_seconds: float | None,
        queue: ChunkQueue,
        returned: SimpleQueue[Coroutine],
        tell: Callable[[Event], None],
    ) -> None:
        self.task, self.index, self.seconds = task, index, 0.0
        self.score: Score | None = None
        self.error: Exception | None = None
        self.chunks: dict[int, Chunk] = {}
        self._entry, self._timeout_seconds, self._queue, self._tell = entry, timeout_seconds, queue, tell
        self._candidate = candidate.dealt(self, throttle(self._tell_answers))
        self._turns = 0
        self._replies: list[tuple[Sequence[int], Sequence[Any]]] = []  # that the harness has not heard of yet
        self._failure: SoupError | None = None  # of a chunk
        self.coroutine = Coroutine(self._evaluate, returned)

    @property
    def has_more_rounds(self) -> bool:
        """Whether it will deal again, as far as is known."""
        return self._turns <= self._queue.turns(self.index)

    @property
    def seconds_left(self) -> float | None:
        """What is left of the time that one evaluation may take."""
        return None if self._timeout_seconds is None else max(self._timeout_seconds - self.seconds, 1e-3)

    def resume(self) -> None:
        """Let the harness go on, within its time."""
        began = time.monotonic()
        try:
            with bounded(self.seconds_left, self._timeout_seconds):
                self.coroutine.resume()
        except EvaluatorError as error:  # it goes on for nobody
            names = "+".join(self.task.recipe.names)
            self.error = EvaluatorError(f"{names} on {self._entry.benchmark.name}: {error}")
        self.seconds += time.monotonic() - began

    def take_replies(self, event: RepliesEvent) -> None:
        """Keep what a worker replied for the harness."""
        self._replies.append((event.positions, event.replies))
        self.coroutine.is_ready = True

    def take_end(self, event: ChunkDone) -> None:
        """Take in that a worker is done with a chunk, and what it took."""
        self.chunks.pop(event.number)
        self.seconds += event.seconds
        self._failure = self._failure or event.error
        if self._timeout_seconds is not None and self.seconds > self._timeout_seconds:
            self._failure = self._failure or EvaluatorError(f"{time_is_up(self._timeout_seconds)}.")
        self.coroutine.is_ready = True

    def deal(self, requests: Sequence[Any], on_replies: OnReplies, size: Callable[[Any], Any]) -> list[Any]:
        """Have requests answered by workers; see `soup.evaluation.dealing.Dealer`."""
        order = sorted(range(len(requests)), key=lambda position: size(requests[position]), reverse=True)
        self._queue.add(Deal(self.task, self.index, self._turns, requests, order))
        self._turns += 1
        replies: dict[int, Any] = {}
        while len(replies) < len(requests) or self.chunks:
            self.coroutine.wait()
            news, self._replies = self._replies, []
            for positions, texts in news:
                # A worker may die after it sent some: what its successor says again is no news.
                new = {p: text for p, text in zip(positions, texts, strict=True) if p not in replies}
                replies |= new
                if new:
                    on_replies(list(new), list(new.values()))
            if self._failure is not None:
                raise self._failure
        return [replies[position] for position in range(len(requests))]

    def aside(self, work: Callable[[], T]) -> T:
        """Wait for something outside; see `soup.evaluation.dealing.Dealer`."""
        return self.coroutine.wait_outside(work)

    def _evaluate(self) -> None:
        try:
            self.score = evaluate_within(nullcontext(), self._entry, self._candidate)
        except Exception as error:
            self.error = error

    def _tell_answers(self, count: int, total: int, what: str) -> None:
        self._tell(AnswersEvent(self.task, self.index, count, total, what))
