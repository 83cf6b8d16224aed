"""However many files there are, a bounded number of them is open."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from soup.support import open_files
from soup.support.open_files import ReopenedFile, most_open_files
from soup.testing import tiny_pool
from tests.helpers.toy_pools import tree


@pytest.fixture
def room_for_four(monkeypatch):
    for file in list(open_files._idle):
        file.close()
    monkeypatch.setattr(open_files, "most_open_files", lambda: 4)


def write_files(folder, count):
    for number in range(count):
        (folder / str(number)).write_text(str(number))
    return [ReopenedFile(folder / str(number), os.O_RDONLY) for number in range(count)]


def descriptors_in(folder):
    links = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            links.append(link.readlink())
        except FileNotFoundError:  # that of the listing itself
            continue
    return sorted(int(path.name) for path in links if path.parent == folder)


def test_the_least_recently_used_makes_room_and_comes_back(tmp_path, room_for_four):
    files = write_files(tmp_path, 6)
    for number in (0, 1, 2, 3, 0, 4, 5, 1):
        with files[number].descriptor() as fd:
            assert os.pread(fd, 9, 0) == str(number).encode()
    assert descriptors_in(tmp_path) == [0, 1, 4, 5]
    for file in files:
        file.close()
    assert descriptors_in(tmp_path) == []


def test_a_file_in_use_is_never_closed_under_its_user(tmp_path, room_for_four):
    files = write_files(tmp_path, 20)

    def read(step):
        number = step % 20
        with files[number].descriptor() as fd:
            files[(step * 7) % 20].close()
            return os.pread(fd, 9, 0) == str(number).encode()

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(4000)))
    assert len(descriptors_in(tmp_path)) <= 8
    for file in files:
        file.close()
    assert descriptors_in(tmp_path) == []


def test_the_soft_limit_is_raised_where_it_can_be():
    code = (
        "import resource\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))\n"
        "from soup.support.open_files import most_open_files\n"
        "print(most_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    most, soft = map(int, subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.split())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    assert (most, soft) == (wanted // 2, wanted)
    assert most_open_files() <= 2048


def test_many_shards_merge_where_few_files_may_be_open(tmp_path):
    """8 ingredients of 60 shards, and a soup of 60, under 256 descriptors that can't be raised."""
    pool = tiny_pool(tmp_path / "pool", 8, tensors={f"layer.{number}": (4, 4) for number in range(60)}, shards=60)
    command = f"ulimit -n 256 && exec {sys.executable} -m soup average --pool pool -o few"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    subprocess.run([sys.executable, "-m", "soup", "average", "--pool", "pool", "-o", "many"], cwd=tmp_path, check=True)
    assert tree(tmp_path / "few") == tree(tmp_path / "many")
    assert len(list((tmp_path / "few").glob("*.safetensors"))) == 60
    assert pool.is_dir()
