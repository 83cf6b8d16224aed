"""Searches over adapters: a soup of them is scored by the bytes that ship, here and on workers."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from soup.merging.recipe import Recipe
from tests.helpers import flat_arguments as flat
from tests.helpers.tiny_adapters import write_adapter
from tests.helpers.toy_pools import debris, tree

JUDGE = """
from pathlib import Path
import torch
from safetensors.torch import load_file

def score(checkpoint):
    head = load_file(f"{checkpoint}/model.safetensors")["head.weight"].float()
    with (Path(__file__).parent / "calls.txt").open("a") as calls:
        calls.write(f"{head.tolist()}\\n")
    return 100 - float((head - torch.tensor([[1.0, 2.0, 3.0, 4.0]]).T).abs().mean())
"""
ROWS = {"a": (1, 2, 3, 8), "b": (20, 20, 20, 20), "c": (1, 2, 3, -1), "d": (30, 30, 30, 30)}


def make_whole(path, rows):
    path.mkdir(parents=True)
    head = torch.tensor(rows, dtype=torch.bfloat16).view(4, 1).expand(4, 2).contiguous()
    save_file({"head.weight": head, "norm": torch.ones(3, dtype=torch.bfloat16)}, path / "model.safetensors")
    (path / "config.json").write_text('{"model_type": "toy", "dtype": "bfloat16"}')
    return path


@pytest.fixture
def pool(tmp_path):
    base = make_whole(tmp_path / "base", (0, 0, 0, 0))
    for name, rows in list(ROWS.items()):
        if name == "c":
            make_whole(tmp_path / "ckpts" / name, rows)
            continue
        factors = {
            "head.lora_A.weight": torch.full((1, 2), 0.5),
            "head.lora_B.weight": torch.tensor(rows).float().view(4, 1),
        }
        write_adapter(tmp_path / "ckpts" / name, factors, base, r=1, lora_alpha=2)
    (tmp_path / "judge.py").write_text(JUDGE)
    return tmp_path / "ckpts"


def cook(pool, out, **fields):
    spec = f"python:{pool.parent / 'judge.py'}:score"
    return flat.cook("greedy", pool=pool, eval=[spec], out=out, **fields)


def test_greedy_soups_adapters_with_whole_models(tmp_path, pool):
    result = cook(pool, tmp_path / "out")
    assert set(result.recipe.names) == {"a", "c"}
    head = load_file(tmp_path / "out" / "model.safetensors")["head.weight"]
    scored = (pool.parent / "calls.txt").read_text().splitlines()
    assert str(head.float().tolist()) in scored, "what ships was scored"
    assert Recipe.read(tmp_path / "out" / "recipe.yaml").digest == result.recipe.digest
    assert debris(tmp_path) == []


def test_a_soup_of_whole_models_alone_does_not_depend_on_the_base_of_the_adapters_beside_them(tmp_path, pool):
    alone = cook(pool, tmp_path / "out", exclude=["a", "b", "d"], base=tmp_path / "base")
    mixed = cook(pool, tmp_path / "mixed", exclude=["a", "b"])
    assert alone.recipe.names == mixed.recipe.names == ("c",)
    assert alone.recipe.digest == mixed.recipe.digest, "so that it is scored once"


def test_workers_make_the_soup_of_adapters_that_one_process_makes(tmp_path, pool):
    cook(pool, tmp_path / "alone", run_dir=tmp_path / "run1")
    made = len((pool.parent / "calls.txt").read_text().splitlines())
    cook(pool, tmp_path / "both", run_dir=tmp_path / "run2", workers=2)
    assert tree(tmp_path / "alone") == tree(tmp_path / "both")
    assert len((pool.parent / "calls.txt").read_text().splitlines()) > made
    cook(pool, tmp_path / "again", run_dir=tmp_path / "run1")
    assert tree(tmp_path / "alone") == tree(tmp_path / "again")


def test_another_scale_in_an_adapter_s_config_is_another_ingredient(tmp_path, pool):
    first = cook(pool, tmp_path / "first", exclude=["b", "c", "d"])
    config = pool / "a" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 2', '"lora_alpha": 3'))
    second = cook(pool, tmp_path / "second", exclude=["b", "c", "d"])
    assert first.recipe.ingredients[0].digest != second.recipe.ingredients[0].digest
    assert first.trials[0].overall != second.trials[0].overall
