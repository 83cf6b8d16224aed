"""From votes on texts to comparisons of candidates.

A vote counts for each pair of candidates that gave these two answers. Identical answers are ties without a vote: each
weighs what a pair of different answers of the same two candidates has in votes on average, so that they are neither
drowned by many votes nor all that counts where few were cast.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from evaluators.arena.record import Arena
from evaluators.arena.votes import Match, Vote

__all__ = ["Comparison", "comparisons", "token_count", "votes_by_match"]

TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Comparison:
    """How one candidate's answer fared beside another's.

    Args:
        question: Its name: all of one question's are one cluster.
        first: A candidate.
        second: Another.
        points: The first's: 1, 0.5 or 0.
        weight: How many votes it counts for.
        longer: How much longer the first's answer is, from -1 to 1.
        is_voted: Whether somebody voted; else the two answers are the same.
    """

    question: str
    first: str
    second: str
    points: float
    weight: float = 1.0
    longer: float = 0.0
    is_voted: bool = True


def token_count(text: str) -> int:
    """Count words and punctuation marks: tokens of no model's."""
    return len(TOKEN.findall(text))


def votes_by_match(votes: Iterable[Vote]) -> dict[Match, dict[str, float]]:
    """Return what each voter gave to the first answer of each match; skips are left out."""
    points: dict[Match, dict[str, float]] = defaultdict(dict)
    for vote in votes:
        if vote.points is not None:
            points[vote.match][vote.voter] = vote.points
    return points


def comparisons(arena: Arena, votes: Iterable[Vote], questions: Iterable[str] | None = None) -> list[Comparison]:
    """Return all comparisons of candidates.

    Args:
        arena: Its candidates and their answers.
        votes: Of voters that count together.
        questions: Those that count; None: all.
    """
    by_question: dict[str, dict[Match, list[float]]] = defaultdict(dict)
    for match, points in votes_by_match(votes).items():
        by_question[match.question][match] = [*points.values()]
    rows: list[Comparison] = []
    identical: list[tuple[str, str, str]] = []
    different: dict[tuple[str, str], int] = defaultdict(int)
    voted: dict[tuple[str, str], int] = defaultdict(int)
    for index in arena.questions if questions is None else questions:
        givers = arena.givers(index)
        for names in givers.values():
            identical += [(index, first, second) for first, second in combinations(sorted(names), 2)]
        for pair in _pairs(givers, combinations(givers, 2)):
            different[pair] += 1
        for row in _rows(arena, index, givers, by_question.get(index, {})):
            voted[min(row.first, row.second), max(row.first, row.second)] += 1
            rows.append(row)
    for index, first, second in identical:
        count = different[first, second]
        if weight := voted[first, second] / count if count else 1.0:
            rows.append(Comparison(index, first, second, 0.5, weight, is_voted=False))
    return rows


def _rows(
    arena: Arena, index: str, givers: Mapping[str, Sequence[str]], votes: Mapping[Match, Sequence[float]]
) -> Iterator[Comparison]:
    for match, all_points in votes.items():
        for first, second in product(givers.get(match.first, ()), givers.get(match.second, ())):
            longer = _longer(arena.members[first].answers[index], arena.members[second].answers[index])
            for points in all_points:
                yield Comparison(index, first, second, points, 1.0, longer)


def _pairs(givers: Mapping[str, Sequence[str]], keys: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for left, right in keys:
        for first, second in product(givers[left], givers[right]):
            yield (first, second) if first < second else (second, first)


def _longer(first: str, second: str) -> float:
    ours, theirs = token_count(first), token_count(second)
    return (ours - theirs) / ((ours + theirs) or 1)
