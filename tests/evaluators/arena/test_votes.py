"""Votes on disk: none lost, none counted twice; which pair is shown to whom; what they come to as comparisons."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest

from evaluators.arena.comparisons import comparisons, token_count
from evaluators.arena.matches import Schedule
from evaluators.arena.record import Arena, Member, Question
from evaluators.arena.votes import Match, Vote, VoteLog, all_matches, read_votes
from soup.errors import EvaluatorError, JournalError
from tests.helpers.arenas import made_arena, match_of, vote

ANSWERS = {"a": ["yes", "one", "red"], "b": ["yes", "two", "blue"], "c": ["no", "two", "green"]}


@pytest.fixture
def arena(tmp_path):
    return made_arena(tmp_path / "x.arena", ANSWERS)


def test_an_arena_comes_back_as_it_was_made(arena):
    again = Arena(arena.path)
    assert (again.questions, again.members, again.seed) == (arena.questions, arena.members, arena.seed)
    assert again.baseline() == "a"
    assert again.baseline("c") == "c"
    with pytest.raises(EvaluatorError, match="no candidate 'd'"):
        again.baseline("d")
    assert arena.prompt(arena.questions["q0"])[0]["value"].startswith(str(arena.path.absolute()))


def test_other_questions_and_other_weights_under_a_known_name_are_refused(arena):
    with pytest.raises(EvaluatorError, match=r"other questions .4 differ, e.g. q0.; votes on them stay theirs"):
        Arena.make(arena.path, [(Question("new", (("text", "Why?"),)), {}, {})])
    with pytest.raises(EvaluatorError, match="has other weights under that name"):
        arena.add(Member("a", "another recipe", {}, {}))
    arena.add(Member("b", "recipe of b", {"engine": "another"}, dict(arena.members["b"].answers)))
    assert [*Arena(arena.path).members] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "ab.png", "a" * 64 + "/../x"])
def test_a_picture_is_named_by_its_content_and_nothing_else(arena, name):
    file = arena.path / "arena.json"
    document = json.loads(file.read_text())
    document["questions"][0]["parts"][0][1] = name
    file.write_text(json.dumps(document))
    with pytest.raises(JournalError, match="named by something else than its content"):
        Arena(arena.path)


def test_one_vote_of_a_voter_on_a_pair_counts_whatever_the_sides(arena):
    first = vote(arena, "ann", "q1", "a", "b")
    log = VoteLog(arena.votes_path)
    assert log.add(first)
    assert not log.add(first)
    assert not log.add(Vote("ann", "person", "q1", first.right, first.left, "left"))
    assert log.add(vote(arena, "bob", "q1", "a", "b"))
    assert not log.has_judged("ann", first.match)
    assert log.add(vote(arena, "ann", "q1", "a", "b", by="judge"))  # of the same name, and no person
    assert log.has_judged("ann", first.match)
    kept = read_votes(arena.votes_path)
    assert [(each.voter, each.by) for each in kept] == [("ann", "person"), ("bob", "person"), ("ann", "judge")]
    assert kept[0].left == first.left
    assert kept[0].time
    log = VoteLog(arena.votes_path)
    assert not log.add(first)
    assert read_votes(arena.votes_path) == kept


def test_files_of_votes_that_were_put_together_count_each_vote_once(arena):
    log = VoteLog(arena.votes_path)
    log.add(vote(arena, "ann", "q1", "a", "b"))
    log.add(vote(arena, "ann", "q2", "a", "b", "tie"))
    lines = arena.votes_path.read_text()
    arena.votes_path.write_text(lines + lines.replace('"choice": "left"', '"choice": "right"'))
    assert [each.choice for each in read_votes(arena.votes_path)] == ["left", "tie"]


def test_many_threads_lose_and_double_no_vote(arena):
    votes = [vote(arena, f"voter {n}", "q2", *pair) for n in range(20) for pair in ("ab", "bc", "ca")]
    log = VoteLog(arena.votes_path)
    threads = [threading.Thread(target=lambda: [log.add(each) for each in votes]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = arena.votes_path.read_text().splitlines()
    assert (
        Counter((row["voter"], row["left"], row["right"]) for row in map(json.loads, lines)).most_common(1)[0][1] == 1
    )
    assert len(lines) == 60


def test_several_writers_see_each_others_votes_and_add_none_again(arena):
    page, judge = VoteLog(arena.votes_path), VoteLog(arena.votes_path)
    assert page.add(vote(arena, "ann", "q1", "a", "b"))
    assert judge.add(vote(arena, "wise", "q1", "a", "b", by="judge"))
    assert not judge.add(vote(arena, "ann", "q1", "a", "b", "tie"))
    assert page.add(vote(arena, "ann", "q2", "a", "b"))
    judge.refresh()
    assert [(each.voter, each.question) for each in judge.votes] == [("ann", "q1"), ("wise", "q1"), ("ann", "q2")]
    assert [each.choice for each in read_votes(arena.votes_path)] == ["left"] * 3


def test_a_file_of_votes_that_was_mended_or_made_anew_meanwhile_is_read_again(arena):
    log = VoteLog(arena.votes_path)
    log.add(vote(arena, "ann", "q1", "a", "b"))
    other = arena.votes_path.with_name("other.jsonl")
    VoteLog(other).add(vote(arena, "bob", "q2", "a", "b"))
    other.replace(arena.votes_path)
    assert not log.add(vote(arena, "bob", "q2", "a", "b", "tie"))
    arena.votes_path.write_text("")  # shorter than it was
    assert log.add(vote(arena, "cat", "q1", "a", "b"))
    assert [each.voter for each in read_votes(arena.votes_path)] == ["cat"]


def test_a_line_that_is_damaged_meanwhile_stops_each_vote_by_its_number(arena):
    log = VoteLog(arena.votes_path)
    log.add(vote(arena, "ann", "q1", "a", "b"))
    with arena.votes_path.open("a") as file:
        file.write("{}\n")
    for _ in range(2):
        with pytest.raises(JournalError, match=r"votes.jsonl: line 2 is damaged"):
            log.add(vote(arena, "bob", "q1", "a", "b"))
    assert len(arena.votes_path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "change",
    [{"schema": 2}, {"choice": "both"}, {"by": "cat"}, {"voter": 7}, {"right": "a"}, {"orders": [1]}, {"orders": None}],
    ids=str,
)
def test_a_damaged_line_is_told_by_its_number(tmp_path, change):
    good = {"schema": 1, "voter": "v", "by": "person", "question": "q", "left": "a", "right": "b", "choice": "tie"}
    rows = [good | {"time": "", "orders": []}, good | {"time": "", "orders": []} | change]
    file = tmp_path / "votes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for opens in (read_votes, VoteLog):
        with pytest.raises(JournalError, match=r"votes.jsonl: line 2 is damaged"):
            opens(file)
    assert len(file.read_text().splitlines()) == 2


def test_a_pair_is_two_different_answers_and_a_common_one_is_a_pair_once(arena):
    assert all_matches(arena) == [
        Match.of("q0", *({member.keys["q0"] for member in arena.members.values()})),
        match_of(arena, "q1", "a", "b"),
        *sorted([match_of(arena, "q2", *pair) for pair in ("ab", "bc", "ac")]),
    ]


def test_every_voter_sees_every_pair_once_in_an_order_and_on_sides_of_their_own(tmp_path):
    arena = made_arena(tmp_path / "x.arena", {name: [f"{name} {n}" for n in range(60)] for name in "abc"})
    orders, lefts = [], Counter()
    for voter in ("ann", "bob"):
        schedule, order = Schedule(arena, []), []
        while match := schedule.next(voter):
            assert schedule.next(voter) == match  # a page that is loaded again
            left, right = schedule.sides(voter, match)
            lefts[left == match.first] += 1
            order.append((match, left))
            schedule.note(Vote(voter, "person", match.question, left, right, "skip"))
        assert sorted(match for match, _ in order) == sorted(schedule.matches)
        assert schedule.done(voter) == 180
        orders.append(order)
    assert orders[0] != orders[1]
    assert [match for match, _ in orders[0]] != [match for match, _ in orders[1]]
    assert 140 < lefts[True] < 220


def test_pairs_without_votes_come_first_but_one_in_ten_is_shown_to_all(tmp_path):
    arena = made_arena(tmp_path / "x.arena", {name: [f"{name} {n}" for n in range(100)] for name in "ab"})
    schedule, seen = Schedule(arena, []), Counter()
    for turn in range(100):
        voter = f"voter {turn % 5}"
        match = schedule.next(voter)
        seen[match] += 1
        schedule.note(Vote(voter, "person", match.question, *schedule.sides(voter, match), "tie"))
    several = sum(count > 1 for count in seen.values())
    assert len(seen) > 70
    assert 3 <= several <= 20


def test_votes_are_comparisons_of_all_who_gave_these_answers_and_same_answers_are_ties(arena):
    votes = [
        vote(arena, "ann", "q1", "a", "b"),  # c says the same as b
        vote(arena, "ann", "q2", "b", "c"),
        vote(arena, "bob", "q2", "b", "c", "tie"),
        vote(arena, "ann", "q2", "a", "c", "skip"),
        Vote("ann", "person", "q2", "nobody says", "this now", "left"),
    ]
    rows = Counter()
    for row in comparisons(arena, votes):
        first, second, points = (row.first, row.second, row.points)
        if first > second:
            first, second, points = second, first, 1 - points
        rows[row.question, first + second, points, row.weight if row.is_voted else f"same, {row.weight:g}"] += 1
    assert rows == {
        ("q1", "ab", 1.0, 1.0): 1,
        ("q1", "ac", 1.0, 1.0): 1,
        ("q2", "bc", 1.0, 1.0): 1,
        ("q2", "bc", 0.5, 1.0): 1,
        ("q0", "ab", 0.5, "same, 0.5"): 1,  # of two different answers one has a vote
        ("q1", "bc", 0.5, "same, 1"): 1,  # of two different answers one has both votes
    }
    assert [row.weight for row in comparisons(arena, votes, ["q0"])] == [1.0]  # nothing differs there


def test_length_is_counted_in_words_and_marks():
    assert token_count("It's a cat, (a big one).") == 12
    assert token_count("") == 0
