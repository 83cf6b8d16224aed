"""What docs/custom.md tells a plug-in author to write runs as it stands there, and passes the suites that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from soup.evaluation.api import Benchmark
from soup.support.plugins import METHODS, STRATEGIES
from soup.testing import check_evaluator, check_method, check_strategy, tiny_candidate, tiny_checkpoint
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import make_checkpoint, make_judge, make_pool

PAGE = (Path(__file__).parents[2] / "docs/custom.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.+?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A pool, a base, a judge, and each example in a file of its own, all known to soup for the time of the test."""
    monkeypatch.chdir(tmp_path)
    for registry in (METHODS, STRATEGIES):
        monkeypatch.setattr(registry, "registered", dict(registry.registered))
    make_pool(tmp_path / "ckpts")
    make_checkpoint(tmp_path / "base", 8, head=[0, 0, 0, 0])
    make_judge(tmp_path / "judge")
    return tmp_path


def written(here, word):
    """The example with that word in it, in a file; what is in the file."""
    (code,) = (block for block in BLOCKS if word in block)
    (here / "my.py").write_text(code, encoding="utf-8")
    names: dict = {"__name__": "my"}
    exec(compile(code, "my.py", "exec", dont_inherit=True), names)
    return names


def test_the_strategy_runs_by_file_and_by_name_and_passes_its_suite(here):
    names = written(here, "leave_worst_out")
    arguments = {"pool": "ckpts", "eval": "python:judge/judge.py:score"}
    by_file = flat.cook("my.py:leave_worst_out", out="by-file", **arguments)
    by_name = flat.cook("leave-worst-out", out="by-name", **arguments)
    assert by_file.recipe.digest == by_name.recipe.digest
    assert set("abcd") - set(by_file.chosen) == {"a"}
    check_strategy(names["leave_worst_out"])


def test_the_method_is_task_arithmetic_and_passes_its_suite(here):
    names = written(here, "TaskArithmetic")
    made = flat.cook(
        "average", pool="ckpts", base="base", method="my.py:TaskArithmetic", method_args={"scale": 0.5}, out="o"
    )
    assert made.recipe.params == {"scale": 0.5}
    check_method(names["TaskArithmetic"]())


def test_the_evaluator_passes_its_suite(here):
    names = written(here, "Perplexity")
    names["perplexity_of"] = lambda directory: 4.0  # what the reader brings
    with tiny_candidate(tiny_checkpoint(here / "model"), here / "scratch") as candidate:
        assert check_evaluator(names["Perplexity"], Benchmark("mine:task", "mine", "task"), candidate).value == 25.0
