"""Repositories as they lie on the Hub: what is fetched of each, and what is refused before its weights are."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from soup.merging.recipe import Recipe
from tests.helpers.forked_cli import Forge
from tests.helpers.hub_server import HubClient, HubServer
from tests.helpers.tiny_adapters import linear_factors, write_adapter
from tests.helpers.toy_pools import make_checkpoint

SHAPE = {"language.0.weight": (5, 7)}
BASE = {"language.0.weight": np.ones((5, 7), np.float32), "head": np.ones(4, np.float32)}


@pytest.fixture(scope="module")
def forge():
    with Forge() as forge:
        yield forge


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def soup(forge, hub, tmp_path):
    return HubClient(forge, hub, tmp_path)


@pytest.fixture
def folder(tmp_path):
    return make_checkpoint(tmp_path / "there", 1)


def test_of_all_that_lies_beside_a_model_only_what_is_read_is_fetched(soup, hub, tmp_path):
    folder = make_checkpoint(tmp_path / "there", 1, shards=2)
    wanted = sorted([*(path.name for path in folder.iterdir()), "README.md", "LICENSE", "modeling_toy.py"])
    for name in ("README.md", "LICENSE", "modeling_toy.py"):
        (folder / name).write_text("---\nlicense: mit\n---\n")
    save_file({"whole": np.zeros(4)}, folder / "consolidated.safetensors")
    save_file({"half": np.zeros(4)}, folder / "model.fp16.safetensors")
    for name in ("pytorch_model.bin", "model.gguf", "optimizer.pt", "trainer_state.json", "loss.png", ".gitattributes"):
        (folder / name).write_bytes(b"not wanted")
    for name in (
        "checkpoint-10/model.safetensors",
        "checkpoint-10/tokenizer.json",
        "onnx/model.onnx",
        "runs/vocab.txt",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not wanted")
    hub.add("team/a", folder)
    assert soup.json("inspect", "team/a")["files"] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert soup.cached == wanted


def test_a_repository_that_leaves_open_which_model_is_meant_is_refused_before_its_weights_are_fetched(
    soup, hub, folder
):
    make_checkpoint(folder.with_name("sharded"), 2, shards=2)
    for path in folder.with_name("sharded").glob("model*"):
        shutil.copy(path, folder)
    hub.add("team/a", folder)
    done = soup("inspect", "team/a", code=1)
    assert done.stderr.startswith(
        "error: team/a: both model.safetensors and model.safetensors.index.json (with 2 shards)"
    )
    assert not hub.requests("safetensors$")


def test_one_weight_file_of_any_name_is_fetched(soup, hub, folder):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    hub.add("team/a", folder)
    assert soup.json("inspect", "team/a")["files"] == ["weights.safetensors"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt"])
def test_pickles_alone_are_refused_with_what_converts_them(soup, hub, folder, name):
    (folder / "model.safetensors").rename(folder / name)
    hub.add("team/a", folder)
    done = soup("inspect", "team/a", code=1)
    assert f"error: team/a: the weights are pickles ({name})" in done.stderr
    assert ("in its folder or in a download: python -c" in done.stderr) == (name == "pytorch_model.bin")
    assert done.stderr.endswith("often offered as a pull request, which has a revision of its own: team/a@refs/pr/1\n")
    assert not hub.requests(name)


def test_a_pickled_adapter_is_refused_with_what_converts_it(soup, hub, tmp_path):
    adapter = write_adapter(tmp_path / "there", linear_factors(SHAPE))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    hub.add("team/lora", adapter)
    done = soup("inspect", "team/lora", code=1)
    assert "error: team/lora: no adapter_model.safetensors" in done.stderr
    assert "adapter_model.bin is a pickle" in done.stderr


def test_adapters_are_put_on_the_base_that_they_name_and_both_are_pinned(soup, hub, tmp_path):
    commits = {"base": hub.add("team/base", make_checkpoint(tmp_path / "base", tensors=BASE))}
    for seed, name in enumerate(("x", "y")):
        adapter = write_adapter(tmp_path / name, linear_factors(SHAPE, seed=seed), base="team/base", r=4)
        commits[name] = hub.add(f"team/{name}", adapter)
    soup("average", "--pool", "team/x", "team/y", "-o", "out")
    recipe = Recipe.read(soup.folder / "out/recipe.yaml")
    assert recipe.base.path == f"team/base@{commits['base']}"
    assert [share.path for share in recipe.ingredients] == [f"team/{name}@{commits[name]}" for name in "xy"]
    soup("average", "--pool", "team/x", "team/y", "-o", "lora", "--as-adapter")
    settings = json.loads((soup.folder / "lora/adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("team/base", commits["base"])


def test_an_adapters_base_may_be_of_a_revision_of_its_own(soup, hub, tmp_path):
    wanted = hub.add("team/base", make_checkpoint(tmp_path / "base", tensors=BASE), "v1")
    hub.add("team/base", make_checkpoint(tmp_path / "newer", 2))
    adapter = write_adapter(tmp_path / "x", linear_factors(SHAPE), base="team/base", r=4, revision="v1")
    hub.add("team/x", adapter)
    soup("average", "--pool", "team/x", "-o", "out")
    assert Recipe.read(soup.folder / "out/recipe.yaml").base.path == f"team/base@{wanted}"


def test_a_folder_of_a_repository_is_a_checkpoint_of_its_own(soup, hub, tmp_path):
    for seed, name in enumerate(("one", "two")):
        make_checkpoint(tmp_path / "there/runs.v2" / name, seed)
    commit = hub.add("team/my.model-1.5", tmp_path / "there")
    pool = [f"team/my.model-1.5@main:runs.v2/{name}" for name in ("one", "two")]
    done = soup("average", "--pool", *pool, "-o", "out")
    assert done.stdout == "out: the mean of my.model-1.5@main:runs.v2/one + my.model-1.5@main:runs.v2/two\n"
    assert {name for name in soup.cached if name.endswith("safetensors")} == {
        "runs.v2/one/model.safetensors", "runs.v2/two/model.safetensors"
    }  # fmt: skip
    paths = [share.path for share in Recipe.read(soup.folder / "out/recipe.yaml").ingredients]
    assert paths == [f"team/my.model-1.5@{commit}:runs.v2/{name}" for name in ("one", "two")]
    soup("merge", "out/recipe.yaml", "-o", "again", HF_HUB_OFFLINE="1")
    assert json.loads((soup.folder / "out/tokenizer.json").read_text())
    done = soup("inspect", "team/my.model-1.5:runs.v3", code=1)
    assert "has no folder runs.v3" in done.stderr


def test_a_repository_of_checkpoints_in_folders_alone_is_told_with_their_ids(soup, hub, tmp_path):
    for seed, name in enumerate(("checkpoint-10", "checkpoint-20")):
        make_checkpoint(tmp_path / "there" / name, seed)
    hub.add("team/runs", tmp_path / "there")
    done = soup("inspect", "team/runs@main", code=1)
    assert "Its folders hold some: team/runs@main:checkpoint-10, team/runs@main:checkpoint-20\n" in done.stderr
    assert not hub.requests("safetensors$")
    soup("inspect", "team/runs@main:checkpoint-20")


def test_branches_with_slashes_are_resolved_and_named(soup, hub, folder):
    hub.add("team/a", folder)
    commit = hub.add("team/a", make_checkpoint(folder.with_name("other"), 2), "feature/new-data")
    done = soup("average", "--pool", "team/a@feature/new-data", "team/a", "-o", "out")
    assert done.stdout == "out: the mean of a@feature/new-data + a\n"
    assert Recipe.read(soup.folder / "out/recipe.yaml").ingredients[0].path == f"team/a@{commit}"
    done = soup("average", "--pool", f"team/a@{commit}", "-o", "one")
    assert done.stdout == f"one: the mean of a@{commit[:8]}\n"


def test_a_recipes_branches_become_commits_in_the_soup_and_in_the_journal(soup, hub, folder):
    commit = hub.add("team/a", folder)
    (soup.folder / "recipe.yaml").write_text("ingredients: [{name: first, path: team/a@main}]\n")
    soup("merge", "recipe.yaml", "-o", "out")
    assert Recipe.read(soup.folder / "out/recipe.yaml").ingredients[0].path == f"team/a@{commit}"
    (soup.folder / "judge.py").write_text("def score(checkpoint):\n    return 50.0\n")
    soup("eval", "team/a", "--eval", "python:judge.py:score")
    [line] = (soup.folder / "pool.soup/journal.jsonl").read_text().splitlines()
    assert json.loads(line)["sources"] == {"a": f"team/a@{commit}"}


def test_a_pool_of_mixed_places_is_merged(soup, hub, folder):
    hub.add("team/a", folder)
    make_checkpoint(soup.folder / "local/b", 2)
    soup("average", "--pool", "team/a", "local/b", "-o", "out")
    parts = [load_file(path / "model.safetensors") for path in (folder, soup.folder / "local/b", soup.folder / "out")]
    assert np.array_equal(parts[2]["head"], (parts[0]["head"] + parts[1]["head"]) / 2)
