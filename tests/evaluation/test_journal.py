"""The journal keeps what it was told: through tears, kills, full disks and a second process."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from soup.errors import JournalError
from soup.evaluation.api import ALL, Benchmark, Score, Split
from soup.evaluation.journal import Journal, score_key
from soup.merging.recipe import CheckpointSource, Recipe, Share

BENCHMARK = Benchmark("mmbench", "vlmeval", "mmbench")
IDENTITY = {"evaluator": "vlmeval", "version": "0.0.20", "data": "md5:1", "batch_size": 64}


def recipe(*names, weights=None, side="sha256:s"):
    weights = weights or [1 / len(names)] * len(names)
    shares = [
        Share(name=n, path=f"/pool/{n}", digest=f"xxh3:{n}", weight=w) for n, w in zip(names, weights, strict=True)
    ]
    return Recipe(ingredients=tuple(shares), side_digest=side)


def remember(journal, key, value=50.0, made=None, benchmark=BENCHMARK, **score):
    return journal.remember(key, made or recipe("a"), benchmark, IDENTITY, Score(value, **score), 1.5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "journal.jsonl"


@pytest.fixture
def three(path):
    with Journal(path) as journal:
        for i in range(3):
            remember(journal, f"k{i}", 10.0 * i)
    return path


def test_what_is_remembered_is_found_again_by_its_key(path):
    with Journal(path) as journal:
        assert journal.find("k") is None
        points = {"1": 1.0, "2": 0.5}
        remembered = remember(
            journal, "k", 61.8, recipe("a", "b"), n=7, questions=points, parts={"x": 61.8}, unparsed=0.125
        )
        assert journal.find("k") is remembered
    with Journal(path) as journal:
        assert journal.find("k") == remembered
        assert journal.find("k").score == Score(61.8, 7, points, {"x": 61.8}, unparsed=0.125)
        assert [entry.key for entry in journal] == ["k"]


def test_a_line_says_all_that_a_person_wants_to_know(three):
    line = json.loads(three.read_text().splitlines()[1])
    expected = {"schema": 1, "key": "k1", "recipe": recipe("a").digest, "ingredients": ["a"], "weights": [1.0]}
    expected |= {"benchmark": "mmbench", "harness": "vlmeval", "identity": IDENTITY, "split": "all", "fraction": 1.0}
    expected |= {"value": 10.0, "n": None, "parts": {}, "questions": None, "seconds": 1.5}
    assert {name: line[name] for name in expected} == expected
    assert line.keys() - expected.keys() == {"time"}


def test_the_last_of_two_scores_under_one_key_counts(path):
    with Journal(path) as journal:
        remember(journal, "k", 1.0)
        remember(journal, "k", 2.0)
        assert [entry.score.value for entry in journal] == [1.0, 2.0]
    with Journal(path, write=False) as journal:
        assert journal.find("k").score.value == 2.0
        assert len(list(journal)) == 2


@pytest.mark.parametrize("cut", [1, 2, 40, "all but one byte"])
def test_a_torn_last_line_is_dropped_and_the_next_one_stands_whole(three, cut):
    data = three.read_bytes()
    last = len(data.splitlines(keepends=True)[-1])
    three.write_bytes(data[: -(last - 1 if cut == "all but one byte" else cut)])
    with Journal(three) as journal:
        assert [entry.key for entry in journal] == ["k0", "k1"]
        remember(journal, "k3")
    with Journal(three) as journal:
        assert [entry.key for entry in journal] == ["k0", "k1", "k3"]
    assert [json.loads(line)["key"] for line in three.read_text().splitlines()] == ["k0", "k1", "k3"]


def test_a_journal_torn_at_any_byte_keeps_every_whole_line(three):
    data = three.read_bytes()
    for end in range(len(data) + 1):
        three.write_bytes(data[:end])
        with Journal(three) as journal:
            assert len(list(journal)) == data[:end].count(b"\n")


def test_reading_leaves_a_torn_line_as_it_is(three):
    torn = three.read_bytes()[:-5]
    three.write_bytes(torn)
    with Journal(three, write=False) as journal:
        assert len(list(journal)) == 2
    assert three.read_bytes() == torn


BAD = [
    b"\n",
    b"{}\n",
    b"nonsense\n",
    b"[1]\n",
    b"null\n",
    b"\xff\xfe\n",
    b'{"schema": 1, "key": "k1"}\n',
    b"\0\0\0\n",
    b"a\rb\n",
]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_a_bad_whole_line_is_an_error_with_its_number_and_nothing_is_touched(three, bad, index):
    """The last line too: what ends in a newline was not torn, and may be a score that a newer soup told."""
    lines = three.read_bytes().splitlines(keepends=True)
    lines.insert(index, bad)
    three.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=f"journal.jsonl: line {index + 1} of 4 is damaged"):
        Journal(three)
    assert three.read_bytes() == b"".join(lines)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 0),
        ("value", float("nan")),
        ("value", "high"),
        ("value", 101),
        ("split", "half"),
        ("parts", [1]),
        ("part_questions", {"a": 1}),
        ("part_questions", {"a": {"0": "right"}}),
        ("unparsed", 2),
        ("unparsed", "few"),
    ],
)
def test_a_line_with_a_wrong_value_is_an_error_with_its_number(three, field, value):
    lines = three.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {"parts": {"a": 10.0}} | {field: value})
    three.write_text("\n".join(lines) + "\n")
    with pytest.raises(JournalError, match="line 2 of 3 is damaged"):
        Journal(three)


def test_a_line_of_a_later_soup_is_told_as_such_and_nobody_is_advised_to_remove_it(three):
    lines = three.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {"schema": 2})
    three.write_text("\n".join(lines) + "\n")
    with pytest.raises(JournalError, match=r"line 2 is of a later soup \(schema 2, .*Update soup") as refused:
        Journal(three)
    assert "Remove" not in str(refused.value)


def test_a_damaged_line_is_told_once(three):
    three.write_bytes(three.read_bytes().replace(b"\n", b"\n\n", 1))
    with pytest.raises(JournalError) as caught:
        Journal(three)
    what, _, reason = str(caught.value).partition(" is damaged ")
    assert what == f"{three}: line 2 of 4"
    assert reason.startswith("(not readable as JSON (Expecting value: line 1 column 1 (char 0))). Remove that line")


def test_a_damaged_journal_is_not_left_locked(three):
    whole = three.read_bytes()
    three.write_bytes(b"bad\n" + whole)
    with pytest.raises(JournalError, match="line 1 of 4"):
        Journal(three)
    three.write_bytes(whole)
    with Journal(three) as journal:
        assert len(list(journal)) == 3


def test_a_second_writer_is_told_and_a_reader_is_not(path):
    with Journal(path) as journal:
        remember(journal, "k")
        with pytest.raises(JournalError, match="another run is using it"):
            Journal(path)
        with Journal(path, write=False) as reader:
            assert len(list(reader)) == 1
    Journal(path).close()


OTHER = """
import sys
from pathlib import Path
from soup.evaluation.journal import Journal
journal = Journal(Path(sys.argv[1]))
print("mine", flush=True)
sys.stdin.read()
"""


def test_a_journal_belongs_to_one_process_until_that_dies(path):
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(JournalError, match=f"{path}: another run is using it. Wait for that run"):
            Journal(path)
        other.send_signal(signal.SIGKILL)
    with Journal(path) as journal:
        remember(journal, "k")


def test_a_score_survives_a_kill_right_after_it_was_told(path):
    """A fork stands for the run: it is killed before it can flush or close anything."""
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            journal = Journal(path)
            remember(journal, f"k{number}")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        with Journal(path, write=False) as journal:
            assert [entry.key for entry in journal] == [f"k{i}" for i in range(number + 1)]


def test_a_line_is_synced_to_the_disk_before_it_counts_as_told(path, monkeypatch):
    synced = []
    with Journal(path) as journal:
        monkeypatch.setattr(os, "fsync", lambda fd: synced.append(path.read_bytes()))
        remember(journal, "k")
        assert synced == [path.read_bytes()]


class FullDisk:
    """An open file whose disk has room for so many bytes and then no more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = data[: self.room]
        self.room -= len(part)
        return self.file.write(part)


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_loses_no_earlier_line_and_leaves_no_half_one(three, room):
    whole = three.read_bytes()
    with Journal(three) as journal:
        file, journal._log.file = journal._log.file, FullDisk(journal._log.file, room)
        with pytest.raises(JournalError, match=r"journal.jsonl: can't be appended to .No space left on device"):
            remember(journal, "k3")
        assert three.read_bytes() == whole
        assert journal.find("k3") is None
        journal._log.file = file  # the user made room
        remember(journal, "k3")
    with Journal(three) as journal:
        assert [entry.key for entry in journal] == ["k0", "k1", "k2", "k3"]


def test_a_write_in_pieces_is_one_line(path):
    class Slow(FullDisk):
        def write(self, data):
            return self.file.write(data[:7])

    with Journal(path) as journal:
        journal._log.file = Slow(journal._log.file, 0)
        remember(journal, "k")
    with Journal(path) as journal:
        assert len(list(journal)) == 1


def test_a_failed_sync_takes_its_line_back(three, monkeypatch):
    whole = three.read_bytes()

    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Journal(three) as journal:
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(JournalError, match="Input/output error"):
            remember(journal, "k3")
    assert three.read_bytes() == whole


@pytest.mark.parametrize("location", ["a file", "below a file"])
def test_a_journal_where_none_can_be_is_told(tmp_path, location):
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=r"can't be written .*Choose another `run_dir`"):
        Journal(tmp_path / "file" / ("x" if location == "a file" else "x/y") / "journal.jsonl")


def test_a_journal_that_is_a_folder_is_told(path):
    path.mkdir(parents=True)
    with pytest.raises(JournalError, match="can't be"):
        Journal(path)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.floats(0, 100) | st.integers(0, 100)
scores = st.builds(
    Score,
    value=values,
    n=st.none() | st.integers(0, 10**9),
    questions=st.none() | st.dictionaries(texts, st.floats(0, 1), max_size=4),
    parts=st.dictionaries(texts, values, max_size=4),
)
points = st.dictionaries(texts, st.floats(0, 1), max_size=4)
scores = st.builds(
    lambda score, rows: replace(score, part_questions=dict(zip(score.parts, rows, strict=False))),
    scores,
    st.lists(points, max_size=4),
)
splits = st.just(ALL) | st.builds(
    Split, st.sampled_from(["selection", "report"]), st.floats(0, 1, exclude_min=True, exclude_max=True)
)
names = st.lists(texts.filter(bool), min_size=1, max_size=4, unique=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(texts, names, texts, splits, scores, st.floats(0, 1e6)), max_size=5))
@example([("k", ["a\u2028b\x85\r\n"], "\x1c", ALL, Score(0), 0.0)])
def test_whatever_is_told_is_replayed_as_it_was(tmp_path_factory, told):
    path = tmp_path_factory.mktemp("run") / "journal.jsonl"
    with Journal(path) as journal:
        entries = [
            journal.remember(key, recipe(*given), Benchmark(name, "h", "t", split), IDENTITY, score, seconds)
            for key, given, name, split, score, seconds in told
        ]
    with Journal(path) as journal:
        assert list(journal) == entries
        assert [entry.score for entry in journal] == [score for *_, score, _ in told]
        assert [entry.split for entry in journal] == [split for _, _, _, split, *_ in told]


KEY = score_key(recipe("a", "b").digest, BENCHMARK, IDENTITY)


@pytest.mark.parametrize(
    "identity",
    [
        IDENTITY | {"data": "md5:2"},
        IDENTITY | {"version": "0.0.21"},
        IDENTITY | {"batch_size": 32},
        IDENTITY | {"judge": "exact"},
        {name: value for name, value in IDENTITY.items() if name != "data"},
    ],
)
def test_the_key_changes_with_all_that_a_harness_says_of_itself(identity):
    assert score_key(recipe("a", "b").digest, BENCHMARK, identity) != KEY


@pytest.mark.parametrize(
    "change",
    [
        {"harness": "python"},
        {"target": "mmbench_cn"},
        {"split": Split("selection", 0.5)},
    ],
)
def test_the_key_changes_with_harness_target_and_split(change):
    assert score_key(recipe("a", "b").digest, replace(BENCHMARK, **change), IDENTITY) != KEY


def test_the_two_parts_of_a_split_and_two_fractions_have_keys_of_their_own():
    parts = [Split("selection", 0.5), Split("report", 0.5), Split("selection", 0.25), ALL]
    assert len({score_key("r", replace(BENCHMARK, split=split), IDENTITY) for split in parts}) == 4


@pytest.mark.parametrize(
    "other",
    [
        recipe("a"),
        recipe("a", "c"),
        recipe("b", "a"),
        recipe("a", "b", weights=[0.25, 0.75]),
        recipe("a", "b", side="sha256:t"),
        recipe("a", "b").model_copy(update={"method": "slerp"}),
        recipe("a", "b").model_copy(update={"params": {"t": 0.5}}),
        recipe("a", "b").model_copy(update={"dtype": "float16"}),
        recipe("a", "b").model_copy(update={"drop": ("lm_head*",)}),
        recipe("a", "b").model_copy(update={"base": CheckpointSource(name="base", path="/b", digest="xxh3:base")}),
    ],
)
def test_the_key_changes_with_the_recipe(other):
    assert score_key(other.digest, BENCHMARK, IDENTITY) != KEY


def test_the_key_changes_neither_with_paths_nor_with_names_nor_with_the_strategy():
    shares = [
        share.model_copy(update={"path": "/moved", "name": share.name * 2}) for share in recipe("a", "b").ingredients
    ]
    same = recipe("a", "b").model_copy(update={"ingredients": tuple(shares), "strategy": "greedy"})
    assert score_key(same.digest, replace(BENCHMARK, name="MMBench"), dict(reversed(IDENTITY.items()))) == KEY
