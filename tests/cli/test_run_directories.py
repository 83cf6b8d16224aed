"""A directory made for something else is no `--run-dir`: all commands that take one, all kinds of directories."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from soup.cli.app import cli
from soup.errors import OutputError
from soup.evaluation.run_directory import Kind, directory_kind
from tests.helpers.arenas import made_arena
from tests.helpers.toy_pools import make_judge, make_pool, tree

JUDGED = ("--eval", "python:judge/judge.py:score")
POOL = ("--pool", "ckpts", *JUDGED, "-o", "out")
COMMANDS = {
    "average": POOL,
    "maximum": POOL,
    "greedy": POOL,
    "cook": (*POOL, "--strategy", "average"),
    "eval": ("ckpts/a", *JUDGED),
    "sweep": ("ckpts/a", "ckpts/b", "--no-loss", *JUDGED),
    "check": ("--pool", "ckpts"),
    "push": ("soup", "me/soup", "--dry-run"),
    "arena": ("--report",),
}
EXPECTED = {name: Kind.ARENA if name == "arena" else Kind.RUN for name in COMMANDS}
ANYWHERE = {"doctor"}  # it looks at the disk alone


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A pool, a soup of it, and a directory of each kind, by the kind's name."""
    folder = tmp_path_factory.mktemp("toys")
    make_pool(folder / "ckpts")
    make_judge(folder / "judge")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = CliRunner().invoke(cli, ["greedy", *POOL[:-1], "soup", "--run-dir", "RUN"], catch_exceptions=False)
        assert made.exit_code == 0
    made_arena(folder / "ARENA", {"a": ["yes", "one"], "b": ["no", "two"]})
    for file in ("STUDY/study.json", "JOBS/a/state.json", "JOBS/a/job.json"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps({}))
    shutil.copytree(folder / "ckpts" / "a", folder / "CHECKPOINT")
    return folder


@pytest.fixture
def here(toys, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(toys, tmp_path / "here"))
    return tmp_path / "here"


def run(command, directory):
    words = [command, *COMMANDS[command], "--run-dir", directory]
    return CliRunner().invoke(cli, words, catch_exceptions=False)


def test_all_commands_that_take_a_run_directory_are_here():
    takers = {name for name, command in cli.commands.items() if any(p.name == "run_dir" for p in command.params)}
    assert takers == {*COMMANDS, *ANYWHERE}


def test_directories_are_known_by_what_they_were_made_for(here):
    assert [directory_kind(here / kind.name) for kind in Kind] == [*Kind]
    assert directory_kind(here) is directory_kind(here / "none") is None


@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory_of_another_kind_is_refused_in_a_sentence_and_nothing_is_written(here, command):
    before = tree(here)
    for kind in [*Kind]:
        if kind != EXPECTED[command]:
            with pytest.raises(OutputError) as told:
                run(command, kind.name)
            assert str(told.value) == (
                f"{kind.name}: expected {EXPECTED[command]} or a new folder, found {kind}. Choose another --run-dir."
            )
    assert tree(here) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory_of_its_kind_is_taken(here, command):
    assert run(command, EXPECTED[command].name).exit_code == 0


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"push", "arena"}))
def test_a_new_directory_and_an_empty_one_are_taken(here, command):
    (here / "empty").mkdir()
    for directory in ("empty", "new"):
        shutil.rmtree(here / "out", ignore_errors=True)
        assert run(command, directory).exit_code == 0
        assert directory_kind(here / directory) == Kind.RUN
