"""Real disks that are full, or can't be written: small file systems in memory, mounted for the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.points import COMMANDS, JUDGE
from tests.helpers.toy_pools import calls, tree

SOUP_BYTES = 1_206_000  # of the toy pool: some more than its tensors


@pytest.fixture
def mount(tmp_path):
    """A function that mounts a file system of so many bytes at a name below `tmp_path`."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    mounted = []

    def mount(name, options):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def fill(folder, leave_bytes):
    """Take all of a disk but so much."""
    (folder / "filler").write_bytes(b"\0" * (shutil.disk_usage(folder).free - leave_bytes))


def test_a_soup_that_does_not_fit_is_told_before_anything_is_written(here, soup, mount):
    disk = mount("disk", "size=1m")
    done = soup("average", "--pool", "ckpts", "-o", "disk/out", cwd=here)
    assert done.code == 1
    assert "disk is too small: 1.2" in done.stderr
    assert tree(disk) == {}


@pytest.mark.parametrize("leave_bytes", [SOUP_BYTES, SOUP_BYTES + 2**12, SOUP_BYTES + 2**13])
def test_a_disk_that_fills_up_at_the_last_small_file_leaves_no_half_of_a_soup(here, soup, mount, leave_bytes):
    """The tensors fit; headers, config, tokenizer, recipe and card do not."""
    disk = mount("disk", "size=4m")
    assert soup("average", "--pool", "ckpts", "-o", "disk/out", cwd=here).code == 0
    whole = tree(disk / "out")
    shutil.rmtree(disk / "out")
    fill(disk, leave_bytes)
    done = soup("average", "--pool", "ckpts", "-o", "disk/out", cwd=here)
    assert done.code == 1
    assert "disk/out: " in done.stderr
    assert "make room there" in done.stderr
    assert "No space left on device" in done.stderr
    assert [path.name for path in disk.iterdir()] == ["filler"]
    (disk / "filler").unlink()
    assert soup("average", "--pool", "ckpts", "-o", "disk/out", cwd=here).code == 0
    assert tree(disk / "out") == whole


@pytest.mark.parametrize("leave_bytes", [0, 2**12, 2**14, 2**16, 2**20])
def test_a_search_on_a_full_disk_goes_on_where_it_stopped_when_there_is_room(here, soup, mount, leave_bytes):
    assert soup(*COMMANDS["greedy"], cwd=here).code == 0
    whole, needed = tree(here / "out"), len(calls(here / "judge" / "judge.py"))
    shutil.rmtree(here / "out")
    disk = mount("disk", "size=4m")
    greedy = ("greedy", "--pool", "ckpts", "-o", "out", "--eval", JUDGE, "--run-dir", "disk/run")
    fill(disk, leave_bytes)
    done = soup(*greedy, cwd=here)
    assert done.code == 1, done
    assert "disk/run" in done.stderr
    assert "No space left on device" in done.stderr or "disk is too small" in done.stderr
    assert "Traceback" not in done.stderr.partition("the harness failed:")[0]
    assert not (here / "out").exists()
    (disk / "filler").unlink()
    assert soup(*greedy, cwd=here).code == 0
    assert tree(here / "out") == whole
    assert len(calls(here / "judge" / "judge.py")) in (2 * needed, 2 * needed + 1)


def test_a_disk_that_can_only_be_read_is_told_with_the_destination_and_its_pool_makes_a_soup_elsewhere(
    here, soup, mount
):
    disk = mount("disk", "size=16m")
    shutil.copytree(here / "ckpts", disk / "ckpts")
    remount(disk, "ro")
    done = soup("average", "--pool", "ckpts", "-o", "disk/out", cwd=here)
    assert done.code == 1
    assert "disk/out: can't be written" in done.stderr
    done = soup("greedy", "--pool", "disk/ckpts", "-o", "out", "--eval", JUDGE, cwd=here)
    assert done.code == 1
    assert "--run-dir" in done.stderr
    done = soup("greedy", "--pool", "disk/ckpts", "-o", "out", "--eval", JUDGE, "--run-dir", "run", cwd=here)
    assert done.code == 0, done
    assert soup("check", "--pool", "disk/ckpts", cwd=here).code == 0
    assert Path(here, "out", "recipe.yaml").is_file()


def test_a_run_directory_on_another_file_system_copies_where_it_can_not_link(here, soup, mount):
    mount("disk", "size=16m")
    done = soup("eval", "ckpts/a", "--eval", JUDGE, "--run-dir", "disk/run", cwd=here)
    assert done.code == 0, done
