"""Whatever is killed while it adds a vote, and whoever adds others meanwhile: none is lost, and none counts twice."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.arena.votes import Vote, VoteLog, read_votes
from tests.helpers.injected_faults import CALLS, Fault, inject

ROOT = Path(__file__).parents[3]


def cast(voter, number, choice="left"):
    return Vote(f"voter {voter}", "person", f"q{number}", "a", "b", choice)


def add_in_a_child(path, vote, kill):
    """Add a vote in a process of its own, which may be killed; what it said: True, False, or None if nothing.

    `kill`: "calls", n: before its n-th call on a file; "bytes", n: as the file would grow by more than n bytes.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.close(reading)
            how, count = kill or ("", 0)
            if how == "calls":
                inject(Fault(calls=CALLS, at=count, signals=(signal.SIGKILL,)), path.parent, os.open(os.devnull, 1))
            elif how == "bytes":
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                size = path.stat().st_size + count if path.exists() else count
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            os.write(writing, b"yes" if VoteLog(path).add(vote) else b"no")
        finally:
            os._exit(0)
    os.close(writing)
    said = os.read(reading, 9)
    os.close(reading)
    os.waitpid(child, 0)
    return {b"yes": True, b"no": False, b"": None}[said]


KILLS = st.none() | st.tuples(st.just("calls"), st.integers(1, 40)) | st.tuples(st.just("bytes"), st.integers(0, 160))
ACTIONS = st.tuples(
    st.sampled_from(["page", "judge", "child", "child"]),
    st.integers(0, 2),
    st.integers(0, 1),
    st.sampled_from(["left", "right"]),
    KILLS,
)


@given(st.lists(ACTIONS, max_size=10))
@settings(max_examples=40)
@pytest.mark.slow
def test_after_any_kills_each_confirmed_vote_is_there_once_as_it_was_first_given(actions):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "votes.jsonl")
        logs = {"page": VoteLog(path), "judge": VoteLog(path)}
        confirmed, unsure = {}, {}
        for who, voter, number, choice, kill in actions:
            vote = cast(voter, number, choice)
            said = logs[who].add(vote) if who in logs else add_in_a_child(path, vote, kill)
            if said is None:
                assert kill, "nothing but a kill keeps it from an answer"
                unsure.setdefault(vote.key, set()).add(choice)
                continue
            assert said <= (vote.key not in confirmed)
            assert said or vote.key in confirmed or vote.key in unsure
            if vote.key not in confirmed:
                confirmed[vote.key] = {choice} if said else unsure[vote.key]
        kept = {vote.key: vote.choice for vote in read_votes(path)}
        assert confirmed.keys() <= kept.keys() <= confirmed.keys() | unsure.keys()
        assert all(kept[key] in choices for key, choices in confirmed.items())
        whole = [line for line in path.read_bytes().split(b"\n")[:-1] if line]
        assert len(whole) == len(kept)
        for log in logs.values():
            log.refresh()
            assert {vote.key: vote.choice for vote in log.votes} == kept


WRITER = """
import sys
from pathlib import Path
from evaluators.arena.votes import Vote, VoteLog
log = VoteLog(Path(sys.argv[1]))
for number in range(10_000):
    log.add(Vote(sys.argv[2], "person", f"q{number}", "a", "b", "left"))
    log.add(Vote("all", "person", f"q{number}", "a", "b", "left"))  # everybody sends this one
    print(number, flush=True)
"""


def test_three_writers_at_once_that_are_killed_one_after_another_lose_and_double_nothing(tmp_path):
    path, draw = tmp_path / "votes.jsonl", random.Random(5)
    confirmed = Counter()
    for _ in range(3):
        writers = {name: start(path, name) for name in "abc"}
        try:
            for name in draw.sample("abc", 3):
                for _ in range(draw.randrange(5, 15)):
                    assert writers[name].stdout.readline()
                writers[name].kill()
        finally:
            for writer in writers.values():
                writer.kill()
        for name, writer in writers.items():
            lines = writer.communicate()[0].split()
            confirmed[name] = max(confirmed[name], *map(int, lines)) if lines else confirmed[name]
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    assert max(Counter((row["voter"], row["question"]) for row in rows).values()) == 1
    kept = {(vote.voter, vote.question) for vote in read_votes(path)}
    for name, last in confirmed.items():
        assert {(name, f"q{number}") for number in range(last + 1)} <= kept
    assert {("all", f"q{number}") for number in range(max(confirmed.values()) + 1)} <= kept


def start(path, name):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", WRITER, path, name], stdout=subprocess.PIPE, env=environment)
