"""What an arena's votes come to, as one JSON document: ratings, wins, agreement, length, by people and by judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from evaluators.arena.agreement import agreement
from evaluators.arena.comparisons import Comparison, comparisons, token_count, votes_by_match
from evaluators.arena.ratings import DRAWS, ELO, Fit, bootstrap, fit
from evaluators.arena.record import Arena
from evaluators.arena.votes import Match, Vote, all_matches, read_votes
from soup.support.text import pluralize

__all__ = ["arena_document"]

CENTRE = 1000.0
PEOPLE = "people"


def arena_document(arena: Arena, baseline: str | None = None, draws: int = DRAWS) -> dict[str, object]:
    """Return all that is to be told about an arena.

    Args:
        arena: The arena.
        baseline: The candidate that others are compared with; None: the first.
        draws: Of the bootstrap.

    Raises:
        EvaluatorError: there is no such candidate, or none at all.
        JournalError: the file of votes is damaged.
    """
    named, votes, matches = arena.baseline(baseline), read_votes(arena.votes_path), set(all_matches(arena))
    current = [vote for vote in votes if vote.match in matches]
    people = [vote for vote in current if vote.by == "person"]
    judges: dict[str, list[Vote]] = {}
    for vote in current:
        if vote.by == "judge":
            judges.setdefault(vote.voter, []).append(vote)
    shown = [_electorate(arena, named, PEOPLE, people, draws)] if people or not judges else []
    shown += [_electorate(arena, named, name, cast, draws) for name, cast in judges.items()]
    remarks = []
    if len(votes) > len(current):
        outdated = pluralize(len(votes) - len(current), "vote")
        remarks.append(f"Left out: {outdated} on answers that no candidate gives any more.")
    return {
        "schema": 1,
        "kind": "arena",
        "title": arena.path.absolute().name,
        "baseline": named,
        "questions": len(arena.questions),
        "pairs": len(matches),
        "candidates": [_candidate(arena, name) for name in arena.members],
        "voters": shown,
        "judges": [_judge(name, cast, people) for name, cast in judges.items()],
        "remarks": remarks,
    }


def _candidate(arena: Arena, name: str) -> dict[str, object]:
    answers = arena.members[name].answers
    tokens = [token_count(text) for text in answers.values()]
    empty = sum(not text.strip() for text in answers.values())
    return {"name": name, "answers": len(answers), "empty": empty, "mean_tokens": sum(tokens) / max(len(tokens), 1)}


def _electorate(arena: Arena, baseline: str, voters: str, votes: Sequence[Vote], draws: int) -> dict[str, object]:
    rows, names = comparisons(arena, votes), [*arena.members]
    counted, is_people = [vote for vote in votes if vote.choice != "skip"], all(vote.by == "person" for vote in votes)
    document: dict[str, object] = {
        "voters": voters,
        "are_people": is_people,
        "votes": len(counted),
        "ties": sum(vote.choice == "tie" for vote in counted),
        "skipped": len(votes) - len(counted),
        "left_preferred": _share([vote.choice == "left" for vote in counted if vote.choice != "tie" and is_people]),
        "identical_pairs": sum(not row.is_voted for row in rows),
        "people": _people(votes) if is_people else [],
        "agreement": agreement(votes_by_match(votes).values()).as_json() if is_people else None,
        "ratings": [],
        "wins": [],
        "length": None,
        "remarks": [],
    }
    if not counted:
        return document | {"remarks": ["Nobody has voted yet."]}
    plain, level = fit(rows, names, baseline), fit(rows, names, baseline, length=True)
    drawn = bootstrap(rows, names, baseline, draws)
    ratings = [
        _rating(name, plain, level, rows) | {"difference_by_bootstrap": drawn[name].scaled(ELO).as_json()}
        for name in names
    ]
    return document | {
        "ratings": ratings,
        "wins": _wins(rows, names),
        "length": _length(level),
        "remarks": _remarks(plain, rows, names),
    }


def _rating(name: str, plain: Fit, level: Fit, rows: Sequence[Comparison]) -> dict[str, object]:
    candidate_rows = [row for row in rows if name in (row.first, row.second)]
    return {
        "name": name,
        "rating": plain.centred(name).scaled(ELO, CENTRE).as_json(),
        "difference": plain.difference(name).scaled(ELO).as_json(),
        "difference_at_equal_length": level.difference(name).scaled(ELO).as_json(),
        "preferred_to_baseline": plain.preferred(name),
        "votes": sum(row.is_voted for row in candidate_rows),
    }


def _length(level: Fit) -> dict[str, object] | None:
    effect = level.length_effect
    return None if effect is None else {"effect": effect.scaled(ELO).as_json(), "deviation": level.length_deviation}


def _remarks(plain: Fit, rows: Sequence[Comparison], names: Sequence[str]) -> list[str]:
    remarks = []
    if plain.is_joined:
        remarks.append(
            "Some candidates never lost to others, or nobody compared them: half a virtual tie is added to each pair, "
            "or their ratings would be infinite."
        )
    compared = {name for row in rows for name in (row.first, row.second)}
    if silent := [name for name in names if name not in compared]:
        remarks.append(f"Nobody has voted on {', '.join(silent)}: what is shown of them is the virtual ties alone.")
    return remarks


def _wins(rows: Sequence[Comparison], names: Sequence[str]) -> list[dict[str, object]]:
    """Count wins, ties and losses of each pair, and what its identical answers weigh."""
    by_pair: dict[frozenset[str], list[Comparison]] = {}
    for row in rows:
        by_pair.setdefault(frozenset((row.first, row.second)), []).append(row)
    cells = []
    for first, second in combinations(names, 2):
        between = by_pair.get(frozenset((first, second)), [])
        points = Counter(row.points if row.first == first else 1 - row.points for row in between if row.is_voted)
        weight, total = sum(row.weight for row in between), sum(points.values())
        won = sum(value * count for value, count in points.items()) + 0.5 * (weight - total)
        cells.append(
            {"first": first, "second": second, "wins": points[1.0], "ties": points[0.5], "losses": points[0.0]}
            | {"identical": weight - total, "share": won / weight if weight else None}
        )
    return cells


def _people(votes: Sequence[Vote]) -> list[dict[str, object]]:
    """Say how each person agrees with the others on what both saw."""
    votes_of, skipped = Counter(vote.voter for vote in votes), Counter(v.voter for v in votes if v.choice == "skip")
    same: dict[str, list[bool]] = {name: [] for name in votes_of}
    for unit in votes_by_match(votes).values():
        for (person, points), (other, others) in combinations(unit.items(), 2):
            same[person].append(points == others)
            same[other].append(points == others)
    return [
        {"name": name, "votes": count - skipped[name], "skipped": skipped[name]}
        | {"agrees_with_others": _share(same[name])}
        for name, count in sorted(votes_of.items())
    ]


def _judge(name: str, votes: Sequence[Vote], people: Sequence[Vote]) -> dict[str, object]:
    """Say how steady a judge is, and how it agrees with people."""
    by_people: Mapping[Match, Mapping[str, float]] = votes_by_match(people)
    same = [vote.points == points for vote in votes for points in by_people.get(vote.match, {}).values()]
    firsts = [order == side for vote in votes for order, side in zip(vote.orders, ("left", "right"), strict=False)]
    return {
        "name": name,
        "votes": len(votes),
        "same_in_both_orders": _share([len({*vote.orders}) == 1 for vote in votes]),
        "prefers_the_first": _share(firsts),
        "agrees_with_people": _share(same),
        "votes_of_people_beside": len(same),
    }


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
