"""Checkpoints by Hub id, against a server on this machine that plays the Hub for huggingface_hub's own client."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from soup.checkpoints.hub import HubId, is_hub_id
from soup.merging.recipe import Recipe
from tests.helpers.forked_cli import Forge
from tests.helpers.hub_server import HubServer
from tests.helpers.toy_pools import make_checkpoint, tree


@pytest.fixture
def hub(tmp_path):
    folders = {f"team/{name}": make_checkpoint(tmp_path / "there" / name, seed) for seed, name in enumerate("abc")}
    (folders["team/a"] / "pytorch_model.bin").write_bytes(b"a pickle")
    with HubServer(folders) as server:
        server.add("team/b", folders["team/b"], "v1")
        yield server


@pytest.fixture(scope="module")
def forge():
    with Forge() as forge:
        yield forge


@pytest.fixture
def soup(forge, hub, tmp_path):
    """Runs `soup ...` on a machine whose Hub is the one above."""
    here = tmp_path / "here"
    here.mkdir()
    environment = hub.environment(tmp_path / "home")

    def run(*argv, code=0, **changed):
        ended = forge(*argv, cwd=here, env=environment | changed)
        assert ended.code == code, ended
        assert "Traceback" not in ended.stderr, ended.stderr
        return ended

    return run


def test_a_pool_of_hub_ids_is_fetched_once_pinned_and_made_again_offline(soup, hub, tmp_path):
    pool = ("--pool", "team/a", "--pool", "team/b@v1")
    done = soup("average", *pool, "-o", "out")
    assert done.stdout == "out: the mean of a + b@v1\n"
    out = tmp_path / "here" / "out"
    parts = [load_file(tmp_path / "there" / name / "model.safetensors") for name in "ab"]
    whole = load_file(out / "model.safetensors")
    assert np.array_equal(whole["head"], (parts[0]["head"] + parts[1]["head"]) / 2)
    assert not any("pytorch_model.bin" in line for line in hub.asked), "a pickle is not even fetched"
    pinned = [f"team/{name}@{hub.commit(f'team/{name}')}" for name in "ab"]
    assert [share.path for share in Recipe.read(out / "recipe.yaml").ingredients] == pinned
    assert "base_model:\n- team/a\n- team/b\n" in (out / "README.md").read_text()

    hub.asked.clear()
    soup("average", *pool, "-o", "again")
    assert [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line] == []
    soup("merge", "out/recipe.yaml", "-o", "offline", HF_HUB_OFFLINE="1")
    assert tree(out) == tree(tmp_path / "here" / "again")
    assert load_file(tmp_path / "here/offline/model.safetensors").keys() == whole.keys()


@pytest.mark.parametrize("location", ["team/nobody", "team/a@v9", "team/a/b"])
def test_what_the_hub_does_not_have_is_one_clean_error(soup, location):
    done = soup("inspect", location, code=1)
    assert done.stderr.startswith(f"error: {location}: ")
    assert done.stdout == ""


def test_a_folder_here_comes_before_the_hub(soup, hub, tmp_path):
    make_checkpoint(tmp_path / "here" / "team" / "a", 7)
    soup("inspect", "team/a", "--json")
    assert hub.asked == []


@pytest.mark.parametrize(
    "text", ["a/b", "Qwen/Qwen2-VL-7B", "a_b/c.d-e", "a/b@main", "a/b@refs/pr/1", "0/1@" + "f" * 40]
)
def test_what_has_the_form_of_a_hub_id(text):
    assert is_hub_id(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b@refs/pr/1:c/d", "a/b@refs/pr/1:c/d"),
        ("a/b:c", "a/b:c"),
        ("https://huggingface.co/a/b.c-1", "a/b.c-1"),
        ("https://huggingface.co/a/b/", "a/b"),
        ("https://hf.co/a/b/tree/v1.0/c/d/", "a/b@v1.0:c/d"),
    ],
)
def test_an_id_may_be_the_address_of_its_page(text, expected):
    assert str(HubId.parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "/a/b",
        "./a",
        "../a/b",
        "a/b/c",
        "a/",
        "/b",
        "a/b@",
        "a b/c",
        "~/a",
        "",
        "a\\b",
        "https://a.org/b/c",
        "a/b:../c",
        "a/b:c/",
    ],
)
def test_what_has_not(text):
    assert not is_hub_id(text)
