"""A small file is there as a whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from soup.support import atomic_files
from soup.support.atomic_files import write_atomic
from soup.support.file_lock import FileLock


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


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "folder"])
def test_what_is_no_file_is_not_replaced(kind, tmp_path):
    path = tmp_path / "state.json"
    make = {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "link to a device": lambda: path.symlink_to("/dev/null"),
    }
    make[kind]()
    before = path.lstat()
    with pytest.raises(FileExistsError, match=r"a pipe, a device or a folder lies there.*state\.json"):
        write_atomic(path, "new")
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert names_in(tmp_path) == ["state.json"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("step", ["open", "replace"])
@pytest.mark.parametrize("locks", [True, False])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(locks, step, error, tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    path.write_text("old")
    if not locks:  # as on some network file systems
        monkeypatch.setattr(FileLock, "wait", lambda *_, **__: FileLock(-1))

    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(type(error)):
        write_atomic(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["state.json"]


def test_a_failure_names_the_file_where_the_system_names_none(tmp_path):
    def fail(error):
        with atomic_files.atomic_file(tmp_path / "state.json"):
            raise error

    with pytest.raises(OSError, match=r"disk full: '.*/state\.json'"):
        fail(OSError(28, "disk full"))
    with pytest.raises(OSError, match="disk full: 'mine'"):
        fail(OSError(28, "disk full", "mine"))
    with pytest.raises(ValueError, match=r"^no file$"):
        fail(ValueError("no file"))


def test_a_file_where_a_folder_belongs_is_named(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(NotADirectoryError, match=r"/run'$"):
        write_atomic(tmp_path / "run" / "soups" / "state.json", "new")


def test_a_folder_that_another_process_makes_first_is_no_failure(tmp_path, monkeypatch):
    mkdir = Path.mkdir

    def late(self, *arguments, **keywords):
        mkdir(self)
        mkdir(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "mkdir", late)
    write_atomic(tmp_path / "run" / "soups" / "state.json", "new")
    assert names_in(tmp_path / "run" / "soups") == ["state.json"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux lists open files")
def test_no_file_stays_open(tmp_path):
    before = names_in(Path("/proc/self/fd"))
    write_atomic(tmp_path / "state.json", b"bytes")
    assert names_in(Path("/proc/self/fd")) == before


def test_of_several_writers_at_once_each_leaves_a_whole_file(tmp_path):
    path, failures = tmp_path / "state.json", []
    texts = {letter * 200_000 for letter in "abcd"}
    write_atomic(path, "a" * 200_000)
    code = (
        "import sys; from pathlib import Path; from soup.support.atomic_files import write_atomic\n"
        "for _ in range(60): write_atomic(Path(sys.argv[1]), sys.argv[2] * 200_000)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), letter]) for letter in "bcd"]
    while any(writer.poll() is None for writer in writers):
        if path.read_text() not in texts:
            failures.append("torn")
    assert not failures
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert names_in(tmp_path) == ["state.json"]


def test_who_waits_too_long_for_another_writer_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_files, "PATIENCE_SECONDS", 0)
    with (
        atomic_files.atomic_file(tmp_path / "state.json"),
        pytest.raises(OSError, match=r"another process writes it.*state\.json"),
    ):
        write_atomic(tmp_path / "state.json", "mine")


def test_what_a_kill_left_is_overwritten(tmp_path):
    (tmp_path / ".state.json.new").write_text("half a te")
    write_atomic(tmp_path / "state.json", "whole")
    assert names_in(tmp_path) == ["state.json"]
