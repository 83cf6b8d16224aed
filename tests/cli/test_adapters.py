"""Adapter pools from the command line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from soup.cli.app import cli
from soup.testing import tiny_checkpoint
from tests.helpers.tiny_adapters import linear_factors, write_adapter

TENSORS = {"model.layers.0.up.weight": (6, 4), "model.norm.weight": (4,)}
UP = {"model.layers.0.up.weight": (6, 4)}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(tmp_path / "base", tensors=TENSORS)
    for seed, name in enumerate("ab"):
        write_adapter(tmp_path / "loras" / name, linear_factors(UP, seed=seed), tmp_path / "base")
    return tmp_path


def run(*words):
    done = CliRunner().invoke(cli, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done


def test_average_writes_a_model_or_with_a_flag_one_adapter(here):
    run("average", "--pool", "loras", "-o", "model")
    assert (here / "model" / "config.json").exists()
    run("average", "--pool", "loras", "--as-adapter", "-o", "exact")
    assert json.loads((here / "exact" / "adapter_config.json").read_text())["r"] == 8
    done = run("average", "--pool", "loras", "-o", "small", "--as-adapter", "rank=2")
    assert json.loads((here / "small" / "adapter_config.json").read_text())["r"] == 2
    assert "differs from the soup's by" in done.stderr
    assert sorted(path.name for path in (here / "small").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "recipe.yaml",
    ]


def test_inspect_tells_what_an_adapter_is(here):
    output = run("inspect", "loras/a").stdout
    assert "ranks" in output
    assert str(here / "base") in output.replace("\n", "")


def test_a_dry_run_tells_the_size_of_the_adapter(here):
    done = run("average", "--pool", "loras", "--as-adapter", "-o", "exact", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert plan["shards"] == ["adapter_model.safetensors"]
    assert plan["write_bytes"] == 4 * 8 * (6 + 4)
