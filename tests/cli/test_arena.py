"""`soup arena ...` as a user types it: candidates answer once, a judge votes in both orders, ratings are printed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket

import pytest
from click.testing import CliRunner

from evaluators.answering import endpoint
from evaluators.arena.record import Arena
from evaluators.arena.votes import VoteLog, read_votes
from soup.cli.app import cli
from soup.errors import SoupError
from tests.evaluators.vlmeval.test_local_judge import save_language_model
from tests.helpers.arenas import vote, write_candidates, write_prompts
from tests.helpers.forked_cli import Forge
from tests.helpers.scripted_models import JudgeServer
from tests.helpers.toy_pools import make_checkpoint
from tests.helpers.vlm_families import save_family

SPEAKER = ("--model", "speaker.py:Speaker")
COMMAND = ("ckpts/a", "ckpts/b", "--prompts", "prompts.jsonl", *SPEAKER)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path / "prompts.jsonl")
    write_candidates(tmp_path)
    return tmp_path


def run(*words):
    return CliRunner().invoke(cli, ["arena", *words], catch_exceptions=False)


def asked(here):
    notes = here / "speaker.notes"
    return notes.read_text().splitlines() if notes.exists() else []


def prefer_larger(prompt, temperature):
    """What a judge says that prefers the candidate of the larger number."""
    numbers = [float(number) for number in re.findall(r"I say (\d+)", str(prompt))]
    if not numbers:
        return "hello"
    return f"Both are short.\n{1 if numbers[0] > numbers[1] else 2}"


def test_a_plan_is_made_and_nothing_is_written(here):
    before = {path.name for path in here.iterdir()}
    plan = json.loads(run(*COMMAND, "--dry-run", "--json").stdout)
    assert plan == {
        "schema": 1,
        "run": "prompts.arena",
        "questions": 6,
        "candidates": ["a", "b"],
        "to_ask": ["a", "b"],
        "pairs_so_far": 0,
        "pairs_at_most": 6,
        "votes": 0,
        "judge": None,
    }
    assert {path.name for path in here.iterdir()} == before
    run(*COMMAND, "--report")
    plan = json.loads(run(*COMMAND, "--dry-run", "--json").stdout)
    assert (plan["to_ask"], plan["pairs_so_far"]) == ([], 4)


@pytest.mark.parametrize("last", ["--dry-run", "--report"])
def test_an_arena_is_not_made_in_the_run_of_a_search(here, last):
    run_of_search = here / "ckpts.soup"
    run_of_search.mkdir()
    (run_of_search / "journal.jsonl").touch()
    with pytest.raises(SoupError, match=r"^ckpts\.soup: expected an arena or a new folder, found the run of a search"):
        run(*COMMAND, "--run-dir", "ckpts.soup", last)
    assert [path.name for path in run_of_search.iterdir()] == ["journal.jsonl"]


@pytest.mark.parametrize("command", [["arena", *COMMAND], ["eval", "ckpts/a", "--eval", "python:judge.py:score"]])
def test_a_file_is_refused_as_run_directory(here, command):
    ended = CliRunner().invoke(cli, [*command, "--run-dir", "prompts.jsonl"])
    assert (ended.exit_code, ended.stderr.splitlines()[-1]) == (
        2,
        "Error: Invalid value for '--run-dir': Directory 'prompts.jsonl' is a file.",
    )


def test_candidates_answer_once_and_later_ones_join(here):
    run(*COMMAND, "--report")
    run(*COMMAND, "--report")
    assert asked(here) == ["1 was asked 6", "2 was asked 6"]
    document = json.loads(run("ckpts/c", "--run-dir", "prompts.arena", *SPEAKER, "--report", "--json").stdout)
    assert [candidate["name"] for candidate in document["candidates"]] == ["a", "b", "c"]
    assert (document["baseline"], document["pairs"]) == ("a", 12)
    assert asked(here)[2:] == ["3 was asked 6"]
    arena = Arena(here / "prompts.arena")
    assert arena.members["b"].answers["q4"] == "I say 2 to 4"
    assert len(list((here / "prompts.arena/images").iterdir())) == 6


def test_workers_answer_as_one_process_does(here):
    run(*COMMAND, "--report")
    run(*COMMAND, "--workers", "2", "--report", "--run-dir", "by_workers")
    ours, theirs = Arena(here / "prompts.arena").members, Arena(here / "by_workers").members
    assert {name: m.answers for name, m in ours.items()} == {name: m.answers for name, m in theirs.items()}


def test_endpoints_answer_for_a_candidate_each_in_one_arena(here):
    for name, url_says in (("a", "yes"), ("b", "no")):
        with JudgeServer(lambda prompt, temperature, text=url_says: text) as server:
            engine = ("--engine", "openai", "--engine-url", server.url)
            run(f"ckpts/{name}", "--prompts", "prompts.jsonl", *engine, "--report")
            kinds = [part["type"] for part in server.prompts[0]]
            assert (len(server.prompts), sorted(kinds)) == (6, ["image_url", "text"])
    members = Arena(here / "prompts.arena").members
    assert {name: {*m.answers.values()} for name, m in members.items()} == {"a": {"yes"}, "b": {"no"}}


def test_an_arena_needs_neither_checkpoints_nor_prompts_to_be_looked_at(here):
    run(*COMMAND, "--report")
    for name in ("ckpts", "prompts.jsonl", "speaker.py"):
        path = here / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (here / "prompts.arena").rename(here / "moved")
    document = json.loads(run("--run-dir", "moved", "--report", "--json").stdout)
    assert (document["pairs"], document["voters"][0]["remarks"]) == (4, ["Nobody has voted yet."])


def test_votes_become_a_table_of_ratings(here):
    run("ckpts/c", *COMMAND, "--report")
    arena = Arena(here / "prompts.arena")
    log = VoteLog(arena.votes_path)
    for voter in ("ann", "bob"):
        for question in ("q1", "q2", "q4", "q5"):
            log.add(vote(arena, voter, question, "b", "a", "left" if question != "q5" else "tie"))
            log.add(vote(arena, voter, question, "c", "b", "right" if (voter, question) == ("ann", "q1") else "left"))
    log.add(vote(arena, "bob", "q1", "a", "c", "skip"))
    out = run("--run-dir", "prompts.arena", "--report", "--baseline", "a").stdout
    assert out.startswith("people: 16 votes (2 ties), 1 skipped; 6 questions, 12 pairs\n")
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["c", "b", "a"]
    assert "people agree on 88 % of 8 pairs of votes, Krippendorff's alpha" in out
    document = json.loads(run("--run-dir", "prompts.arena", "--report", "--json", "--baseline", "b").stdout)
    (people,) = document["voters"]
    assert [row["name"] for row in people["people"]] == ["ann", "bob"]
    by_name = {row["name"]: row for row in people["ratings"]}
    assert by_name["b"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert by_name["a"]["difference"]["value"] < 0 < by_name["c"]["difference"]["value"]
    cells = {(cell["first"], cell["second"]): cell for cell in people["wins"]}
    ab = cells["a", "b"] if ("a", "b") in cells else cells["b", "a"]
    assert (ab["wins"] + ab["losses"], ab["ties"], ab["identical"]) == (6, 2, 4.0)


def test_a_judge_votes_on_every_pair_in_both_orders_and_is_not_asked_twice(here):
    with JudgeServer(prefer_larger) as server:
        judge = ("--judge-url", server.url, "--judge-model", "wise")
        document = json.loads(run("ckpts/c", *COMMAND, *judge, "--report", "--json").stdout)
        assert len(server.prompts) == 1 + 2 * 12  # one to reach it
        (voters,) = document["voters"]
        assert (voters["voters"], voters["votes"], voters["ties"]) == ("wise", 12, 0)
        assert [row["name"] for row in sorted(voters["ratings"], key=lambda r: r["rating"]["value"])] == ["a", "b", "c"]
        assert document["judges"][0]["same_in_both_orders"] == 1.0
        assert voters["remarks"] == []  # identical answers are ties, so that nobody won always
        again = json.loads(run("ckpts/c", *COMMAND, *judge, "--report", "--json").stdout)
        assert again == document
        assert len(server.prompts) == 25
        assert all(isinstance(body["messages"][-1]["content"], str) for body in server.bodies)
    votes = read_votes(here / "prompts.arena/votes.jsonl")
    assert {(each.by, len(each.orders)) for each in votes} == {("judge", 2)}


def test_a_judge_that_always_likes_the_first_says_nothing_but_ties(here):
    with JudgeServer(lambda prompt, temperature: "1") as server:
        judge = ("--judge-url", server.url, "--judge-model", "biased")
        document = json.loads(run(*COMMAND, *judge, "--report", "--json").stdout)
    (voters,) = document["voters"]
    assert (voters["votes"], voters["ties"]) == (4, 4)
    judge = document["judges"][0]
    assert (judge["same_in_both_orders"], judge["prefers_the_first"]) == (0.0, 1.0)


def test_a_judge_sees_pictures_where_that_is_wished(here):
    with JudgeServer(prefer_larger) as server:
        judge = ("--judge-url", server.url, "--judge-model", "wise", "--judge-images")
        document = json.loads(run(*COMMAND, *judge, "--report", "--json").stdout)
        parts = [body["messages"][-1]["content"] for body in server.bodies[1:]]
    assert document["voters"][0]["voters"] == "wise with pictures"
    assert all([part["type"] for part in content] == ["image_url", "text"] for content in parts)
    assert all(content[0]["image_url"]["url"].startswith("data:image/png;base64,") for content in parts)


def test_a_judge_may_be_a_checkpoint_which_sees_no_pictures(here, one_thread):
    save_language_model(here / "lm", 0)
    judge = ("--judge-model", "lm", "--report")
    with pytest.raises(SoupError, match=r"the judge lm .* gave no reply that can be read for"):
        run(*COMMAND, *judge)  # its weights are random
    with pytest.raises(SoupError, match=r"lm is a language model of transformers, which sees no pictures"):
        run(*COMMAND, *judge, "--judge-images")


def test_a_judge_that_can_not_be_read_or_stops_is_told_and_its_votes_stay(here):
    with JudgeServer(lambda prompt, temperature: "I like both of them a lot.") as server:
        judge = ("--judge-url", server.url, "--judge-model", "vague", "--report")
        with pytest.raises(SoupError, match=r"the judge vague .* gave no reply that can be read for"):
            run(*COMMAND, *judge)

    replies = iter(["hello"] + ["1", "2"] * 2)

    def stopping(prompt, temperature):
        return next(replies, (403, "no more"))

    with JudgeServer(stopping) as server:
        judge = ("--judge-url", server.url, "--judge-model", "poor", "--judge-requests", "1", "--report")
        with pytest.raises(SoupError, match=r"the judge poor .* stopped answering after 4 replies"):
            run(*COMMAND, *judge)
        assert sum(each.voter == "poor" for each in read_votes(here / "prompts.arena/votes.jsonl")) == 2
        replies = iter(["hello"] + ["1", "2"] * 2)
        run(*COMMAND, *judge)
        assert len(server.prompts) == 11
    assert sum(each.voter == "poor" for each in read_votes(here / "prompts.arena/votes.jsonl")) == 4


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "no arena"),
        (("--prompts", "empty.jsonl", "ckpts/a"), "empty.jsonl: no rows in it"),
        (("--prompts", "bad.jsonl", "ckpts/a"), "rows that can't be asked:\n"),
        (("--prompts", "bad.jsonl", "ckpts/a"), r"bad.jsonl, line 2, image 1 \(none.png\): no such file"),
        (("--prompts", "bad.jsonl", "ckpts/a"), r"bad.jsonl, line 3: expected an object"),
        (("--prompts", "bad.jsonl", "ckpts/a"), r"bad.jsonl, line 4: expected a `question` or `messages`, found image"),
        (("--prompts", "bad.jsonl", "ckpts/a"), r"bad.jsonl, line 5, image 1 \(speaker.py\): not a picture"),
        (("--prompts", "twice.jsonl", "ckpts/a"), "twice.jsonl, line 2: the id x stands above, too"),
        (("--prompts", "prompts.jsonl", "ckpts/none"), "ckpts/none: "),
        (("--prompts", "prompts.jsonl", "ckpts/a", "--judge-model", "x"), "A judge needs both"),
        (("--prompts", "prompts.jsonl", "ckpts/a", "--report", "--baseline", "z"), "no candidate 'z'. Known: a"),
        (("--prompts", "prompts.jsonl", "ckpts/a"), "expected two candidates, found a alone"),
    ],
    ids=lambda words: " ".join(words)[:40] if isinstance(words, tuple) else "",
)
def test_bad_input_is_told_in_a_sentence(here, words, why):
    (here / "empty.jsonl").write_text("")
    rows = [{"question": "", "image": "0.png"}, {"image": "none.png", "question": "Q"}, 7, {"image": "0.png"}]
    rows += [{"image": "speaker.py", "question": "Q"}]
    (here / "bad.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (here / "twice.jsonl").write_text('{"id": "x", "question": "Q"}\n' * 2)
    with pytest.raises(SoupError, match=why):
        run(*words, "--run-dir", "x.arena", *SPEAKER)
    assert not asked(here)


def test_nothing_to_go_on_is_a_usage_error(here):
    done = run("ckpts/a")
    assert (done.exit_code, "expected --prompts FILE" in done.stderr) == (2, True)


def test_another_checkpoint_of_a_known_name_and_other_prompts_are_refused(here):
    run(*COMMAND, "--report")
    make_checkpoint(here / "other" / "a", 9, head=[9, 0, 0, 0])
    with pytest.raises(SoupError, match=r"a: the arena prompts.arena has other weights under that name"):
        run("other/a", "--run-dir", "prompts.arena", *SPEAKER, "--report")
    write_prompts(here / "prompts.jsonl", count=7)
    with pytest.raises(SoupError, match=r"an arena of other questions \(1 differ, e.g. q6\)"):
        run(*COMMAND, "--report")


def test_weights_that_the_arena_has_under_another_name_are_taken_once(here):
    run(*COMMAND, "--report")
    shutil.copytree(here / "ckpts" / "a", here / "other" / "copy")
    done = run("other/copy", "--run-dir", "prompts.arena", *SPEAKER, "--report")
    assert "copy: the arena has these weights as a, and takes them once" in done.stderr
    assert [*Arena(here / "prompts.arena").members] == ["a", "b"]


def test_a_candidate_that_answers_by_another_engine_takes_its_own_place_whatever_was_removed(here):
    run("ckpts/c", *COMMAND, "--report")
    folder = here / "prompts.arena" / "candidates"
    next(folder.glob("001-*")).unlink()
    with JudgeServer(lambda prompt, temperature: "anew") as server:
        engine = ("--engine", "openai", "--engine-url", server.url)
        run("ckpts/a", "--run-dir", "prompts.arena", *engine, "--report")
    assert sorted(path.name for path in folder.iterdir()) == ["002-a.json", "003-b.json"]
    members = Arena(here / "prompts.arena").members
    assert {name: {*member.answers.values()} == {"anew"} for name, member in members.items()} == {"b": False, "a": True}


def test_asking_warns_of_no_scores_that_are_the_same(here):
    assert "warning" not in run(*COMMAND, "--report").stderr


def test_a_judge_that_does_not_answer_is_told_before_anybody_is_asked(here, monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE_SECONDS", 0.0)
    judge = ("--judge-url", "http://127.0.0.1:9", "--judge-model", "wise", "--report")
    with pytest.raises(
        SoupError, match=r"(?s)the judge wise .* does not answer.*or leave --judge-model out, and people"
    ):
        run(*COMMAND, *judge)
    assert not asked(here)


def test_a_page_that_could_not_be_served_is_told_before_anybody_is_asked(here):
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(SoupError, match=r"can't be listened at \(Address already in use\)\. .*--report adds candidates"),
    ):
        run(*COMMAND, "--port", str(other.getsockname()[1]))
    assert not asked(here)


def test_an_arena_below_a_file_is_told(here):
    with pytest.raises(NotADirectoryError, match=r"prompts\.jsonl"):
        run(*COMMAND, "--run-dir", "prompts.jsonl/x", "--report")


def test_an_interrupted_arena_asks_only_for_the_rest(here):
    code = (here / "speaker.py").read_text()
    (here / "speaker.py").write_text(
        code.replace(
            "        return [self.reply(prompt) for prompt in prompts]",
            "        if self.number == 2 and (Path(__file__).parent / 'stop').exists():\n"
            "            import os, signal\n"
            "            (Path(__file__).parent / 'stop').unlink()\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "        return [self.reply(prompt) for prompt in prompts]",
        )
    )
    (here / "stop").touch()
    command = ("arena", *COMMAND, "--batch-size", "2", "--report")
    with Forge() as forge:
        ended = forge(*command, cwd=here)
        assert (ended.code, "interrupted" in ended.stderr) == (130, True)
        assert forge(*command, cwd=here).code == 0
    assert asked(here) == ["1 was asked 2"] * 3 + ["2 was asked 2"] * 4  # the batch that was cut off once more


def test_the_example_in_the_help_runs_on_real_models_which_answer(here, one_thread):
    shutil.rmtree(here / "ckpts")
    for seed, name in enumerate("ab"):
        save_family("llava", here / "ckpts" / name, seed)
    words = shlex.split(cli.commands["arena"].example)
    assert "to ask" in CliRunner().invoke(cli, words[1:], catch_exceptions=False).stdout
    write_prompts(here / "prompts.jsonl", count=2)
    document = json.loads(run(*words[2:-1], "--report", "--json").stdout)
    assert [candidate["answers"] for candidate in document["candidates"]] == [2, 2]
    assert document["pairs"] == 2
