"""A lock belongs to one process at a time, and ends with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from soup.support import file_lock
from soup.support.file_lock import FileLock

HOLD = (
    "import sys; from pathlib import Path; from soup.support.file_lock import FileLock\n"
    "lock = FileLock.take(Path(sys.argv[1])); print(lock is not None, flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path):
    """A process that holds a lock on `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_two_locks_on_one_file_exclude_each_other_until_the_first_is_released(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.touch()
    first = FileLock.take(path)
    assert FileLock.take(path) is None
    first.release()
    second = FileLock.take(path)
    assert second is not None
    second.release()


def test_a_lock_of_another_process_ends_when_that_is_killed(tmp_path, holder):
    assert FileLock.take(tmp_path) is None
    holder.kill()
    holder.wait()
    lock = FileLock.take(tmp_path)
    assert lock is not None
    lock.release()


def test_releasing_twice_does_nothing(tmp_path):
    lock = FileLock.take(tmp_path)
    lock.release()
    lock.release()
    other = FileLock.take(tmp_path)
    lock.release()
    assert FileLock.take(tmp_path) is None, "the second lock is still held"
    other.release()


def test_a_lock_knows_whether_its_folder_was_renamed_or_replaced(tmp_path):
    folder = tmp_path / "partial"
    folder.mkdir()
    lock = FileLock.take(folder)
    assert lock.is_on(folder)
    folder.rename(tmp_path / "final")
    assert not lock.is_on(folder)
    folder.mkdir()
    assert not lock.is_on(folder)
    assert lock.is_on(tmp_path / "final")
    lock.release()


def test_where_the_platform_has_no_locks_every_lock_is_taken(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "fcntl")
    monkeypatch.setattr(file_lock, "fcntl", None)
    first, second = FileLock.take(tmp_path), FileLock.take(tmp_path)
    assert first.is_on(tmp_path)
    assert second.is_on(tmp_path / "gone")
    first.release()
    second.release()
