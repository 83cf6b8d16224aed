"""The corpus of the fuzzers, replayed: each file is taken, or refused by a `SoupError`; nothing else comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, run

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
LARGEST_BYTES = 4096


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tmp_path_factory.mktemp(name) for name in TARGETS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_is_taken_or_refused(path, folders):
    name = path.parent.name
    assert run(name, path.read_bytes(), folders[name]) in (True, False), "anything else would have been raised"


def test_every_target_has_a_small_corpus_some_of_which_is_taken(folders):
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert max(path.stat().st_size for path in FILES) < LARGEST_BYTES
    taken = {path.parent.name for path in FILES if run(path.parent.name, path.read_bytes(), folders[path.parent.name])}
    assert taken == set(TARGETS)
