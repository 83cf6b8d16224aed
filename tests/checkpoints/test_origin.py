"""Ingredients that say they were trained from different models: told, from whatever record they have."""

from __future__ import annotations

import json

import pytest

from soup.report.pool_check import check
from tests.helpers.toy_pools import make_checkpoint, make_pool


def record(checkpoint, kind, start):
    if kind == "README.md":
        (checkpoint / kind).write_text(f"---\nlicense: mit\nbase_model: {start}\ntags: [a]\n---\n# A model\n")
    elif kind == "README.md, a list":
        (checkpoint / "README.md").write_text(f"---\nbase_model:\n- {start}\n---\n")
    else:
        file, key = kind.split(":")
        before = json.loads((checkpoint / file).read_text()) if (checkpoint / file).exists() else {}
        (checkpoint / file).write_text(json.dumps(before | {key: start}))


KINDS = [
    "finetune.json:start",
    "adapter_config.json:base_model_name_or_path",
    "args.json:model",
    "config.json:_name_or_path",
    "README.md",
    "README.md, a list",
]


def starts(tmp_path, kind, *names):
    for seed, name in enumerate(names):
        record(make_checkpoint(tmp_path / "ckpts" / f"i{seed}", seed), kind, name)
    report = check(tmp_path / "ckpts")
    assert report.ok
    return [warning for warning in report.warnings if "trained from" in warning]


@pytest.mark.parametrize("kind", KINDS)
def test_different_starts_are_told_with_who_was_trained_from_which(tmp_path, kind):
    (remark,) = starts(tmp_path, kind, "Qwen/Qwen2-VL-2B", "Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2-VL-2B")
    assert remark.endswith("i0, i2: Qwen/Qwen2-VL-2B; i1: Qwen/Qwen2-VL-2B-Instruct")


@pytest.mark.parametrize("kind", KINDS)
def test_one_model_in_several_places_is_one_start(tmp_path, kind):
    cached = "/hub/models--Qwen--Qwen2-VL-2B/snapshots/0123abcd"
    assert not starts(tmp_path, kind, "Qwen/Qwen2-VL-2B", "/models/qwen2-vl-2b/", cached, "Qwen/Qwen2-VL-2B@main")


def test_steps_of_different_runs_are_different_starts(tmp_path):
    assert starts(tmp_path, "finetune.json:start", "/runs/a/checkpoint-100", "/runs/b/checkpoint-100")


def test_ingredients_that_say_nothing_or_name_themselves_are_passed_over(tmp_path):
    pool = make_pool(tmp_path / "ckpts")
    record(pool / "a", "finetune.json:start", "base")
    (pool / "b/finetune.json").write_text("[" * 9999)
    (pool / "c/README.md").write_bytes(b"\xff")
    record(pool / "d", "config.json:_name_or_path", str(pool / "d"))
    assert check(pool).warnings == ()
