"""How much a disk holds, and the check before something large is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from soup.errors import OutputError
from soup.support.disk_space import free_space, require_bytes


@pytest.fixture
def small_disk(monkeypatch):
    """A disk with 100 free bytes; the list holds the paths that it was asked about."""
    paths = []

    def disk_usage(path):
        paths.append(path)
        return shutil._ntuple_diskusage(1000, 900, 100)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    return paths


def test_of_a_path_that_is_there_its_own_disk_is_measured(tmp_path, small_disk):
    assert free_space(tmp_path) == (tmp_path, 100)
    assert small_disk == [tmp_path]


def test_of_a_path_that_is_not_there_yet_the_nearest_parent_s_disk_is_measured(tmp_path, small_disk):
    assert free_space(tmp_path / "not" / "yet" / "there") == (tmp_path, 100)
    assert small_disk == [tmp_path]


def test_a_relative_path_is_measured_where_the_process_works(tmp_path, small_disk, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert free_space(Path("new/folder")) == (Path(), 100)


def test_the_free_bytes_are_the_file_system_s(tmp_path):
    assert 0 < free_space(tmp_path).bytes <= shutil.disk_usage(tmp_path).total


def test_what_fits_to_the_last_byte_is_let_through(tmp_path, small_disk):
    refusals = []
    require_bytes(tmp_path / "new", 100, lambda free: refusals.append(free) or OutputError("too small"))
    assert refusals == []


def test_one_byte_too_many_raises_the_caller_s_own_error(tmp_path, small_disk):
    with pytest.raises(OutputError, match=r"^101 needed, 100 free at .*$"):
        require_bytes(
            tmp_path / "new", 101, lambda free: OutputError(f"101 needed, {free.bytes} free at {free.location}")
        )
