"""Help as a newcomer reads it: options in groups, at 80 columns, and an example of each command that runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from finetune.points.config import CONNECTORS
from finetune.toy.write import QUESTIONS, Sizes, make_toy
from soup.cli.app import cli
from tests.helpers.forked_cli import Forge
from tests.helpers.pretrained_parts import save_encoder, save_llm
from tests.helpers.published_points import publish
from tests.helpers.toy_pools import calls, make_checkpoint, make_judge, make_pool

GROUPS = ["Pool", "Search", "Merge", "Evaluate", "Output", "Other options"]
SEARCHES = ["average", "maximum", "greedy", "cook"]
STRATEGY = "def pick(pool, score):\n    return sorted(pool, key=lambda part: score([part]).overall)[1:]\n"


def help_of(*names):
    return CliRunner().invoke(cli, [*names, "--help"], terminal_width=80).stdout


def leaves(group, words=()):
    """The names of all commands, those of a group as two words."""
    for name, command in group.commands.items():
        yield from leaves(command, (*words, name)) if isinstance(command, click.Group) else ["/".join((*words, name))]


@pytest.mark.parametrize("name", sorted(leaves(cli)))
def test_help_fits_80_columns_and_its_groups_stand_in_one_order(name):
    text = help_of(*name.split("/"))
    assert [line for line in text.splitlines() if len(line) > 80] == []
    groups = re.findall(r"^([A-Z][\w ]+):$", text, re.MULTILINE)
    known = [group for group in groups if group in GROUPS]
    assert known == sorted(known, key=GROUPS.index)
    assert set(groups) - {*GROUPS} <= {"Arguments", "Positional arguments", "Commands", "Example"}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_has_its_options_under_five_headings(name):
    text = help_of(name)
    headings = [group for group in GROUPS if f"\n{group}:\n" in text]
    assert headings == [group for group in GROUPS if group != "Search" or name != "average"]
    under = {part.split(":\n")[0].strip(): part for part in re.split(r"\n(?=[A-Z][\w ]+:\n)", text)}
    for group, option in [("Pool", "--base"), ("Merge", "--dtype"), ("Evaluate", "--eval"), ("Output", "--run-dir")]:
        assert f"  {option} " in under[group]


def test_the_list_of_commands_cuts_no_summary_off():
    text = CliRunner().invoke(cli, ["--help"], terminal_width=80).stdout
    assert [line for line in text.splitlines()[1:] if "..." in line] == []
    assert all(f"\n  {name} " in text for name in cli.commands)


@pytest.fixture(scope="module")
def forge():
    with Forge() as forge:
        yield forge


@pytest.fixture
def here(tmp_path):
    make_pool(tmp_path / "ckpts")
    make_checkpoint(tmp_path / "base", 9, head=[0, 0, 0, 0])
    make_judge(tmp_path).rename(tmp_path / "mine.py")
    (tmp_path / "my.py").write_text(STRATEGY)
    return tmp_path


def run(forge, here, name):
    """The command's example, as it stands in its help."""
    example = cli.commands[name].example
    assert f"  {example}" in help_of(name)
    words = shlex.split(example)
    assert words[:2] == ["soup", name]
    ended = forge(*words[1:], cwd=here)
    assert ended.code == 0, ended
    return ended.stdout


@pytest.mark.parametrize("name", [*SEARCHES, "demo", "doctor", "check", "inspect", "eval", "list"])
def test_the_example_in_the_help_runs(forge, here, name):
    assert run(forge, here, name)
    if name in SEARCHES:
        assert (here / ("soups/my.py_pick" if name == "cook" else "out") / "recipe.yaml").is_file()


def test_the_examples_of_merge_report_and_push_run_after_that_of_greedy(forge, here):
    run(forge, here, "greedy")
    run(forge, here, "merge")
    assert (here / "again/model.safetensors").read_bytes() == (here / "out/model.safetensors").read_bytes()
    assert "greedy" in run(forge, here, "report")
    assert "library_name: transformers" in run(forge, here, "push")


def test_the_example_of_convert_points_runs(forge, here):
    publish(here / "published")
    run(forge, here, "convert-points")
    assert (here / "points/config.json").is_file()


def test_the_example_of_assemble_runs(forge, here):
    save_llm(here / "lm")
    save_encoder(here / "vit", "clip")
    (here / "base").rename(here / "another base")
    run(forge, here, "assemble")
    assert json.loads((here / "base/config.json").read_text())["model_type"] == "points"


POOL = {"start": "tiny", "data": "toy/data/base", "added": {"word": "toy/data/word"}, "lr": 1e-3, "steps": 2}


def toy_data(here):
    make_toy(here / "toy", sizes=Sizes(base=8, added=8, questions=dict.fromkeys(QUESTIONS, 4)))


def test_the_example_of_study_runs(forge, here):
    study = {"finetune": {**POOL, "global_batch_size": 4}, "eval": "demo:colour"}
    (here / "study.yaml").write_text(yaml.safe_dump(study))
    assert re.search("^ingredients +word$", run(forge, here, "study"), re.MULTILINE)


@pytest.mark.slow
def test_the_example_of_finetune_runs(forge, here):
    toy_data(here)
    (here / "pool.yaml").write_text(yaml.safe_dump({**POOL, "global_batch_size": 4, "out": "tuned"}))
    assert run(forge, here, "finetune").split() == ["tuned/word"]


@pytest.mark.parametrize(
    "pool",
    [
        ["--pool", "ckpts/a", "ckpts/b", "ckpts/c"],
        ["--pool=ckpts/a", "ckpts/b", "ckpts/c"],
        ["--pool", "ckpts/a", "--pool", "ckpts/b", "ckpts/c"],
    ],
    ids=" ".join,
)
def test_several_paths_may_follow_pool_as_a_shell_s_star_makes_them(forge, here, pool):
    ended = forge("average", *pool, "-o", "out", cwd=here)
    assert ended.code == 0, ended
    assert ended.stdout == "out: the mean of a + b + c\n"
    before = forge("average", "-o", "out2", *pool, "--json", cwd=here)
    assert json.loads(before.stdout)["chosen"] == ["a", "b", "c"]


def test_a_path_that_follows_another_option_is_a_usage_error(forge, here):
    ended = forge("average", "--pool", "ckpts", "-o", "out", "ckpts/a", cwd=here)
    assert (ended.code, "unexpected extra argument (ckpts/a)" in ended.stderr) == (2, True)


@pytest.mark.parametrize("start", [["-m", "soup"], ["vlm-soup"], ["soup"]], ids=" ".join)
def test_soup_has_two_names_and_is_a_module(here, start):
    words = [sys.executable, *start] if start[0] == "-m" else [str(Path(sys.executable).with_name(start[0]))]
    done = subprocess.run([*words, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("soup, version ")


def test_arguments_of_strategies_and_methods_have_names_of_their_own(forge, here):
    (here / "pick.py").write_text("def pick(pool, score, *, names):\n    return names\n")
    line = ["cook", "--strategy", "pick.py:pick", "--strategy-arg", "names=[a, b]", "--pool", "ckpts", "-o", "out"]
    assert forge(*line, cwd=here).stdout == "out: the mean of a + b\n"
    wrong = forge("average", "--pool", "ckpts", "--method-arg", "scale=2", "-o", "out2", cwd=here)
    assert (wrong.code, "does not take these params" in wrong.stderr) == (1, True)
    assert calls(here / "mine.py") == []


def test_assemble_offers_every_connector():
    (option,) = (param for param in cli.commands["assemble"].params if param.name == "connector")
    assert tuple(option.type.choices) == CONNECTORS
