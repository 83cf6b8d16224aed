"""Folders of soup's own are removed, whatever an evaluator did to them, and nothing that links lead to."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from soup.support.removal import remove_tree

NOBODY = 65534
CODE = """
import os, sys
from pathlib import Path
from soup.support.removal import remove_tree

if os.getuid() == 0:
    os.setuid({nobody})  # the superuser may remove everything
folder = Path(sys.argv[1])
(folder / "inner").mkdir(parents=True)
(folder / "inner" / "model.safetensors").write_bytes(b"weights")
(folder / "inner").chmod({mode})
folder.chmod({mode})
remove_tree(folder)
print(folder.exists())
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize("mode", [0o555, 0o000, 0o300])
def test_a_folder_whose_permissions_were_taken_away_is_removed(mode):
    home = Path(tempfile.mkdtemp())
    home.chmod(0o777)  # pytest's own folders are open to its user alone
    code = CODE.format(nobody=NOBODY, mode=mode)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(home / "scratch")], capture_output=True, text=True, check=True
        )
        assert done.stdout == "False\n"
    finally:
        remove_tree(home)


def test_what_can_t_be_removed_is_told_and_the_rest_is_gone(tmp_path, monkeypatch):
    (tmp_path / "scratch" / "inner").mkdir(parents=True)
    (tmp_path / "scratch" / "log").touch()
    rmdir = os.rmdir

    def refuse(path, **options):
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied")
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", refuse)
    assert not remove_tree(tmp_path / "scratch")
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["inner"]
    monkeypatch.undo()
    assert remove_tree(tmp_path / "scratch")
    assert remove_tree(tmp_path / "scratch"), "nothing is there"


def test_a_folder_that_nobody_can_look_at_counts_as_one_that_stays(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "lstat", refuse)
    assert not remove_tree(tmp_path / "scratch")


def test_what_links_lead_to_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").touch()
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "whole").symlink_to(tmp_path / "mine")
    remove_tree(tmp_path / "scratch")
    remove_tree(tmp_path / "whole")
    remove_tree(tmp_path / "none")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "model.safetensors", "whole"]
