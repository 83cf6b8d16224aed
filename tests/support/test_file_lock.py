"""A lock belongs to one process at a time, and ends with it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys

import pytest

import soup
from soup.errors import JournalError, OutputError
from soup.evaluation.journal import Journal
from soup.support import file_lock
from soup.support.file_lock import FileLock
from soup.testing import tiny_pool

HOLD = (
    "import sys; from pathlib import Path; from soup.support.file_lock import FileLock\n"
    "lock = FileLock.take(Path(sys.argv[1])); print(lock is not None, flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path):
    """A process that holds a lock on a file in `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
    assert FileLock.take(tmp_path / "lock") is None
    holder.kill()
    holder.wait()
    lock = FileLock.take(tmp_path / "lock")
    assert lock is not None
    lock.release()


def test_releasing_twice_does_nothing(tmp_path):
    lock = FileLock.take(tmp_path / "lock")
    lock.release()
    lock.release()
    other = FileLock.take(tmp_path / "lock")
    lock.release()
    assert FileLock.take(tmp_path / "lock") is None, "the second lock is still held"
    other.release()


def test_a_temporary_file_is_removed_with_its_lock(tmp_path):
    path = tmp_path / "lock"
    for _ in range(2):
        lock = FileLock.take(path, temporary=True)
        assert path.exists()
        assert FileLock.take(path, temporary=True) is None
        assert path.exists(), "who did not get the lock leaves its file"
        lock.release()
        assert not path.exists()


def test_a_file_that_was_removed_before_the_lock_was_taken_is_made_anew(tmp_path, monkeypatch):
    path, flock = tmp_path / "lock", fcntl.flock
    first = FileLock.take(path, temporary=True)

    def late(fd, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        first.release()  # between the second's open and its flock
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    second = FileLock.take(path, temporary=True)
    assert FileLock.take(path, temporary=True) is None, "the second lock is on the file that has the name"
    second.release()


def test_locks_are_on_files_opened_for_writing_since_nfs_refuses_others(tmp_path, monkeypatch):
    (tmp_path / "journal").write_text("kept")
    modes = []
    monkeypatch.setattr(
        fcntl, "flock", lambda fd, operation: modes.append(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
    )
    FileLock.take(tmp_path / "journal").release()
    assert modes == [os.O_RDWR]
    assert (tmp_path / "journal").read_text() == "kept"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_where_the_file_system_has_no_locks_one_warning_says_so_and_the_work_goes_on(
    number, tmp_path, monkeypatch, caplog
):
    def refuse(fd, operation):
        raise OSError(number, os.strerror(number))

    file_lock._warn_of_no_locks.cache_clear()
    monkeypatch.setattr(fcntl, "flock", refuse)
    pool = tiny_pool(tmp_path / "pool", 2)
    soup.cook("average", pool, out=tmp_path / "out")
    with Journal(tmp_path / "run" / "journal.jsonl"), Journal(tmp_path / "other" / "journal.jsonl"):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        f"warning: this file system has no locks ({os.strerror(number)}): nothing keeps two runs from the same folder. "
        "Start one at a time."
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"pool", "out", "run", "other"}


def test_another_failure_of_a_lock_is_told_with_the_destination_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(fd, operation):
        raise OSError(errno.EIO, "Input/output error")

    pool = tiny_pool(tmp_path / "pool", 2)
    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OutputError, match=r"out: can't be written \(Input/output error\)"):
        soup.cook("average", pool, out=tmp_path / "out")
    with pytest.raises(JournalError, match=r"journal.jsonl: can't be written \(Input/output error\)"):
        Journal(tmp_path / "run" / "journal.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {"pool", "run"}


def test_a_lock_that_fails_names_its_file(tmp_path, monkeypatch):
    def stale(fd, operation):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(fcntl, "flock", stale)
    with pytest.raises(OSError, match="Stale") as caught:
        FileLock.take(tmp_path / "lock")
    assert caught.value.filename == str(tmp_path / "lock")


def test_where_the_platform_has_no_locks_every_lock_is_taken(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "fcntl")
    monkeypatch.setattr(file_lock, "fcntl", None)
    first, second = FileLock.take(tmp_path / "lock"), FileLock.take(tmp_path / "lock")
    assert first is not None
    assert second is not None
    first.release()
    second.release()


def test_a_release_that_is_interrupted_after_it_closed_the_file_closes_no_other_in_its_place(tmp_path, monkeypatch):
    lock, close = FileLock.take(tmp_path / "lock"), os.close

    def interrupted(fd):
        close(fd)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lock.release()
    with (tmp_path / "another").open("w") as another:  # which gets the same number
        lock.release()
        another.write("whole")


def test_an_interrupt_while_a_lock_is_asked_for_does_not_remove_the_file_of_who_holds_it(tmp_path, monkeypatch):
    path, flock = tmp_path / "lock", fcntl.flock
    first = FileLock.take(path, temporary=True)

    def interrupted(fd, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        raise KeyboardInterrupt

    monkeypatch.setattr(fcntl, "flock", interrupted)
    with pytest.raises(KeyboardInterrupt):
        FileLock.take(path, temporary=True)
    assert path.exists()
    first.release()
