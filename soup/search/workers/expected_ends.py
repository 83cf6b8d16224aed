"""When workers are expected to be done with what they have, swaps of weights counted in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from soup.search.workers.protocol import Chunk, ChunkDone

__all__ = ["ExpectedEnds"]


@dataclass
class ExpectedEnds:
    """The expected ends of workers and of their chunks, by what is known of requests and of the last swap.

    Args:
        clock: The workers' time, in seconds.
        swap_seconds: What the last swap of weights took.
    """

    clock: Callable[[], float]
    swap_seconds: float = 0.0
    _of_workers: dict[int, float] = field(default_factory=dict)
    _of_chunks: dict[int, float] = field(default_factory=dict)
    _candidates: dict[int, str] = field(default_factory=dict)  # whose weights a worker has, by their digests
    _swapping: dict[int, float] = field(default_factory=dict)  # what a chunk is to take but for the swap before it

    @property
    def workers(self) -> list[int]:
        """The workers that were given something, the first that will be done first."""
        return sorted(self._of_workers, key=self._of_workers.__getitem__)

    def seconds_of_worker(self, number: int) -> float:
        """Return how long a worker has for all that it was given; below 0 where it ought to be done."""
        return self._of_workers[number] - self.clock()

    def seconds_of_chunk(self, number: int) -> float:
        """Return how long a worker has until it is done with a chunk."""
        return self._of_chunks[number] - self.clock()

    def candidate_of(self, number: int) -> str | None:
        """Return the digest of the candidate whose weights a worker will have when it is done."""
        return self._candidates.get(number)

    def add_evaluation(self, number: int) -> None:
        """Note that a worker was given a whole evaluation, of which nobody knows how long it takes."""
        self._candidates.pop(number, None)
        self._of_workers[number] = math.inf

    def add_chunk(self, number: int, chunk: Chunk, seconds: float, *, is_free: bool) -> None:
        """Note that a worker was given a chunk.

        Args:
            number: The worker's.
            chunk: The chunk.
            seconds: What its requests are expected to take.
            is_free: Whether the worker has nothing else to do.
        """
        begin = self.clock() if is_free else max(self.clock(), self._of_workers[number])
        end = begin + seconds
        if self._candidates.get(number) != chunk.recipe.digest:
            self._candidates[number] = chunk.recipe.digest
            self._swapping[chunk.number] = seconds
            end += self.swap_seconds
        self._of_workers[number] = self._of_chunks[chunk.number] = end

    def end_chunk(self, event: ChunkDone) -> bool:
        """Note that a chunk is done; return whether its seconds are those of its requests alone, with no swap."""
        self._of_chunks.pop(event.number, None)
        seconds = self._swapping.pop(event.number, None)
        if seconds is not None and seconds < math.inf:
            self.swap_seconds = max(0.0, event.seconds - seconds)
        return seconds is None
