"""The order of the real system calls, as strace sees them: what a power cut may find; no machine is switched off."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.points import COMMANDS
from tests.helpers.toy_pools import make_judge, make_pool

TRACED = "openat,pwrite64,write,fsync,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,sendfile"
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture
def trace(tmp_path):
    make_pool(tmp_path / "ckpts", shards=2)
    make_judge(tmp_path / "judge")

    def run(*argv):
        """What `soup ARGV` does to the files below the folder: pairs of call and path, in order."""
        command = ["strace", "-f", "-y", "-qq", "-e", f"trace={TRACED}", "-e", "signal=none", "-o", "trace.txt"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        traced = [*command, sys.executable, "-m", "soup", *argv]
        done = subprocess.run(traced, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        if "ptrace" in done.stderr:
            pytest.skip("this system lets nobody trace a process")
        assert done.returncode == 0, done.stderr
        return [*calls_below(tmp_path, (tmp_path / "trace.txt").read_text())]

    return run


def calls_below(folder, text):
    """Parse `PID call(FD</path>, ...) = RESULT` and `PID call("path", ...)`; -y writes paths behind descriptors."""
    for line in whole_lines(text):
        if match := re.match(r"\d+ +(\w+)\((.*)\) += (-?\d+)", line):
            call, arguments, result = match.groups()
            paths = re.findall(r'\d<([^>]*)>|"([^"]*)"', arguments)
            path = os.path.normpath(folder / next(filter(None, paths[-1] if "rename" in call else paths[0]), ""))
            if call == "openat":
                path = os.path.normpath(folder / paths[-1][1])
                call = "create" if "O_CREAT" in arguments else "open"
            if int(result) >= 0 and path.startswith(f"{folder}/") and call != "open":
                yield call.removesuffix("64"), os.path.relpath(path, folder)
            elif call == "fsync" and path == str(folder):
                yield call, "."


def whole_lines(text):
    """Join what strace cuts in two while another thread is at it: `... <unfinished ...>`, `<... call resumed>...`."""
    begun = {}
    for line in text.splitlines():
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>").rstrip()
        elif match := re.match(r"\d+ +<\.\.\. \w+ resumed>(.*)", line):
            yield begun.pop(pid) + match[1]
        else:
            yield line


def positions(calls, call, path):
    return [index for index, entry in enumerate(calls) if entry == (call, path)]


def test_a_soup_is_written_then_synced_file_by_file_then_named_then_its_parent_is_synced(trace, tmp_path):
    calls = trace(*COMMANDS["average"])
    (named,) = positions(calls, "rename", "out")
    (folder_synced,) = positions(calls, "fsync", ".out.partial")
    for name in sorted(path.name for path in (tmp_path / "out").iterdir()):
        part = f".out.partial/{name}"
        (synced,) = positions(calls, "fsync", part)
        written = [index for call in ("pwrite", "write", "sendfile") for index in positions(calls, call, part)]
        written += positions(calls, "create", part)
        assert max(written) < synced < folder_synced < named, name
    (parent_synced,) = positions(calls, "fsync", ".")
    assert named < parent_synced
    assert {name for call, name in calls if call.startswith(("pwrite", "write"))} >= {
        ".out.partial/model-00001-of-00002.safetensors",
        ".out.partial/recipe.yaml",
    }, "strace saw the writes"


def test_a_search_syncs_each_score_before_the_next_and_no_candidate(trace):
    calls = trace(*COMMANDS["greedy"])
    journal = "ckpts.soup/journal.jsonl"
    assert positions(calls, "create", journal)[0] < positions(calls, "fsync", "ckpts.soup")[0]
    appended, synced = positions(calls, "write", journal), positions(calls, "fsync", journal)
    assert len(appended) == len(synced) == 7
    assert sorted([*appended, *synced]) == [index for pair in zip(appended, synced, strict=True) for index in pair]
    for call, path in calls:
        assert not (call == "fsync" and "scratch" in path), "a candidate is removed again: nobody waits for it"
    assert any(call == "rename" and "scratch" in path for call, path in calls)


def test_small_files_are_synced_before_their_names_and_their_folders_after(trace):
    calls = trace(*COMMANDS["greedy"])
    for folder, name in [("ckpts.soup", "digests.json"), ("ckpts.soup/soups", "greedy.json")]:
        new = f"{folder}/.{name}.new"
        named = positions(calls, "rename", f"{folder}/{name}")
        synced = positions(calls, "fsync", new)
        written = positions(calls, "write", new)
        assert named
        assert len(named) == len(synced)
        for before, at in zip(synced, named, strict=True):
            assert any(index < before for index in written)
            assert before < at
            assert any(index > at for index in positions(calls, "fsync", folder))
