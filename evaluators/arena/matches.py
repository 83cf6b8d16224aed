"""Which pair of answers is shown to whom: those with the fewest votes first, in an order of each voter's own.

Sides and orders come from a hash of the arena's seed, the voter and the pair: a page that is loaded again, or open
twice, shows the same pair on the same sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluators.arena.record import Arena
from evaluators.arena.votes import Match, Vote, all_matches

__all__ = ["Schedule"]

SHARED = 10
"""Of so many pairs one is shown to everybody early, whoever has voted on it: that is where agreement shows."""


class Schedule:
    """What is still to be voted on, for each voter."""

    def __init__(self, arena: Arena, votes: Iterable[Vote]) -> None:
        self.matches: Sequence[Match] = all_matches(arena)
        self._seed = arena.seed
        self._at = {match: i for i, match in enumerate(self.matches)}
        hashes = (_hash(arena.seed, *vars(match).values()) for match in self.matches)
        self._hashes: NDArray[np.uint64] = np.fromiter(hashes, np.uint64, len(self.matches))
        self._votes = np.zeros(len(self.matches), np.int64)
        self._is_shared = self._hashes % np.uint64(SHARED) == 0
        self._done: dict[str, set[int]] = {}
        for vote in votes:
            self.note(vote)

    def note(self, vote: Vote) -> None:
        """Take a vote into account; one on answers that nobody gives any more changes nothing."""
        at = self._at.get(vote.match)
        if at is None or vote.by == "judge":
            return
        self._done.setdefault(vote.voter, set()).add(at)
        self._votes[at] += vote.choice != "skip"

    def next(self, voter: str) -> Match | None:
        """Return what a voter is to see next; None after all of it."""
        count = np.where(self._is_shared, 0, self._votes)
        count[list(self._done.get(voter, ()))] = np.iinfo(np.int64).max
        if not len(count) or (least := count.min()) == np.iinfo(np.int64).max:
            return None
        waiting = np.flatnonzero(count == least)
        voter_order = (self._hashes[waiting] ^ np.uint64(_hash(self._seed, voter))) * np.uint64(0x9E3779B97F4A7C15)
        return self.matches[int(waiting[voter_order.argmin()])]

    def done(self, voter: str) -> int:
        """Return how many pairs a voter has seen."""
        return len(self._done.get(voter, ()))

    def sides(self, voter: str, match: Match) -> tuple[str, str]:
        """Return which answer a voter sees on the left, and which on the right."""
        is_turned = _hash(self._seed, voter, *vars(match).values()) % 2
        return (match.second, match.first) if is_turned else (match.first, match.second)

    def holds(self, match: Match) -> bool:
        """Whether the arena has both answers."""
        return match in self._at


def _hash(*parts: str) -> int:
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
