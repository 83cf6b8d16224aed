"""A pipe in the place of a file of text: nothing waits for whoever never writes, and a sentence says what is wrong."""

from __future__ import annotations

import os

import pytest

from tests.helpers.forked_cli import Forge
from tests.helpers.stand_in_jobs import place
from tests.helpers.toy_pools import make_judge, make_pool

REGULAR = "expected a regular file, found a pipe, a device or a folder."
JUDGE = "python:judge/judge.py:score"
IN_A_POOL = ("average", "--pool", "ckpts", "-o", "out")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    make_pool(folder / "ckpts")
    make_judge(folder / "judge")
    place(folder)
    for name in ("pipe", "pipe.py", "pipe.jsonl"):
        os.mkfifo(folder / name)
    return folder


@pytest.fixture(scope="module")
def soup():
    with Forge() as soup:
        yield soup


@pytest.mark.parametrize(
    "argv",
    [
        ("merge", "pipe", "-o", "out"),
        ("finetune", "pipe"),
        ("finetune", "pipe", "--check"),
        ("finetune", "pipe", "--status"),
        ("study", "pipe", "--dry-run"),
        ("select", "pipe", "--eval", JUDGE),
        ("data", "filter", "data/a/data.json", "-o", "kept.jsonl", "--model", "ckpts/a", "--request", "pipe"),
        ("data", "capfuse", "data/a/data.json", "-o", "kept.jsonl", "--captioner", "ckpts/a", "--fuser", "ckpts/a",
         "--caption-prompt", "pipe"),
    ],
    ids=lambda argv: " ".join(argv[:2]),
)  # fmt: skip
def test_a_pipe_is_refused_by_one_sentence(soup, here, argv):
    ended = soup(*argv, cwd=here)
    assert not ended.hangs, ended
    assert (ended.code, ended.stderr) == (1, f"error: pipe: can't be read: {REGULAR}\n")


@pytest.mark.parametrize(
    "argv",
    [
        (*IN_A_POOL, "--method", "pipe.py:Mean"),
        ("cook", "--strategy", "pipe.py:pick", *IN_A_POOL[1:]),
        ("eval", "ckpts/a", "--eval", "python:pipe.py:score"),
        ("eval", "ckpts/a", "--eval", "grounding:pipe.jsonl"),
        ("data", "filter", "pipe.jsonl", "-o", "kept.jsonl", "--model", "ckpts/a"),
    ],
    ids=lambda argv: " ".join(argv[:2]),
)
def test_nor_does_a_file_of_code_or_of_rows_wait(soup, here, argv):
    ended = soup(*argv, cwd=here)
    assert not ended.hangs, ended
    assert (ended.code, "Traceback" in ended.stderr) == (1, False), ended
    assert "pipe" in ended.stderr
