"""What the page asks and says, without HTTP: the next pair for a voter, and a vote."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping

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
    """An arena that is voted in. Threads may share it.

    Args:
        arena: Questions and answers.
        log: Where votes are kept.
    """

    def __init__(self, arena: Arena, log: VoteLog) -> None:
        self.arena = arena
        self._log = log
        self._schedule = Schedule(arena, log.votes)
        self._turn = threading.Lock()
        self._texts = {
            (index, member.keys[index]): text
            for member in arena.members.values()
            for index, text in member.answers.items()
        }
        self.images = {name for question in arena.questions.values() for name in question.images}
        self.new_votes = 0

    def next(self, voter: object) -> dict[str, object]:
        """Return what a voter sees next: a pair without names, and how far the voter is.

        Raises:
            RefusedError: no name of a person.
        """
        name = voter_name(voter)
        with self._turn:
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
        parts = [{"type": kind, "value": value} for kind, value in question.parts]
        return {**progress, "pair": {"question": question.index, "parts": parts, **sides}}

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
        if not self._schedule.holds(match) or self._schedule.sides(name, match) != (left, right):
            raise RefusedError("no such pair here: load the page again")
        vote = Vote(name, "person", question, left, right, choice)
        with self._turn:
            if is_new := self._log.add(vote):
                self._schedule.note(vote)
                self.new_votes += 1
        return {"counted": is_new, **self.next(name)}
