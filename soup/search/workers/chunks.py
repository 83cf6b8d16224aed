"""Which requests a free worker gets next: guided self-scheduling, so that all workers end at about the same time.

Chunks get smaller as the work runs out: each is a share of what is left for one worker, in expected seconds. What takes
longest is handed out first, the requests of rounds that others wait for before all.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from soup.search.workers.protocol import Chunk, EvalTask

__all__ = ["ChunkQueue", "Deal"]

SHARE = 2
"""A chunk is this part of what is left for one worker."""

LEAST_SECONDS = 2.0
LEAST_REQUESTS = 128
"""No chunk is smaller than both, as far as that is known: a worker asks several requests at once, which few can't fill.

Small models answer many in that time, so that one worker would get a whole round."""


@dataclass
class Deal:
    """Requests that a harness dealt out at once, the longest first; `start` is how many workers have got of them.

    Args:
        task: The evaluation's.
        index: That of its benchmark in the suite.
        turn: How many times the evaluation dealt before: round by round.
        requests: All of them.
        order: The positions of the requests, the largest first.
    """

    task: EvalTask
    index: int
    turn: int
    requests: Sequence[Any]
    order: Sequence[int]
    start: int = 0

    @property
    def left(self) -> int:
        """How many requests nobody has got yet."""
        return len(self.order) - self.start

    def take(self, count: int, number: int) -> Chunk:
        """Return the next requests as a chunk."""
        positions = tuple(self.order[self.start : self.start + count])
        self.start += len(positions)
        requests = tuple(self.requests[position] for position in positions)
        task = replace(self.task, questions={})  # they are in the requests
        return Chunk(task, self.index, number, positions, requests)


@dataclass
class _Rate:
    """What the requests of a benchmark took so far, over all candidates."""

    seconds: float = 0.0
    requests: int = 0


@dataclass
class ChunkQueue:
    """The requests that nobody has got yet.

    Args:
        workers: How many share them.
    """

    workers: int
    _deals: list[Deal] = field(default_factory=list)
    _rates: dict[int, _Rate] = field(default_factory=lambda: defaultdict(_Rate))
    _turns: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # the most that a benchmark has had
    _numbers: Callable[[], int] = itertools.count().__next__

    def add(self, deal: Deal) -> None:
        """Take in what a harness deals out."""
        if deal.left:
            self._deals.append(deal)
            self._turns[deal.index] = max(self._turns[deal.index], deal.turn)

    def turns(self, index: int) -> int:
        """Return how many rounds a benchmark is known to deal after its first."""
        return self._turns[index]

    def drop(self, task: EvalTask) -> None:
        """Forget the requests of an evaluation that failed."""
        self._deals = [deal for deal in self._deals if deal.task is not task]

    def tasks(self) -> list[EvalTask]:
        """Return the evaluations that have requests here, in the order in which they dealt them."""
        return list({deal.task.key: deal.task for deal in self._deals}.values())

    def next(self, task: EvalTask, *, is_bet: bool = False) -> Chunk:
        """Return a chunk of an evaluation for a worker that is free.

        Args:
            task: One of `tasks`.
            is_bet: Whether it may turn out that nobody wants the evaluation: then a chunk is as small as may be.
        """
        deals = [deal for deal in self._deals if deal.task is task]
        deal = max(deals, key=lambda deal: (self._turns[deal.index] - deal.turn, deal.turn, self._seconds(deal.index)))
        share = 0.0 if is_bet else math.fsum(deal.left * self._seconds(deal.index) for deal in deals)
        known = self._rates[deal.index].requests
        least = min(LEAST_SECONDS, LEAST_REQUESTS * self._seconds(deal.index)) if known else 0.0
        seconds = max(share / (SHARE * self.workers), least)
        chunk = deal.take(max(1, math.ceil(seconds / self._seconds(deal.index))), self._numbers())
        if not deal.left:
            self._deals.remove(deal)
        return chunk

    def expect(self, chunk: Chunk) -> float:
        """Return the seconds that a chunk is expected to take; infinitely many where nothing is known."""
        known = self._rates[chunk.index].requests
        return len(chunk.positions) * self._seconds(chunk.index) if known else math.inf

    def learn(self, index: int, requests: int, seconds: float) -> None:
        """Note what so many requests of a benchmark took a worker."""
        rate = self._rates[index]
        rate.seconds, rate.requests = rate.seconds + seconds, rate.requests + requests

    def _seconds(self, index: int) -> float:
        """Return what a request is expected to take; as much as any other as long as nothing is known."""
        known = self._rates[index]
        if not known.requests:
            known = _Rate(sum(r.seconds for r in self._rates.values()), sum(r.requests for r in self._rates.values()))
        return max(known.seconds / known.requests, 1e-9) if known.requests else 1.0
