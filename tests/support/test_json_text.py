from __future__ import annotations

import json
import resource
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soup.checkpoints.digest import DigestCache
from soup.errors import CheckpointError, JournalError, SoupError
from soup.evaluation.journal import Journal
from soup.support.json_text import parse_json, read_json, read_json_object

HOSTILE = {
    "3,000 lists in one another": ("[" * 3000 + "]" * 3000, "nested more than 100 deep"),
    "102 lists in one another": ("[" * 102 + "]" * 102, "nested more than 100 deep"),
    "half a surrogate pair": (r'{"a": ["\ud800"]}', r"half of a surrogate pair in the text '\ud800'"),
    "half a surrogate pair as a key": (r'{"\uDFFF": 1}', "half of a surrogate pair"),
    "half a surrogate pair alone": (r'"\ud800"', "half of a surrogate pair"),
    "5,000 digits": ("[" + "9" * 5000 + "]", "a number of 5,000 digits"),
    "a key with two values": ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice"),
    "too many lists and objects": ("[" + "[{}]," * 1_000_000 + "1]", "at most 2,000,000 lists and objects"),
    "no JSON": ("{", "line 1 column 2"),
}


@pytest.mark.parametrize(("text", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_json_is_one_error_that_names_file_and_reason(tmp_path, text, reason):
    path = tmp_path / "config.json"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        read_json(path, CheckpointError)
    assert str(caught.value).startswith(f"{path}: not readable as JSON (")
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 500
    assert time.process_time() - began < 5


def test_a_file_is_read_no_further_than_it_may_be_large(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**36)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SoupError, match=r"config\.json: expected at most 64,000,000 bytes"):
        read_json(path, SoupError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=20)
)
def test_ordinary_json_is_read_as_pythons_own_reader_does(document):
    for ascii_only in (True, False):
        assert parse_json(json.dumps(document, ensure_ascii=ascii_only), "x", SoupError) == document


def test_what_tools_write_is_read():
    text = r'{"model_max_length": 1000000000000000019884624838656, "limit": [0.0, Infinity], "a": 1, "a": 1, '
    text += r'"b": "\ud83d\ude00"}'
    assert parse_json(text, "x", SoupError) == {
        "model_max_length": 1000000000000000019884624838656,
        "limit": [0.0, float("inf")],
        "a": 1,
        "b": "\U0001f600",
    }


def test_a_number_in_as_many_lists_as_may_lie_in_one_another_is_read():
    assert json.dumps(parse_json("[" * 101 + "1" + "]" * 101, "x", SoupError)).count("[") == 101


def test_half_of_a_surrogate_pair_is_read_for_whoever_replaces_it():
    assert parse_json(r'["\ud800"]', "x", SoupError, may_halve=True) == ["\ud800"]


def test_what_is_no_object_is_told_by_its_type(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(SoupError, match=r"x\.json: expected a JSON object, found list"):
        read_json_object(tmp_path / "x.json", SoupError)


@pytest.mark.parametrize("text", [text for text, _ in HOSTILE.values()], ids=HOSTILE.keys())
def test_a_cache_that_cant_be_read_is_an_empty_one(tmp_path, text):
    (tmp_path / "digests.json").write_text(text)
    assert DigestCache(tmp_path / "digests.json")._entries == {}


@pytest.mark.parametrize("text", [text for text, _ in HOSTILE.values()], ids=HOSTILE.keys())
def test_a_hostile_line_of_a_journal_is_told_by_its_number(tmp_path, text):
    (tmp_path / "journal.jsonl").write_text(text + "\n")
    with pytest.raises(JournalError, match=r"journal\.jsonl: line 1 of 1 is damaged"):
        Journal(tmp_path / "journal.jsonl")
