"""When a remembered digest still holds: only while each fact about each file is what it was when it was read."""

from __future__ import annotations

import os

import pytest

from soup.checkpoints.digest import DigestCache
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError
from soup.testing import tiny_checkpoint


class Facts:
    """What the file system says of a file, with some of it replaced."""

    def __init__(self, true, **other):
        self._true, self._other = true, other

    def __getattr__(self, name):
        return self._other.get(name, getattr(self._true, name))


@pytest.fixture
def pretend(monkeypatch):
    """Makes the file system say something else of every file whose name ends in .safetensors."""
    stat = os.stat

    def pretend(**other):
        def facts(path, *args, **options):
            true = stat(path, *args, **options)
            return Facts(true, **other) if str(path).endswith(".safetensors") else true

        monkeypatch.setattr(os, "stat", facts)

    return pretend


@pytest.fixture
def model(tmp_path):
    return tiny_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("fact", ["st_size", "st_ino", "st_mtime_ns", "st_ctime_ns"])
def test_a_file_of_which_one_fact_differs_is_read_again(tmp_path, model, pretend, fact):
    facts = dict.fromkeys(["st_ino", "st_mtime_ns", "st_ctime_ns"], 12345)
    facts["st_size"] = next(model.glob("*.safetensors")).stat().st_size
    pretend(**facts)
    cache, checkpoint, read = DigestCache(tmp_path / "digests.json"), Checkpoint(model), []
    cache.get(checkpoint)
    assert cache.knows(checkpoint)
    cache.get(checkpoint, read.append)
    assert not read
    pretend(**{**facts, fact: facts[fact] + 1})
    assert not cache.knows(checkpoint)
    cache.get(checkpoint, read.append)
    assert sum(read) == checkpoint.bytes


def test_a_file_replaced_by_one_of_the_same_size_and_times_is_known_by_its_inode(tmp_path, model, pretend):
    """As a copy of a whole tree that keeps its times; that of the inode's last change is taken to be equal, too."""
    pretend(st_ctime_ns=12345)
    cache, file = DigestCache(tmp_path / "digests.json"), model / "model.safetensors"
    first = cache.get(Checkpoint(model))
    before, other = file.stat(), tiny_checkpoint(tmp_path / "other", seed=1) / file.name
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert not cache.knows(Checkpoint(model))
    assert cache.get(Checkpoint(model)).content != first.content


def test_a_checkpoint_that_changes_while_it_is_read_is_told_and_not_remembered(tmp_path, model):
    cache, file = DigestCache(tmp_path / "digests.json"), model / "model.safetensors"
    with pytest.raises(CheckpointError, match="changed while they were read"):
        cache.get(Checkpoint(model), lambda count: os.utime(file, ns=(1, 1)))
    assert not cache.knows(Checkpoint(model))
    assert not (tmp_path / "digests.json").exists()
