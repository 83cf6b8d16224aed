"""A pool of many more files than a process may have open, under a limit that can't be raised."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from soup.testing import tiny_pool
from tests.helpers.toy_pools import tree

ROOT = Path(__file__).parents[2]
INGREDIENTS, SHARDS = 64, 200
JUDGE = f"""
from pathlib import Path

def complete(checkpoint):
    return 100.0 * len(list(Path(checkpoint).glob("*.safetensors"))) / {SHARDS}
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    here = tmp_path_factory.mktemp("many")
    tensors = {f"layer.{number:03d}": (4, 4) for number in range(SHARDS)}
    tiny_pool(here / "pool", INGREDIENTS, tensors=tensors, shards=SHARDS)
    (here / "judge.py").write_text(JUDGE)
    return here


def under(limit, here, *argv):
    """Run soup under `ulimit -n`, soft and hard; prints what it took."""
    command = f"ulimit -Sn {limit} && ulimit -Hn {limit} && exec {sys.executable} -m soup {' '.join(argv)}"
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=here, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process.stderr:
        talk = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = usage.ru_utime + usage.ru_stime
    print(f"{argv[0]}: {seconds:.1f} s of processor time, {usage.ru_maxrss / 1000:.0f} MB at most")
    assert process.returncode == 0, talk
    return talk


@pytest.mark.slow
def test_64_ingredients_of_200_shards_are_checked_averaged_and_searched_with_256_descriptors(here):
    under(256, here, "check", "--pool", "pool")
    under(256, here, "average", "--pool", "pool", "-o", "few")
    under(4096, here, "average", "--pool", "pool", "-o", "many")
    assert len(list((here / "few").glob("*.safetensors"))) == SHARDS
    assert tree(here / "few") == tree(here / "many")
    talk = under(256, here, "greedy", "--pool", "pool", "-o", "best", "--eval", "python:judge.py:complete")
    assert len(re.findall(r"^  \S+.*: overall ", talk, re.MULTILINE)) == 2 * INGREDIENTS - 1
    assert "overall 100.00" in talk
