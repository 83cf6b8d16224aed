"""Standard streams that are closed, and a current directory that is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers.toy_pools import make_pool

ROOT = Path(__file__).parents[2]


def run(folder, *words, shell='exec "$@"'):
    """Run a command in a shell, which does something before."""
    words = ["sh", "-c", shell, "sh", sys.executable, "-m", "soup", *words]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_soup_is_whole_though_all_standard_streams_are_closed(tmp_path):
    """Else a file of its own gets the number of one, and all that is printed."""
    make_pool(tmp_path / "ckpts")
    done = run(tmp_path, "average", "--pool", "ckpts", "-o", "silent", "--verbose", shell='exec "$@" <&- >&- 2>&-')
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert run(tmp_path, "average", "--pool", "ckpts", "-o", "out").returncode == 0
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).glob("model*")} for name in ("silent", "out")]
    assert files[0] == files[1]


def test_a_current_directory_that_was_removed_is_told(tmp_path):
    make_pool(tmp_path / "ckpts")
    (gone := tmp_path / "gone").mkdir()
    done = run(gone, "average", "--pool", str(tmp_path / "ckpts"), "-o", "out", shell='rmdir ../gone && exec "$@"')
    assert done.returncode == 1
    assert "error: the current directory was removed: " in done.stderr
