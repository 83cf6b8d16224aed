"""`soup push`, against a server on this machine that plays the Hub for huggingface_hub's own client."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.reader import Checkpoint
from soup.merging.recipe import Recipe
from tests.helpers.case_parts import some_of
from tests.helpers.forked_cli import Forge
from tests.helpers.hub_server import Fault, HubClient, HubServer, digest
from tests.helpers.tiny_adapters import linear_factors, write_adapter
from tests.helpers.toy_pools import make_checkpoint, make_judge, make_pool, tree

NOW = {"Retry-After": "0"}


@pytest.fixture(scope="module")
def forge():
    with Forge() as forge:
        yield forge


@pytest.fixture(scope="module")
def work(forge, tmp_path_factory):
    """A greedy soup of a pool, beside its run, and the mean of all, in shards."""
    folder = tmp_path_factory.mktemp("work")
    make_pool(folder / "ckpts", shards=2)
    for name in "abcd":
        (folder / "ckpts" / name / "README.md").write_text("---\nlicense: mit\nlanguage: [en, de]\n---\n# A model\n")
    make_judge(folder)
    done = forge("greedy", "--pool", "ckpts", "--eval", f"python:{folder}/judge.py:score", "-o", "out", cwd=folder)
    assert done.code == 0, done
    return folder


@pytest.fixture
def hub(request):
    """The Hub, which stores large files whole (lfs) or by chunks (xet)."""
    with HubServer(xet=getattr(request, "param", "lfs") == "xet") as server:
        yield server


by_both = pytest.mark.parametrize("hub", ["lfs", "xet"], indirect=True)
"""With and without hf_xet."""


@pytest.fixture
def soup(forge, hub, tmp_path, work):
    client = HubClient(forge, hub, tmp_path)
    for name in ("out", "ckpts.soup", "ckpts"):
        shutil.copytree(work / name, client.folder / name)
    return client


def large(hub, name="team/soup"):
    return {path: digest(data) for path, data in hub.files(name).items() if path.endswith(".safetensors")}


def test_a_soup_its_recipe_report_and_card_are_one_commit(soup, hub):
    shown = soup.json("push", "out", "team/soup", "--private")
    assert hub.repositories["team/soup"].is_private
    assert shown["commit"] == hub.commit("team/soup")
    assert len(hub.requests("POST .*/commit/main")) == 1
    files = hub.files("team/soup")
    assert {*files} - {".gitattributes"} == {row["path"] for row in shown["files"]} == {
        "README.md", "config.json", "tokenizer.json", "recipe.yaml", "report.html", "report.json",
        "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    }  # fmt: skip
    made = tree(soup.folder / "out")
    same = [name for name in files if name.startswith("model") or name in ("config.json", "tokenizer.json")]
    assert {name: files[name] for name in same} == {name: made[name] for name in same}
    front = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert (front["license"], front["language"], front["library_name"]) == ("mit", ["en", "de"], "transformers")
    assert {"merge", "model-soup"} <= {*front["tags"]}
    assert json.loads(files["report.json"])["questions"] == []


def test_no_folder_of_this_machine_is_published(soup, hub, work):
    config = soup.folder / "out/config.json"
    config.write_text(
        json.dumps(
            json.loads(config.read_text()) | {"_name_or_path": "/mnt/alice/ckpts/b", "a": {"_name_or_path": "../b"}}
        )
    )
    done = soup("push", "out", "team/soup")
    assert "warning: config.json: of the folder that it came from, the last name alone is published" in done.stderr
    texts = {name: data.decode() for name, data in hub.files("team/soup").items() if not name.endswith("safetensors")}
    assert [
        name for name, text in texts.items() if str(work) in text or "alice" in text or "/" + work.name in text
    ] == []
    shown = json.loads(texts["config.json"])
    assert (shown["_name_or_path"], shown["a"]["_name_or_path"]) == ("b", "b")
    (soup.folder / "recipe.yaml").write_text(texts["recipe.yaml"])
    recipe = Recipe.read(soup.folder / "recipe.yaml")
    assert recipe.digest == Recipe.read(soup.folder / "out/recipe.yaml").digest
    assert [share.path for share in recipe.ingredients] == [str(soup.folder / name) for name in recipe.names]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("chat_template.jinja", "{# see {folder}/notes #}"),
        ("modeling_toy.py", "TOKEN = 'hf_abcdefghijklmnopqrstuvwxyz'"),
        ("README.md", "---\nlicense: mit\n---\nby {folder}/ckpts\n"),
        ("config.json", '{"model_type": "toy", "cache": "{folder}/cache"}'),
    ],
)
def test_folders_and_keys_in_other_files_stop_the_push(soup, hub, name, text):
    (soup.folder / "out" / name).write_text(text.replace("{folder}", str(soup.folder)))
    done = soup("push", "out", "team/soup", code=1)
    assert "names folders of this machine, or holds keys" in done.stderr
    assert f"- {name}, line " in done.stderr
    assert str(soup.folder) not in done.stderr
    assert "abcdefghijk" not in done.stderr
    assert hub.asked == []


def test_a_dry_run_shows_card_and_files_and_asks_the_hub_nothing(soup, hub):
    (soup.folder / "out/events.log").write_text("x")
    done = soup("push", "out", "team/soup", "--dry-run")
    assert "model-00001-of-00002.safetensors" in done.stdout
    assert "left out: events.log\n" in done.stdout
    assert "\n---\nlibrary_name: transformers\n" in done.stdout
    shown = soup.json("push", "out", "team/soup", "--dry-run")
    assert shown["card"].startswith("---\n")
    assert "report.html" in {row["path"] for row in shown["files"]}
    assert hub.asked == []


@by_both
def test_what_was_pushed_comes_back_as_the_same_model(soup, hub):
    pushed = soup.json("push", "out", "team/soup", "--private")
    there = f"team/soup@{pushed['commit']}"
    with Checkpoint(soup.folder / "out") as made:
        expected = digest_checkpoint(made).content
    assert soup.json("inspect", there)["digest"] == expected
    soup("average", "--pool", there, "-o", "again")
    with Checkpoint(soup.folder / "again") as again:
        assert digest_checkpoint(again).content == expected
    make_judge(soup.folder)
    shown = soup.json("eval", there, "out", "--eval", "python:judge.py:score", "--run-dir", "run")
    assert len({trial["overall"] for trial in shown["trials"]}) == 1


@by_both
def test_a_second_push_of_the_same_soup_sends_nothing(soup, hub):
    first = soup.json("push", "out", "team/soup")
    hub.uploaded.clear()
    assert soup.json("push", "out", "team/soup")["commit"] == first["commit"]
    assert (hub.uploaded, len(hub.requests("POST .*/commit/"))) == ({}, 1)


def test_a_push_that_was_cut_sends_the_rest_alone(soup, hub):
    hub.faults += [Fault("POST .*/commit/", 500, times=3, headers=NOW)]
    first, second = (digest(path.read_bytes()) for path in sorted((soup.folder / "out").glob("*.safetensors")))
    hub.faults += [Fault(f"PUT /storage/{second}", 400)]
    done = soup("push", "out", "team/soup", code=1)
    assert done.stderr.splitlines()[-1].startswith("error: team/soup: "), done.stderr
    assert "model-00001-of-00002.safetensors: 1.20 MB\n" in done.stderr
    assert [*hub.uploaded] == [f"{first}/whole"]
    hub.uploaded.clear()
    done = soup("push", "out", "team/soup", code=1)
    assert "the Hub is in trouble (500)" in done.stderr
    assert [*hub.uploaded] == [f"{second}/whole"]
    hub.uploaded.clear()
    done = soup("push", "out", "team/soup", "--quiet")
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines()), done.stderr
    assert (hub.uploaded, len(large(hub))) == ({}, 2)


@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_by_chunks_too_a_push_that_was_cut_sends_the_rest_alone(soup, hub):
    hub.faults += [Fault("POST .*/commit/", 500, times=3, headers=NOW)]
    done = soup("push", "out", "team/soup", code=1)
    assert "the Hub is in trouble (500)" in done.stderr
    assert len(hub.uploaded) == 2
    hub.uploaded.clear()
    soup("push", "out", "team/soup")
    assert (hub.uploaded, len(large(hub))) == ({}, 2)


@pytest.mark.parametrize(
    "fault",
    some_of(
        [
            Fault("POST .*/commit/", 409, headers=NOW),
            Fault("POST .*/commit/", 429, headers=NOW),
            Fault("POST .*/commit/", 503, headers=NOW),
            Fault("POST .*/commit/", after_bytes=100),
            Fault("POST .*/preupload/", 503, headers=NOW),
            Fault("POST .*/objects/batch", 429, headers=NOW),
            Fault("PUT /storage/", after_bytes=100),
            Fault("PUT /storage/", 503, headers=NOW),
            Fault("POST /api/repos/create", 503, headers=NOW),
        ]
    ),
    ids=lambda fault: f"{fault.request.split()[-1]} {fault.status or 'cut'}",
)
def test_what_fails_once_is_tried_again(soup, hub, fault):
    fault.times = 1
    hub.faults.append(fault)
    soup("push", "out", "team/soup")
    assert fault.times == 0
    assert {*large(hub).values()} == {digest(path.read_bytes()) for path in (soup.folder / "out").glob("*.safetensors")}


def test_a_commit_whose_answer_was_lost_is_not_made_twice(soup, hub):
    hub.lose_answers = 1
    shown = soup.json("push", "out", "team/soup")
    assert shown["commit"] == hub.commit("team/soup")
    assert len(hub.repositories["team/soup"].commits) == 2, "the first, of .gitattributes, and ours"


def test_large_files_go_in_parts(soup, hub):
    hub.part_bytes = 100_000
    soup("push", "out", "team/soup")
    parts = [name.partition("/")[2] for name in hub.uploaded]
    assert {"1", "2", "3"} <= {*parts}
    assert "whole" not in parts or min(hub.uploaded.values()) <= hub.part_bytes
    assert {*large(hub).values()} == {digest(path.read_bytes()) for path in (soup.folder / "out").glob("*.safetensors")}


def test_weights_of_an_earlier_soup_are_removed(soup, hub, tmp_path):
    soup("average", "--pool", "ckpts", "-o", "whole", "--max-shard-size", "1GB")
    soup("push", "whole", "team/soup")
    assert "model.safetensors" in hub.files("team/soup")
    done = soup("push", "out", "team/soup")
    assert "removed from team/soup: model.safetensors\n" in done.stderr
    assert "model.safetensors" not in hub.files("team/soup")
    soup("inspect", "team/soup")


@by_both
def test_a_model_that_is_no_soup_is_not_overwritten(soup, hub, tmp_path):
    commit = hub.add("team/soup", make_checkpoint(tmp_path / "other", 3))
    done = soup("push", "out", "team/soup", code=1)
    assert "team/soup: holds a model that is no soup" in done.stderr
    assert hub.commit("team/soup") == commit
    shown = soup.json("push", "out", "team/soup", "--pr")
    assert shown["url"].endswith("/team/soup/discussions/1")
    assert hub.commit("team/soup") == commit
    assert len([name for name in hub.files("team/soup", "refs/pr/1") if name.endswith("safetensors")]) == 2


def test_a_branch_is_made_and_the_default_one_stays(soup, hub):
    soup("push", "out", "team/soup")
    before = hub.commit("team/soup")
    card = soup.folder / "out/README.md"
    card.write_text(card.read_text() + "\nMine.\n")
    shown = soup.json("push", "out", "team/soup", "--revision", "feature/x")
    assert (hub.commit("team/soup"), hub.commit("team/soup", "feature/x")) == (before, shown["commit"])
    assert "\nMine.\n" in hub.files("team/soup", "feature/x")["README.md"].decode()


def test_a_public_repository_is_refused_where_a_private_one_was_asked_for(soup, hub):
    soup("push", "out", "team/soup")
    done = soup("push", "out", "team/soup", "--private", code=1)
    assert "team/soup: is public, and --private was asked for" in done.stderr


@pytest.mark.parametrize(
    ("repository", "options", "environment", "text"),
    [
        ("soup", (), {}, "soup: expected a repository of the Hub, ORG/NAME"),
        ("team/soup@v1", (), {}, "team/soup@v1: expected a repository of the Hub, ORG/NAME"),
        ("team/soup", ("--pr", "--private"), {}, "--pr: a pull request goes to the default branch"),
        ("team/soup", ("--pr",), {}, "team/soup: the Hub has no such repository"),
        ("team/soup", (), {"HF_TOKEN": "hf_wrong"}, "team/soup: the Hub refuses the token, or wants one (401): log in"),
        ("team/soup", (), {"HF_TOKEN": ""}, "team/soup: the Hub refuses the token, or wants one (401): log in"),
        ("closed/soup", (), {}, "closed/soup: the Hub forbids it (403): log in"),
        ("team/soup", (), {"HF_ENDPOINT": "http://127.0.0.1:9"}, "team/soup: the Hub can't be reached"),
        ("team/soup", (), {"HF_HUB_OFFLINE": "1"}, "team/soup: $HF_HUB_OFFLINE keeps it from the Hub"),
        ("team/soup", ("--run-dir", "ckpts"), {}, "ckpts"),
    ],
)
def test_what_can_not_be_pushed_is_one_sentence(soup, hub, repository, options, environment, text):
    done = soup("push", "out", repository, *options, code=1, **environment)
    assert f"error: {text}" in done.stderr
    assert done.stdout == ""


def test_a_card_that_the_hub_refuses_is_told_before_anything_is_sent(soup, hub):
    card = soup.folder / "out/README.md"
    card.write_text(card.read_text().replace("tags:", "base_model_relation: cousin\ntags:"))
    done = soup("push", "out", "team/soup", code=1)
    assert "the Hub refuses the metadata of README.md: base_model_relation: not one that is known. Edit" in done.stderr
    assert hub.repositories == {}


def test_a_pull_request_whose_commit_failed_can_be_filled(soup, hub, tmp_path):
    hub.add("team/soup", make_checkpoint(tmp_path / "other", 3))
    hub.faults += [Fault("POST .*/commit/", 503, times=3, headers=NOW)]
    done = soup("push", "out", "team/soup", "--pr", code=1)
    assert "team/soup/discussions/1 is open: --revision refs/pr/1 in place of --pr fills it." in done.stderr
    hub.uploaded.clear()
    soup("push", "out", "team/soup", "--revision", "refs/pr/1")
    assert hub.uploaded == {}
    assert "recipe.yaml" in hub.files("team/soup", "refs/pr/1")


def test_a_directory_that_is_no_soup_is_refused(soup):
    assert "error: ckpts/a: no recipe.yaml there" in soup("push", "ckpts/a", "team/soup", code=1).stderr
    shutil.copy(soup.folder / "out/recipe.yaml", soup.folder / "ckpts/a")
    done = soup("push", "ckpts/a", "team/soup", code=1)
    assert "error: ckpts/a: its weights were not made by its recipe.yaml" in done.stderr


def test_without_its_run_a_soup_goes_without_report(soup, hub):
    shutil.rmtree(soup.folder / "ckpts.soup")
    done = soup("push", "out", "team/soup")
    assert "warning: no report: " in done.stderr
    assert "report.html" not in hub.files("team/soup")


def test_the_model_index_bears_the_repository_s_name(soup, hub, work):
    judged = ("--eval", f"python:{work}/judge.py:score", "--run-dir", "run")
    soup("average", "--pool", "ckpts", *judged, "-o", "mean")
    soup("push", "mean", "team/best-soup", "--run-dir", "run")
    front = yaml.safe_load(hub.files("team/best-soup")["README.md"].decode().split("---\n")[1])
    [entry] = front["model-index"]
    assert entry["name"] == "best-soup"
    assert entry["results"][0]["dataset"] == {"type": "python:judge.py:score", "name": "python:judge.py:score"}


def test_an_adapter_soup_goes_as_an_adapter_of_its_base(soup, hub, tmp_path):
    base = {"language.0.weight": (5, 7)}
    tensors = {"language.0.weight": linear_factors({"a": (5, 7)})["a.lora_B.weight"].new_ones(5, 7).numpy()}
    commit = hub.add("team/base", make_checkpoint(tmp_path / "base", tensors=tensors))
    for seed, name in enumerate("xy"):
        hub.add(f"team/{name}", write_adapter(tmp_path / name, linear_factors(base, seed=seed), base="team/base", r=4))
    soup("average", "--pool", "team/x", "team/y", "--as-adapter", "-o", "lora")
    soup("push", "lora", "team/lora")
    files = hub.files("team/lora")
    assert {"adapter_config.json", "adapter_model.safetensors", "recipe.yaml", "README.md"} <= {*files}
    front = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert (front["library_name"], front["base_model"]) == ("peft", ["team/base"])
    shown = soup.json("inspect", "team/lora")
    assert shown["digest"] == soup.json("inspect", "lora")["digest"]
    soup("average", "--pool", "team/lora", "-o", "whole")
    assert Recipe.read(soup.folder / "whole/recipe.yaml").base.path == f"team/base@{commit}"
    soup("push", "whole", "team/lora")
    assert {name for name in hub.files("team/lora") if "adapter" in name} == set(), "a loader would take it first"


def test_an_adapter_on_a_base_of_this_machine_is_not_pushed(soup, hub, tmp_path):
    tensors = {"language.0.weight": linear_factors({"a": (5, 7)})["a.lora_B.weight"].new_ones(5, 7).numpy()}
    make_checkpoint(soup.folder / "base", tensors=tensors)
    write_adapter(soup.folder / "x", linear_factors({"language.0.weight": (5, 7)}), base="../base", r=4)
    soup("average", "--pool", "x", "--base", "base", "--as-adapter", "-o", "lora")
    done = soup("push", "lora", "team/lora", code=1)
    assert "which is not on the Hub, so that nobody else could use it" in done.stderr
