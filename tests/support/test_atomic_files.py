"""A small file is there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from soup.support.atomic_files import write_atomic


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_text_is_written_in_utf_8_and_parents_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "state.json"
    write_atomic(path, "θ\n")
    assert path.read_bytes() == "θ\n".encode()
    assert names_in(path.parent) == ["state.json"]


def test_an_old_file_is_replaced(tmp_path):
    path = tmp_path / "state.json"
    for text in ("a long first text", "short"):
        write_atomic(path, text)
    assert path.read_text() == "short"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(step, error, tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    path.write_text("old")

    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(type(error)):
        write_atomic(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["state.json"]


def test_what_a_kill_left_is_overwritten(tmp_path):
    (tmp_path / ".state.json.new").write_text("half a te")
    write_atomic(tmp_path / "state.json", "whole")
    assert names_in(tmp_path) == ["state.json"]
