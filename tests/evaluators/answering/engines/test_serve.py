"""A server of the user's as an engine: started on each candidate, waited for, asked, stopped with what it started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from evaluators.answering import endpoint
from evaluators.answering.engines import serve
from evaluators.answering.engines.serve import Serve
from evaluators.answering.session import EngineSession
from soup.errors import EvaluatorError
from soup.evaluation.benchmark_names import secret_remarks
from soup.evaluation.settings import EvalSettings
from soup.support import child_process
from soup.testing import check_engine
from tests.helpers.scripted_models import ToyCandidate

TEXTS = [[{"type": "text", "value": f"What is {number}?"}] for number in range(8)]
SERVER = Path(__file__).parents[3] / "helpers" / "toy_server.py"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(child_process, "GRACE_SECONDS", 0.3)


def settings(mode="", **arguments):
    command = f"{sys.executable} {SERVER} {{checkpoint}} {{port}} {mode}"
    return EvalSettings(engine="serve", engine_args={"command": command, **arguments})


def candidate(tmp_path, name):
    path = tmp_path / "with a space" / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"name": name}))
    return ToyCandidate(path, tmp_path / "scratch", name, names=(name,))


def log_of(soup):
    (log,) = soup.logs.iterdir()
    return log.read_text()


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").read_text().split(")")[1].startswith(" Z")


def gone(pids, seconds=120):
    until = time.monotonic() + seconds
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(is_running, pids))


def test_it_keeps_the_contract(tmp_path):
    soups = [candidate(tmp_path, name) for name in "ab"]
    check_engine(lambda settings: Serve(settings, **settings.engine_args), soups, TEXTS, settings=settings())
    assert log_of(soups[0]).count("$ ") == 5  # every candidate has a server of its own
    assert "POST /v1/chat/completions" in log_of(soups[0])


def test_a_soup_is_written_for_its_server(tmp_path):
    session, soup = EngineSession(settings()), candidate(tmp_path, "a")
    assert session.answer(soup, TEXTS[:2], lambda *_: None) == ["a: What is 0?", "a: What is 1?"]
    assert soup.calls == ["directory"]
    session.close()


def test_a_server_that_does_not_start_is_told_with_the_end_of_its_log(tmp_path):
    with pytest.raises(
        EvaluatorError, match=r"(?s)exit code 1 before it was ready\. Log: .*CUDA is not here"
    ) as refusal:
        EngineSession(settings("fail")).answer(candidate(tmp_path, "a"), TEXTS, lambda *_: None)
    assert str(tmp_path / "scratch.logs") in str(refusal.value)


def test_a_server_that_never_gets_ready_is_stopped(tmp_path):
    session = EngineSession(settings("sleep", start_seconds=0.5))
    words = r"within 0\.5 seconds: 127\.0\.0\.1:\d+ answered neither /health nor /v1/models\. Does it listen on {port}"
    with pytest.raises(EvaluatorError, match=words):
        session.answer(candidate(tmp_path, "a"), TEXTS, lambda *_: None)
    assert session.engine._server is None


def test_a_program_that_is_not_there_is_told_in_one_sentence(tmp_path):
    session = EngineSession(EvalSettings(engine="serve", engine_args={"command": "no-such-server {checkpoint} {port}"}))
    with pytest.raises(EvaluatorError, match=r"\nno-such-server: No such file or directory$") as refusal:
        session.answer(candidate(tmp_path, "a"), TEXTS, lambda *_: None)
    assert "Traceback" not in str(refusal.value)


def test_a_server_that_listens_and_never_says_that_it_is_ready_is_stopped(tmp_path):
    began, session = time.monotonic(), EngineSession(settings("mute", start_seconds=0.5))
    with pytest.raises(EvaluatorError, match=r"not ready within 0.5 seconds"):
        session.answer(candidate(tmp_path, "a"), TEXTS, lambda *_: None)
    assert time.monotonic() - began < 30


def test_a_server_that_ended_badly_is_not_taken_for_whoever_answers_in_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint.ChatEndpoint, "is_up", lambda *_, timeout_seconds: time.sleep(0.1) or True)
    monkeypatch.setattr(serve.ChildProcess, "exit_code", lambda _: 1)
    with pytest.raises(EvaluatorError, match="The server ended with exit code 1 before it was ready"):
        EngineSession(settings("fail")).answer(candidate(tmp_path, "a"), TEXTS, lambda *_: None)


def test_a_server_that_dies_midway_is_told_with_the_end_of_its_log(tmp_path):
    session = EngineSession(settings("dies"))
    words = r"(?s)The server of `engine` serve: .*gave no answer.* It ended with exit code 9\..*out of memory"
    with pytest.raises(EvaluatorError, match=words):
        session.answer(candidate(tmp_path, "a"), TEXTS, lambda *_: None)
    session.close()


def test_stopping_ends_the_whole_group_of_a_server_that_will_not_go(tmp_path):
    session, soup = EngineSession(settings("stubborn")), candidate(tmp_path, "a")
    session.answer(soup, TEXTS[:1], lambda *_: None)
    pids = [int(pid) for pid in (soup.path / "pids").read_text().split()]
    assert all(map(is_running, pids))
    session.hold(candidate(tmp_path, "b"))  # another candidate takes its place
    assert gone(pids)
    session.close()


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.exit(3)"])
def test_no_server_outlives_a_run_that_ends_or_is_killed(end, tmp_path):
    soup = candidate(tmp_path, "a")
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from evaluators.answering.session import EngineSession\n"
        "from soup.evaluation.settings import EvalSettings\n"
        "from tests.helpers.scripted_models import ToyCandidate\n"
        f"soup = ToyCandidate(Path({str(soup.path)!r}), Path({str(soup.scratch)!r}), 'a')\n"
        f"settings = EvalSettings(engine='serve', engine_args={dict(settings('stubborn').engine_args)!r})\n"
        "session = EngineSession(settings)\n"
        "session.answer(soup, [[{'type': 'text', 'value': 'x'}]], lambda *_: None)\n"
        f"{end}\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode in (3, -9)
    assert gone([int(pid) for pid in (soup.path / "pids").read_text().split()], 15)


def test_a_key_in_its_command_is_in_no_identity_and_no_log(tmp_path):
    key = "plantedsecret0123456789"
    chosen = settings("--name x --api-key " + key, version=f"token={key}")
    identity = EngineSession(chosen).identity()
    assert "--api-key ***" in identity["command"]
    assert key not in json.dumps(identity)
    soup = candidate(tmp_path, "a")
    engine = Serve(chosen, **chosen.engine_args)
    engine.open(soup)
    engine.close()
    assert "--api-key ***" in log_of(soup)
    assert key not in log_of(soup)
    told = [text.partition(":")[0] for text in secret_remarks([], chosen)]
    assert told == ["`engine_args` command", "`engine_args` version"]
    assert not any("$NAME" in text for text in secret_remarks([], chosen)), "no shell reads its command"


def test_runs_that_start_servers_at_once_never_get_one_port(tmp_path, monkeypatch):
    first, second = serve._free_port(), serve._free_port()
    ports = iter([first, first, second, first])
    monkeypatch.setattr(serve, "_free_port", lambda: next(ports))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one, other = (EngineSession(settings(requests=number)) for number in (1, 2))
    one.hold(candidate(tmp_path, "a"))
    other.hold(candidate(tmp_path, "b"))
    assert [session.engine._endpoint.host for session in (one, other)] == [f"127.0.0.1:{p}" for p in (first, second)]
    one.close()
    one.hold(candidate(tmp_path, "a"))  # it was given back
    assert one.engine._endpoint.host == f"127.0.0.1:{first}"
    for session in (one, other):
        session.close()
    assert not list(tmp_path.glob("*.lock"))


def test_what_is_missing_in_the_command_is_told():
    with pytest.raises(EvaluatorError, match=r"serve: needs `engine_args` command='...' with \{port\} in it"):
        EngineSession(EvalSettings(engine="serve", engine_args={"command": "x {checkpoint}"}))
    with pytest.raises(EvaluatorError, match=r"with \{checkpoint\} and \{port\} in it"):
        EngineSession(EvalSettings(engine="serve"))


def test_a_quotation_that_does_not_end_is_told_before_anything_else():
    with pytest.raises(
        EvaluatorError, match=r"`engine_args` command=serve '\{checkpoint\} \{port\}: No closing quotation"
    ):
        EngineSession(EvalSettings(engine="serve", engine_args={"command": "serve '{checkpoint} {port}"}))


def test_the_identity_has_the_command_and_the_version_that_the_user_gives():
    first = EngineSession(settings()).identity()
    assert first == {
        "engine": "serve",
        "command": settings().engine_args["command"],
        "decoding": "greedy",
        "max_new_tokens": 2048,
    }
    assert EngineSession(settings(version=2)).identity() == {**first, "version": "2"}
