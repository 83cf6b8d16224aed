"""The page's server: what it gives to whom, and that it gives nothing else."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
from contextlib import contextmanager

import pytest
from PIL import Image

from evaluators.arena.matches import Schedule
from evaluators.arena.record import Arena, Member
from evaluators.arena.server import arena_token, refuse_unheard
from evaluators.arena.task import serving
from evaluators.arena.votes import VoteLog, read_votes
from soup.errors import EvaluatorError
from tests.helpers.arenas import made_arena, vote
from tests.helpers.threaded_servers import in_thread

ANSWERS = {"alpha": ["yes", "one", "red"], "beta": ["yes", "two <b>bold</b>", "blue"]}


@pytest.fixture
def arena(tmp_path):
    return made_arena(tmp_path / "x.arena", ANSWERS)


@contextmanager
def served(arena, host="127.0.0.1"):
    with serving(arena, host, 0) as server, in_thread(server):
        yield server


@pytest.fixture
def server(arena):
    with served(arena) as running:
        yield running


def ask(server, path, body=None, method=None, **headers):
    """Status, headers and body of a reply; with the token, unless another Authorization is named."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    headers = {"Authorization": f"Bearer {server.token}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
    data = json.dumps(body) if isinstance(body, dict) else body
    sent = {name: value for name, value in headers.items() if value is not None}
    connection.request(method or ("GET" if body is None else "POST"), path, data, sent)
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    is_json = reply.headers.get_content_type() == "application/json"
    return reply.status, reply.headers, json.loads(text) if is_json else text


def ballot_of(state, voter, choice):
    pair = state["pair"]
    sides = {side: pair[side]["key"] for side in ("left", "right")}
    return {"voter": voter, "question": pair["question"], "choice": choice, **sides}


def test_a_voter_gets_all_pairs_without_a_name_and_votes_are_kept_by_side(server, arena):
    status, _, state = ask(server, "/api/next?voter=ann")
    assert status == 200
    seen = []
    while state["pair"]:
        text = json.dumps(state)
        assert "alpha" not in text
        assert "beta" not in text
        seen.append((state["pair"]["question"], state["pair"]["left"]["key"], state["pair"]["right"]["key"]))
        _, _, state = ask(server, "/api/vote", ballot_of(state, "ann", "left"))
        assert state["counted"]
    assert (state["done"], state["pairs"]) == (2, 2)
    assert [(vote.question, vote.left, vote.right) for vote in read_votes(arena.votes_path)] == seen
    assert {vote.choice for vote in read_votes(arena.votes_path)} == {"left"}


def test_a_vote_that_is_sent_again_is_not_counted_again(server, arena):
    _, _, state = ask(server, "/api/next?voter=ann")
    body = ballot_of(state, "ann", "right")
    replies = [ask(server, "/api/vote", body | {"choice": choice})[2] for choice in ("right", "right", "left")]
    assert [reply["counted"] for reply in replies] == [True, False, False]
    assert [vote.choice for vote in read_votes(arena.votes_path)] == ["right"]
    assert all(reply["pair"] == replies[0]["pair"] for reply in replies)


def test_votes_outlive_the_server_and_its_link_stays(arena):
    with served(arena) as first:
        token = first.token
        _, _, state = ask(first, "/api/next?voter=ann")
        ask(first, "/api/vote", ballot_of(state, "ann", "tie"))
    with served(Arena(arena.path)) as second:
        assert second.token == token
        _, _, again = ask(second, "/api/next?voter=ann")
        assert again["done"] == 1
        assert again["pair"]["question"] != state["pair"]["question"]
        assert ask(second, "/api/vote", ballot_of(state, "ann", "left"))[2]["counted"] is False


def test_two_pages_of_one_arena_share_their_votes(arena):
    with served(arena) as first, served(Arena(arena.path)) as second:
        assert first.token == second.token
        _, _, state = ask(first, "/api/next?voter=ann")
        body = ballot_of(state, "ann", "left")
        assert ask(first, "/api/vote", body)[2]["counted"]
        _, _, told = ask(second, "/api/vote", body)
        assert (told["counted"], told["done"]) == (False, 1)
        assert ask(second, "/api/vote", ballot_of(told, "ann", "right"))[2]["counted"]
        _, _, end = ask(first, "/api/next?voter=ann")
        assert (end["done"], end["pair"]) == (2, None)
    assert len(arena.votes_path.read_text().splitlines()) == 2


def test_a_judge_votes_while_the_page_is_served(server, arena):
    log = VoteLog(arena.votes_path)
    _, _, state = ask(server, "/api/next?voter=ann")
    assert log.add(vote(arena, "wise", "q1", "alpha", "beta", by="judge"))
    _, _, state = ask(server, "/api/vote", ballot_of(state, "ann", "left"))
    assert (state["counted"], state["done"]) == (True, 1)
    assert log.add(vote(arena, "wise", "q2", "alpha", "beta", by="judge"))
    assert [each.by for each in read_votes(arena.votes_path)] == ["judge", "person", "judge"]


def test_a_candidate_that_joins_or_answers_anew_is_shown_without_a_restart_and_no_vote_is_lost(server, arena):
    _, _, state = ask(server, "/api/next?voter=ann")
    ask(server, "/api/vote", ballot_of(state, "ann", "left"))
    voted = state["pair"]["question"]
    elsewhere = Arena(arena.path)
    elsewhere.add(Member("gamma", "recipe of gamma", {}, {"q0": "no", "q1": "one", "q2": "green"}))
    _, _, state = ask(server, "/api/next?voter=ann")
    assert (state["done"], state["pairs"]) == (1, 5)  # q0 yes and no, q1 one and two, three on q2
    texts = set()
    shown = state
    while shown["pair"]:
        texts |= {shown["pair"][side]["text"] for side in ("left", "right")}
        _, _, shown = ask(server, "/api/vote", ballot_of(shown, "ann", "tie"))
    assert {"no", "green"} <= texts
    elsewhere.add(Member("gamma", "recipe of gamma", {"engine": "another"}, {"q0": "no", "q1": "one", "q2": "grey"}))
    status, _, told = ask(server, "/api/vote", ballot_of(state, "ann", "tie"))
    assert (status, told.get("counted", False)) in [(200, False), (400, False)]  # voted on, or gone
    _, _, state = ask(server, "/api/next?voter=ann")
    assert {state["pair"][side]["text"] for side in ("left", "right")} < {"grey", "red", "blue"}
    votes = read_votes(arena.votes_path)
    assert len(votes) == 5
    assert next(each.choice for each in votes if each.question == voted) == "left"


def test_a_candidate_s_file_that_is_damaged_is_told_and_the_page_goes_on_when_it_is_mended(server, arena):
    _, _, state = ask(server, "/api/next?voter=ann")
    bad = arena.path / "candidates" / "003-bad.json"
    bad.write_text("{")
    for path, body in (("/api/next?voter=ann", None), ("/api/vote", ballot_of(state, "ann", "left"))):
        status, _, told = ask(server, path, body)
        assert (status, "003-bad.json" in told["error"]) == (500, True)
    assert not arena.votes_path.read_text()
    bad.unlink()
    assert ask(server, "/api/vote", ballot_of(state, "ann", "left"))[2]["counted"]


def test_a_name_is_one_name_however_it_is_spaced(server, arena):
    _, _, state = ask(server, "/api/next?voter=%20Ann%20%20Lee%20")
    assert state["voter"] == "Ann Lee"
    ask(server, "/api/vote", ballot_of(state, "Ann   Lee", "tie"))
    assert read_votes(arena.votes_path)[0].voter == "Ann Lee"


@pytest.mark.parametrize("voter", ["", "%20", "x" * 41, "a%00b", "a%E2%80%AEb"])
def test_what_is_no_name_is_refused(server, voter):
    status, _, reply = ask(server, f"/api/next?voter={voter}")
    assert (status, "a name has 1 to 40" in reply["error"]) == (400, True)


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer x", "Basic {}", "Bearer {}x", "Bearer \xe9", "bearer {}"]
)
@pytest.mark.parametrize("path", ["/api/next?voter=ann", "/api/image/x", "/api/vote", "/other"])
def test_nothing_is_told_without_the_token(server, arena, authorization, path):
    value = authorization and authorization.format(server.token)
    body = {"voter": "ann"} if path == "/api/vote" else None
    status, _, reply = ask(server, path, body, Authorization=value)
    assert (status, list(reply)) == (401, ["error"])
    assert not arena.votes_path.read_text()


def test_the_token_is_its_owners_alone_and_in_the_link_behind_the_mark(server, arena):
    assert stat.S_IMODE((arena.path / "token").stat().st_mode) == 0o600
    assert server.link == f"http://127.0.0.1:{server.server_port}/#token={server.token}"
    assert len(server.token) >= 32
    assert arena_token(arena.path) == server.token


def test_another_sites_page_can_not_vote(server, arena):
    _, _, state = ask(server, "/api/next?voter=ann")
    body = ballot_of(state, "ann", "left")
    assert ask(server, "/api/vote", body, Origin="http://evil.example")[0] == 401
    assert ask(server, "/api/vote", body, Origin="null")[0] == 401
    assert ask(server, "/api/vote", body, Content_Type="text/plain")[0] == 400
    assert ask(server, "/api/vote", None, method="OPTIONS")[0] == 501  # no site is let in by CORS
    assert not arena.votes_path.read_text()
    assert ask(server, "/api/vote", body, Origin=f"http://127.0.0.1:{server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/../token", "/%2e%2e/token", "/token", "/arena.json", "/page/../server.py", "//etc/passwd", "/votes.jsonl"]
    + [
        f"/api/image/{name}"
        for name in (
            "..%2Fsecret.png",
            "%2E%2E/secret.png",
            "..%2Ftoken",
            "../token",
            "%2Fetc%2Fpasswd",
            "",
            f"{'cd' * 32}.png",
        )
    ],
)
def test_no_path_leads_to_a_file(server, arena, path):
    Image.new("RGB", (4, 4)).save(arena.path / "secret.png")
    status, _, reply = ask(server, path)
    assert (status, list(reply)) == (404, ["error"])


def test_pictures_are_those_of_questions_and_any_browser_shows_them(server, arena):
    name = arena.questions["q0"].images[0]
    status, headers, data = ask(server, f"/api/image/{name}")
    assert (status, headers["Content-Type"], data) == (200, "image/png", arena.image(name).read_bytes())
    Image.new("RGB", (4, 4)).save(arena.image(name), "TIFF")
    moved = f"{'cd' * 32}.tiff"
    arena.image(name).rename(arena.image(moved))
    server.ballot.images.add(moved)
    status, headers, data = ask(server, f"/api/image/{moved}")
    assert (status, headers["Content-Type"], data[:4]) == (200, "image/png", b"\x89PNG")
    assert ask(server, f"/api/image/{name}")[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"voter": "ann"}',
        b'{"voter": ["ann"], "choice": "left"}',
        b'{"voter": "ann", "choice": ["left"], "question": {}, "left": 1, "right": null}',
        b'{"voter": "ann", "choice": "left", "question": "q1", "left": "x", "right": "y"}',
        b"[" * 5000,
        b" " * 20_000,
        b'{"voter": "\\ud800", "choice": "left"}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_what_is_no_vote_is_refused_and_the_server_goes_on(server, arena, body):
    status, _, reply = ask(server, "/api/vote", body)
    assert (status, list(reply)) == (400, ["error"])
    assert not arena.votes_path.read_text()
    assert ask(server, "/api/next?voter=ann")[0] == 200


def test_sides_that_were_not_shown_are_refused(server, arena):
    _, _, state = ask(server, "/api/next?voter=ann")
    body = ballot_of(state, "ann", "left")
    turned = body | {"left": body["right"], "right": body["left"]}
    status, _, reply = ask(server, "/api/vote", turned)
    assert (status, reply["error"]) == (400, "no such pair here: load the page again")
    assert ask(server, "/api/vote", body | {"choice": "both"})[0] == 400


def test_a_full_disk_is_told_and_the_vote_is_not_counted(server, arena, monkeypatch):
    _, _, state = ask(server, "/api/next?voter=ann")
    body = ballot_of(state, "ann", "left")

    def full(fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        status, _, reply = ask(server, "/api/vote", body)
    assert (status, "No space left" in reply["error"]) == (500, True)
    assert not arena.votes_path.read_text()
    assert ask(server, "/api/vote", body)[2]["counted"]


def test_the_page_holds_no_data_and_lets_nothing_else_in(server):
    for path in ("/", "/page.js", "/page.css"):
        status, headers, data = ask(server, path, Authorization=None)
        assert status == 200
        assert b"alpha" not in data
        assert server.token.encode() not in data
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_connection_that_says_nothing_stops_nobody(server):
    with socket.create_connection(("127.0.0.1", server.server_port)):
        assert ask(server, "/api/next?voter=ann")[0] == 200


def test_without_a_host_only_this_machine_is_listened_to(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_where_it_can_not_listen_is_told(arena):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(EvaluatorError, match=f"127.0.0.1:{port}: can't be listened at"),
            serving(arena, "127.0.0.1", port),
        ):
            pass
        with pytest.raises(EvaluatorError, match=f"127.0.0.1:{port}: can't be listened at"):
            refuse_unheard("127.0.0.1", port)
    refuse_unheard("127.0.0.1", port)
    with pytest.raises(EvaluatorError, match="can't be listened at"), serving(arena, "no.such.host.invalid", 0):
        pass


def test_an_arena_in_which_nothing_differs_is_not_served(tmp_path):
    arena = made_arena(tmp_path / "x.arena", {"a": ["same"], "b": [" same\n"]})
    assert Schedule(arena, []).next("ann") is None
    with (
        pytest.raises(EvaluatorError, match=r"nothing to vote on: .* found 2 candidates on 1 question"),
        serving(arena, "127.0.0.1", 0),
    ):
        pass
