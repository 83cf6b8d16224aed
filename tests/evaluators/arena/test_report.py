"""What an arena comes to, in numbers and as a page."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from evaluators.arena.record import Arena
from evaluators.arena.report import arena_document
from evaluators.arena.votes import Vote, VoteLog, all_matches
from soup.cli.app import cli
from soup.report.page.document import cleaned
from soup.report.page.render import render_page
from tests.helpers.arenas import made_arena, vote

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def arena(tmp_path):
    """Of c's answers half are b's; ann and bob prefer b to a, and one judge always what stands first."""
    answers = {name: [f"{name} {n}" for n in range(12)] for name in ("a", "b")}
    answers["c"] = [*answers["b"][:6], *(f"c {n} is longer than the others are" for n in range(6, 12))]
    arena = made_arena(tmp_path / "x.arena", answers)
    log = VoteLog(arena.votes_path)
    for n in range(12):
        log.add(vote(arena, "ann", f"q{n}", "b", "a", "tie" if n == 0 else "left"))
        log.add(vote(arena, HOSTILE, f"q{n}", "b", "a", "right" if n < 3 else "left"))
    for n in range(6, 12):
        log.add(vote(arena, "ann", f"q{n}", "c", "a", "left" if n < 8 else "right"))
    log.add(vote(arena, "ann", "q6", "b", "c", "skip"))
    return arena


def test_numbers_are_those_of_the_votes(arena):
    document = arena_document(arena, draws=200)
    (people,) = document["voters"]
    assert (people["votes"], people["ties"], people["skipped"]) == (30, 1, 1)
    cells = {(cell["first"], cell["second"]): cell for cell in people["wins"]}
    assert (cells["a", "b"]["wins"], cells["a", "b"]["ties"], cells["a", "b"]["losses"]) == (3, 1, 20)
    # on the first six c says what b says, and has its votes; on the others its own
    assert (cells["a", "c"]["wins"], cells["a", "c"]["ties"], cells["a", "c"]["losses"]) == (3 + 4, 1, 8 + 2)
    assert cells["b", "c"] == {
        "first": "b",
        "second": "c",
        "wins": 0,
        "ties": 0,
        "losses": 0,
        "identical": 0.0,
        "share": None,
    }
    assert people["agreement"]["pairs_of_votes"] == 12
    assert people["agreement"]["share"] == pytest.approx(9 / 12)
    assert [row["agrees_with_others"] for row in people["people"]] == [0.75, 0.75]
    by_name = {row["name"]: row for row in people["ratings"]}
    assert by_name["b"]["rating"]["value"] > by_name["c"]["rating"]["value"] > by_name["a"]["rating"]["value"]
    mean = sum(row["rating"]["value"] for row in by_name.values()) / 3
    assert mean == pytest.approx(1000)
    gap = by_name["b"]["rating"]["value"] - by_name["a"]["rating"]["value"]
    assert by_name["b"]["difference"]["value"] == pytest.approx(gap)
    assert by_name["b"]["preferred_to_baseline"] == pytest.approx(1 / (1 + 10 ** (-gap / 400)))
    drawn = by_name["b"]["difference_by_bootstrap"]
    assert drawn["low"] < gap < drawn["high"]


def test_people_and_judges_are_told_apart(arena):
    log = VoteLog(arena.votes_path)
    for match in all_matches(arena):
        sides = (match.first, match.second)
        log.add(Vote("people", "judge", match.question, *sides, "tie", orders=("left", "right")))
    document = arena_document(arena, draws=20)
    people, judge = document["voters"]
    assert (people["votes"], judge["votes"], judge["ties"]) == (30, 24, 24)
    assert (people["left_preferred"] is None, judge["left_preferred"]) == (False, None)
    assert document["judges"][0]["prefers_the_first"] == 1
    assert document["judges"][0]["agrees_with_people"] == pytest.approx(1 / 30)


def test_votes_on_answers_that_are_gone_are_told(arena):
    member = arena.members["a"]
    arena.add(type(member)("a", member.recipe, {}, {**member.answers, "q0": "something else"}))
    document = arena_document(Arena(arena.path), draws=20)
    assert document["remarks"] == ["Left out: 2 votes on answers that no candidate gives any more."]
    assert document["voters"][0]["votes"] == 28


def test_the_page_shows_all_of_it_and_acts_on_no_name(arena):
    document = cleaned(arena_document(arena, draws=20))
    page = render_page(document)
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page
    for text in ("Krippendorff", "at equal length", "by bootstrap", "preferred to a", "x.arena"):
        assert text in page
    assert str(arena.path.parent) not in page


def test_soup_report_shows_an_arena_in_all_forms(arena, tmp_path):
    def run(*words):
        done = CliRunner().invoke(cli, ["report", str(arena.path), *words], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert run().startswith("people: 30 votes (1 tie), 1 skipped; 12 questions")
    table = json.loads(run("--json"))
    assert table["columns"][:3] == ["rating", "rating low", "rating high"]
    assert [row["name"] for row in table["rows"]] == ["b", "c", "a"]
    assert run("--csv").count("\n") == 4
    run("--html", str(tmp_path / "page.html"))
    assert "<title>x.arena: soup report</title>" in (tmp_path / "page.html").read_text()
    assert "<small>1 tie, 1 skipped</small>" in (tmp_path / "page.html").read_text()
    assert json.loads((tmp_path / "page.json").read_text())["kind"] == "arena"


def test_an_arena_without_votes_or_answers_is_told(tmp_path):
    arena = made_arena(tmp_path / "x.arena", {"a": ["yes"], "b": ["no"]})
    assert "Nobody has voted yet." in render_page(cleaned(arena_document(arena)))
    for file in (arena.path / "candidates").iterdir():
        file.unlink()
    done = CliRunner().invoke(cli, ["report", str(arena.path)])
    assert "nobody has answered yet" in str(done.exception)
