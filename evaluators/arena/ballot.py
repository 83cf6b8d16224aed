"""What the page asks and says, without HTTP: the next pair for a voter, and a vote."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from evaluators.arena.matches import Schedule
from evaluators.arena.record import Arena
from evaluators.arena.votes import CHOICES, Match, Vote, VoteLog
from soup.support.text import printable

__all__ = ["Ballot", "RefusedError", "voter_name"]

MOST_NAME = 40


class RefusedError(Exception):
    """What was asked for can't be; the text is for whoever asked."""


def voter_name(value: object) -> str:
    """Return a person's name, as it is stored.

    Raises:
        RefusedError: it is none.
    """
    name = re.sub(r"\s+", " ", value).strip() if isinstance(value, str) else ""
    if not name or len(name) > MOST_NAME or printable(name) != name:
        raise RefusedError(f"a name has 1 to {MOST_NAME} printable characters")
    return name


class Ballot:
    """An arena that is voted in. Threads may share it; candidates and votes of other processes join as they come.

    Args:
        arena: Questions and answers.
        log: Where votes are kept.
    """

    def __init__(self, arena: Arena, log: VoteLog) -> None:
        self.arena = arena
        self._log = log
        self._turn = threading.Lock()
        self.images = {name for question in arena.questions.values() for name in (*question.images, *question.videos)}
        self.images |= {name for names in arena.frames.values() for name in names}
        self.new_votes = 0
        self._read_answers()

    def next(self, voter: object) -> dict[str, object]:
        """Return what a voter sees next: a pair without names, and how far the voter is.

        Raises:
            RefusedError: no name of a person.
        """
        name = voter_name(voter)
        with self._turn:
            self._read_new_answers()
            self._log.refresh()
            return self._next(name)

    def _next(self, name: str) -> dict[str, object]:
        self._note_votes()
        match = self._schedule.next(name)
        done = self._schedule.done(name)
        progress = {"voter": name, "done": done, "pairs": len(self._schedule.matches)}
        if match is None:
            return {**progress, "pair": None}
        left, right = self._schedule.sides(name, match)
        question = self.arena.questions[match.question]
        sides = {
            side: {"key": key, "text": self._texts[question.index, key]}
            for side, key in (("left", left), ("right", right))
        }
        parts = [self._part(kind, value) for kind, value in question.parts]
        return {**progress, "pair": {"question": question.index, "parts": parts, **sides}}

    def _part(self, kind: str, value: str) -> dict[str, object]:
        """Return a part of a question for the page: of a video its frames, too, and whether a browser may play it."""
        part: dict[str, object] = {"type": kind, "value": value}
        if kind == "video":
            frames = [name for name, _ in groupby(self.arena.frames[value])]  # of a short video some come several times
            part |= {"frames": frames, "plays": bool(Path(value).suffix)}
        return part

    def vote(self, body: Mapping[str, object]) -> dict[str, object]:
        """Keep a vote, and return what its voter sees next; of one voter on one pair the first vote counts.

        Args:
            body: `voter`, `question`, `left`, `right` (keys of answers) and `choice`.

        Raises:
            RefusedError: no such pair, other sides than the voter was shown, or no such choice.
            JournalError: the disk is full or failed; the vote is not kept.
        """
        name, choice = voter_name(body.get("voter")), body.get("choice")
        question, left, right = (body.get(key) for key in ("question", "left", "right"))
        if choice not in CHOICES:
            raise RefusedError(f"expected a choice of {', '.join(CHOICES)}")
        if not isinstance(question, str) or not isinstance(left, str) or not isinstance(right, str):
            raise RefusedError("expected the question and both answers by name")
        match = Match.of(question, left, right)
        with self._turn:
            self._read_new_answers()
            if not self._schedule.holds(match) or self._schedule.sides(name, match) != (left, right):
                raise RefusedError("no such pair here: load the page again")
            is_new = self._log.add(Vote(name, "person", question, left, right, choice))
            self.new_votes += is_new
            return {"counted": is_new, **self._next(name)}

    def _read_new_answers(self) -> None:
        if self.arena.refresh():
            self._read_answers()

    def _read_answers(self) -> None:
        self._schedule, self._noted = Schedule(self.arena, ()), 0
        self._texts = {
            (index, member.keys[index]): text
            for member in self.arena.members.values()
            for index, text in member.answers.items()
        }

    def _note_votes(self) -> None:
        for vote in self._log.votes[self._noted :]:
            self._schedule.note(vote)
        self._noted = len(self._log.votes)
