"""Where a run's files lie by default, so that the same command finds them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from soup.evaluation.run_directory import RunDirectory
from tests.helpers.toy_pools import make_pool


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder `work` to stand in, with a pool in a folder of its own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    make_pool("models/ckpts")
    for base in (Path("base"), Path("models/base")):
        base.mkdir()
        (base / "config.json").touch()
    return tmp_path / "work"


@pytest.mark.parametrize(
    ("locations", "expected"),
    [
        ("models/ckpts", "models/ckpts.soup"),  # it has the form of a Hub id, and is here
        (["models/ckpts"], "models/ckpts.soup"),
        ("models/ckpts/", "models/ckpts.soup"),
        ("models/ckpts/a", "models/ckpts.soup"),
        (["models/ckpts/a", "models/ckpts/b"], "models/ckpts.soup"),
        (["models/ckpts/a", "team/of-the-hub"], "models/ckpts.soup"),
        ("team/of-the-hub", "pool.soup"),
        (["team/of-the-hub@v1", "models/ckpts/a"], "models/ckpts.soup"),
        (["base", "models/ckpts/a"], "models/ckpts.soup"),
        (["models/ckpts/a", "base"], "models/ckpts.soup"),
        (["models/base", "models/ckpts/a", "models/ckpts/b"], "models/ckpts.soup"),
        (["models/base", "models/ckpts/a"], "models/ckpts.soup"),
        (["models/ckpts/a", "models/base"], "models/ckpts.soup"),
        ("base", "pool.soup"),
        (".", "pool.soup"),  # beside it would be outside of where the user works
    ],
    ids=str,
)
def test_a_run_lies_beside_its_pool_wherever_the_pool_is_here(here, locations, expected):
    assert RunDirectory.choose(None, locations).path.absolute() == here / expected


def test_a_path_is_a_path_whatever_its_type(here):
    for locations in (Path("models/ckpts"), [here / "models" / "ckpts"]):
        assert RunDirectory.choose(None, locations).path == here / "models/ckpts.soup"


def test_workers_that_are_ended_leave_the_log_of_a_failed_evaluation_alone(here):
    run = RunDirectory(Path("run"))
    for name in ("failed/bench-all/error.log", "failed/checkpoint/model.safetensors", "vain/checkpoint/config.json"):
        (run.scratch / name).parent.mkdir(parents=True)
        (run.scratch / name).touch()
    run.clear_unfinished()
    assert [path.name for path in run.scratch.rglob("*") if path.is_file()] == ["error.log"]
    assert not (run.scratch / "vain").exists()
