"""The votes: one line each, on the disk before the voter sees the next pair. A voter's first on a pair counts.

Pages and judges may add to the file at the same time, each with its lock for as long as a line takes.

A vote is on two texts that answer one question, whoever gave them: a candidate that says the same later has it, too.
"""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, cast, get_args

from evaluators.arena.record import Arena
from soup.errors import JournalError, SoupError
from soup.support.json_text import check_kinds, parse_json_object
from soup.support.line_log import SharedLineLog, whole_lines
from soup.support.text import reason_of

__all__ = ["CHOICES", "Choice", "Match", "Vote", "VoteLog", "all_matches", "read_votes"]

Choice = Literal["left", "right", "tie", "skip"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
POINTS: Mapping[str, float] = {"left": 1.0, "tie": 0.5, "right": 0.0}
SCHEMA = 1


@dataclass(frozen=True, order=True)
class Match:
    """Two different answers to a question, by their keys, the lesser first: on which side they stood is a vote's."""

    question: str
    first: str
    second: str

    @classmethod
    def of(cls, question: str, giver: str, opponent: str) -> Match:
        """Return the match of two answers."""
        return cls(question, min(giver, opponent), max(giver, opponent))


VoteKey = tuple[str, str, Match]
"""Who votes, and on what: a person and a judge of one name are two."""


@dataclass(frozen=True)
class Vote:
    """What a voter said of two answers.

    Args:
        voter: A person's name, or an LLM judge's.
        by: Which of both it is.
        question: Its name.
        left: The key of the answer that stood on the left.
        right: That on the right.
        choice: The better side; `skip`: the voter can't tell, and it does not count.
        time: When, in UTC.
        orders: Of a judge what it said with the left answer first, and then with the right one first.
    """

    voter: str
    by: Literal["person", "judge"]
    question: str
    left: str
    right: str
    choice: Choice
    time: str = ""
    orders: tuple[str, ...] = ()

    @property
    def match(self) -> Match:
        """The pair of answers, whatever their sides."""
        return Match.of(self.question, self.left, self.right)

    @property
    def key(self) -> VoteKey:
        """What one vote counts of."""
        return self.by, self.voter, self.match

    @property
    def points(self) -> float | None:
        """What the match's first answer has of it: 1, 0.5 or 0; None where it was skipped."""
        points = POINTS.get(self.choice)
        return points if points is None or self.left == self.match.first else 1 - points


def all_matches(arena: Arena) -> list[Match]:
    """Return all pairs of different answers to one question."""
    return [
        Match.of(index, giver, opponent)
        for index in arena.questions
        for giver, opponent in combinations(sorted(arena.givers(index)), 2)
    ]


class VoteLog:
    """The file of votes. Threads may share it, and other processes may add to the same file: pages, and judges.

    Attributes:
        votes: Each vote that counts and is known here, in the file's order.

    Raises:
        JournalError: the file can't be read or written, or a line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.votes: list[Vote] = []
        self._log = SharedLineLog(path, JournalError)
        self._known: set[VoteKey] = set()
        self._turn = threading.Lock()
        self.refresh()

    def add(self, vote: Vote) -> bool:
        """Keep a vote; when this returns it is on the disk. False, and nothing is done, where its voter has voted.

        Raises:
            JournalError: the disk is full or failed, or a line of another's is damaged.
        """
        with self._turn, self._log.turn() as lines:
            self._take(lines)
            if vote.key in self._known:
                return False
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            line = {"schema": SCHEMA, **vars(vote), "time": vote.time or now, "orders": list(vote.orders)}
            self._log.append(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._note(vote)
            return True

    def refresh(self) -> None:
        """Take in what others have added.

        Raises:
            JournalError: the file can't be read, or a line is damaged.
        """
        with self._turn, self._log.turn() as lines:
            self._take(lines)

    def has_judged(self, judge: str, match: Match) -> bool:
        """Whether a judge has voted on a match."""
        return ("judge", judge, match) in self._known

    def _take(self, lines: Iterable[bytes]) -> None:
        try:
            votes = _votes(self._log.path, lines)
        except JournalError:
            read_votes(self._log.path)  # whose error has the line's number in the whole file
            raise
        for vote in votes:
            self._note(vote)

    def _note(self, vote: Vote) -> None:
        if vote.key not in self._known:
            self._known.add(vote.key)
            self.votes.append(vote)


def read_votes(path: Path) -> list[Vote]:
    """Read votes, also while somebody adds to them.

    Raises:
        JournalError: a line is damaged.
    """
    return _votes(path, whole_lines(path, JournalError))


def _votes(path: Path, lines: Iterable[bytes]) -> list[Vote]:
    votes: dict[VoteKey, Vote] = {}
    for number, line in enumerate(lines, start=1):
        try:
            vote = _vote(parse_json_object(line, f"line {number}", JournalError))
        except (ValueError, SoupError) as error:
            reason = reason_of(error, f"line {number}")
            raise JournalError(
                f"{path}: line {number} is damaged ({reason}). Remove that line to lose its vote alone, or restore the "
                "file."
            ) from error
        votes.setdefault(vote.key, vote)
    return [*votes.values()]


_KINDS = {**dict.fromkeys(("voter", "by", "question", "left", "right", "choice", "time"), str), "orders": list}


def _vote(line: Mapping[str, object]) -> Vote:
    if line.get("schema") != SCHEMA:
        raise ValueError(f"expected schema {SCHEMA}, found {line.get('schema')!r:.20}")
    check_kinds(line, _KINDS, {"orders": str})
    if line["choice"] not in CHOICES or line["by"] not in ("person", "judge") or line["left"] == line["right"]:
        raise ValueError("no such choice or voter, or one answer on both sides")
    values = {name: line[name] for name in _KINDS}
    return Vote(**cast("dict[str, str]", values | {"orders": tuple(cast("list[str]", line["orders"]))}))  # type: ignore[arg-type]  # checked above
