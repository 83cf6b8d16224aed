"""What has its final name is on the disk: files, folder and parent are synced, in the order that a power cut needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import soup
from finetune.training.saving import publish
from soup.evaluation.journal import Journal
from soup.support.atomic_files import sync, write_atomic
from soup.testing import tiny_pool
from tests.helpers import flat_arguments as flat
from tests.helpers.merge_oracle import recipe_of


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The syncs and renames below `tmp_path`, in order, by relative paths."""
    record, fsync, rename = [], os.fsync, os.rename

    def name(path):
        return os.path.relpath(path, tmp_path)

    def note_sync(fd):
        record.append(("sync", name(Path(f"/proc/self/fd/{fd}").readlink())))
        fsync(fd)

    def note_rename(old, new):
        record.append(("rename", name(old), name(new)))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    for method in ("rename", "replace"):
        monkeypatch.setattr(Path, method, lambda self, target: note_rename(self, target))
    return record


def test_a_small_file_is_synced_before_its_rename_and_its_folder_after(tmp_path, calls):
    write_atomic(tmp_path / "run" / "state.json", "{}")
    assert calls == [
        ("sync", "."),  # where the entry of run/ is
        ("sync", "run/.state.json.new"),
        ("rename", "run/.state.json.new", "run/state.json"),
        ("sync", "run"),
    ]


def files_and_folders(folder):
    return [folder, *folder.rglob("*")]


@pytest.mark.parametrize("overwrite", [False, True])
def test_every_file_and_folder_of_a_soup_is_synced_before_its_rename_and_the_parent_after(tmp_path, calls, overwrite):
    pool = tiny_pool(tmp_path / "pool", 2, shards=2)
    for ingredient in pool.iterdir():
        (ingredient / "additional_chat_templates").mkdir()
        (ingredient / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    recipe, out = recipe_of(pool), tmp_path / "soups" / "out"
    if overwrite:
        soup.merge(recipe_of(tiny_pool(tmp_path / "first", 3)), out)
    calls.clear()
    flat.merge(recipe, out, overwrite=overwrite)
    last = calls.index(("rename", "soups/.out.partial", "soups/out"))
    synced_before = {call[1] for call in calls[:last] if call[0] == "sync"}
    made = {str(Path("soups", ".out.partial", path.relative_to(out))) for path in files_and_folders(out)}
    assert made <= synced_before
    assert calls[last + 1 :] == [("sync", "soups")]
    if not overwrite:
        assert calls[0] == ("sync", "."), "the entry of soups/"


def test_candidates_which_are_removed_again_are_not_waited_for(tmp_path, calls):
    def judge(directory):
        return float(len(list(Path(directory).iterdir())))

    soup.cook("greedy", tiny_pool(tmp_path / "pool", 2), out=tmp_path / "out", eval=soup.EvalConfig([judge]))
    assert any(call[0] == "rename" and "scratch" in call[2] for call in calls)
    assert not any(call[0] == "sync" and "scratch" in call[1] for call in calls)


def test_a_new_journal_has_its_entry_on_the_disk(tmp_path, calls):
    with Journal(tmp_path / "run" / "journal.jsonl"):
        pass
    assert calls == [("sync", "."), ("sync", "run")]


def test_an_ingredient_is_synced_before_its_rename(tmp_path, calls):
    def write(folder):
        (folder / "code").mkdir()
        (folder / "code" / "model.py").write_text("x = 1")

    publish(tmp_path / "part", tmp_path / "ckpts" / "chart", {}, write)
    last = calls.index(("rename", "part", "ckpts/chart"))
    assert {"part", "part/code", "part/code/model.py", "part/finetune.json"} <= {call[1] for call in calls[:last]}
    assert calls[last + 1 :] == [("sync", "ckpts")]


def test_a_folder_that_its_file_system_cannot_sync_is_no_error_but_a_file_is(tmp_path, monkeypatch):
    def refuse(fd):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    sync(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Invalid argument: '.*/file'"):
        sync(tmp_path / "file")


@pytest.mark.parametrize("name", [".", "file"])
def test_a_disk_that_fails_is_an_error_for_files_and_folders_and_named(name, tmp_path, monkeypatch):
    def fail(fd):
        raise OSError(5, "Input/output error")

    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path / name}'"):
        sync(tmp_path / name)
