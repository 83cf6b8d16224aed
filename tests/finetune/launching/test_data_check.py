"""What --check finds before any job: settings tried on the start itself, rows by its own processor."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil

import pytest
import yaml
from click.testing import CliRunner

from finetune.launching.data_check import check
from finetune.launching.job_plans import plan_launch
from finetune.launching.shown_rows import LEARNT, show_rows
from soup.cli.app import cli
from soup.errors import FinetuneError
from tests.helpers.training_basics import write_rows
from tests.helpers.vlm_families import save_family


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pools")
    for name in ("d", "a"):
        write_rows(root / name, count=4)
    for kind in ("qwen3_vl", "llava"):
        save_family(kind, root / kind, seed=1)
        image = {"qwen3_vl": "<|image_pad|>", "llava": "<image>"}[kind]
        (root / kind / "chat_template.jinja").write_text(TEMPLATE.replace("IMAGE", image))
    return root


TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}</s>\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def checked(root, kind, **changed):
    keys = {"start": kind, "data": "d", "added": {"a": "a"}, "out": "out", "lr": 1e-4, "steps": 2, "log_to": []}
    (root / "pool.yaml").write_text(yaml.safe_dump({**keys, **changed}))
    return check(root / "pool.yaml")


@pytest.mark.parametrize("kind", ["qwen3_vl", "llava"])
def test_adapters_with_the_default_parts_fit_any_family(root, kind):
    report = checked(root, kind, lora={"rank": 4})
    assert report.errors == ()
    assert report.sets[0].tokens > 0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"lora": {"save": "visoin_tower"}}, "lora.save: no part is called visoin_tower"),
        ({"freeze": ["visual"]}, "freeze: no part is called visual"),
        ({"lora": {"target": "q_proj"}}, "lora.target 'q_proj' matches no linear layer"),
        ({"cache_features": True}, "cache_features: only for POINTS models"),
        ({"tiling": "anyres"}, "tiling: only for POINTS models"),
    ],
)
def test_settings_that_all_jobs_would_fail_by_are_found(root, changed, words):
    (error,) = checked(root, "llava", **changed).errors
    assert words in error


def test_rows_beside_a_folder_s_data_json_are_told_and_not_read(root, tmp_path):
    for name in ("more.jsonl", "other.json", "pictures.txt"):
        shutil.copy(root / "a" / "data.json", tmp_path / name)
    shutil.copytree(root / "a", tmp_path, dirs_exist_ok=True)
    report = checked(root, "llava", added={"a": str(tmp_path), "b": [str(tmp_path), "a"]})
    told = f"data {tmp_path}: data.json alone is read, not more.jsonl, other.json; name a file to have it read"
    assert [note for note in report.notes if "alone is read" in note] == [told]
    assert report.sets[1].rows == 4
    assert told in plan_launch(root / "pool.yaml", writing=False).remarks


def test_a_package_to_log_with_that_is_not_here_is_found(root, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "wandb" else find(name))
    report = checked(root, "llava", log_to="wandb")
    assert report.errors == ("log_to: wandb is not installed: pip install wandb",)


def test_a_template_that_ends_in_an_answer_s_head_whatever_is_asked_is_told_so(root):
    path = root / "llava" / "chat_template.jinja"
    before = path.read_text()
    path.write_text(before.replace("{% if add_generation_prompt %}assistant:{% endif %}", "assistant:"))
    rows = [{"from": role, "value": "x"} for role in ("human", "gpt") * 2]
    (root / "several").mkdir()
    (root / "several" / "data.json").write_text(json.dumps([{"conversations": rows}] * 2))
    try:
        report = checked(root, "llava", added={"a": "several"})
    finally:
        path.write_text(before)
    assert "the chat template writes no generation prompt (it takes no notice of add_generation_prompt)" in str(
        report.errors
    )


@pytest.mark.parametrize("kind", ["qwen3_vl", "llava"])
def test_rows_are_shown_as_the_model_sees_them(root, kind):
    checked(root, kind)
    shown = list(show_rows(root / "pool.yaml", 2))
    assert len(shown) == 4
    heads = [text.splitlines()[0] for text in shown]
    assert [head.split(": ")[0].rpartition("/")[2] for head in heads] == ["data.json, row 1", "data.json, row 2"] * 2
    text = shown[0].partition("\n")[2]
    image = {"qwen3_vl": "<|image_pad|>", "llava": "<image>"}[kind]
    assert text.count(image) == 1
    assert f"{image} x " in text
    assert "assistant:" + LEARNT.format("yes 0</s>") in text.replace("⟦ ", "⟦")
    batch_learnt = len("yes 0") + 1  # a token a character
    assert heads[0].endswith(f"{batch_learnt} learnt")


def test_rows_of_a_start_that_is_not_here_are_not_shown(root):
    checked(root, "tiny")
    with pytest.raises(FinetuneError, match="once the start is here"):
        show_rows(root / "pool.yaml", 2)


def test_a_data_set_that_is_not_here_hides_no_rows_of_others_and_no_problem(root):
    checked(root, "llava", added={"a": "a", "gone": "none.jsonl"})
    assert len(list(show_rows(root / "pool.yaml", 1))) == 2
    done = CliRunner().invoke(cli, ["finetune", str(root / "pool.yaml"), "--check", "--show", "1"])
    assert done.exit_code == 1
    assert done.stdout.count(LEARNT[0]) == 2
    assert re.search(r"problem: gone: .*none\.jsonl: expected a data set here, but there is no such file", done.stdout)
    assert re.search(r"^1 problem, \d notes?$", done.stdout, re.MULTILINE)
