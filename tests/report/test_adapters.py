"""What check and inspect tell of adapters."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

import soup
from soup.errors import CheckpointError, PoolError
from soup.report.checkpoint_report import inspect_checkpoint
from soup.testing import tiny_checkpoint
from tests.helpers.tiny_adapters import linear_factors, write_adapter

TENSORS = {"model.layers.0.up.weight": (6, 4), "model.norm.weight": (4,)}
UP = {"model.layers.0.up.weight": (6, 4)}


@pytest.fixture
def pool(tmp_path):
    base = tiny_checkpoint(tmp_path / "base", tensors=TENSORS)
    tiny_checkpoint(tmp_path / "pool" / "whole", seed=1, tensors=TENSORS)
    for seed, name in enumerate(["a", "b"]):
        write_adapter(tmp_path / "pool" / name, linear_factors(UP, seed=seed), base)
    return tmp_path / "pool"


def test_a_pool_of_adapters_and_whole_models_belongs_together(pool):
    report = soup.check(pool)
    assert report.ok
    assert report.ingredients == ("a", "b", "whole")
    assert report.warnings == ()


def test_copies_of_an_adapter_are_told(pool):
    write_adapter(pool / "c", linear_factors(UP, seed=1), pool.parent / "base")
    assert any("c holds the same weights as b" in warning for warning in soup.check(pool).warnings)


def test_nan_in_a_factor_is_told_with_the_adapter_and_the_tensor(pool):
    factors = linear_factors(UP, seed=1)
    factors["model.layers.0.up.lora_A.weight"][1, 2] = torch.nan
    write_adapter(pool / "b", factors, pool.parent / "base")
    (problem,) = soup.check(pool).problems
    assert (problem.kind, problem.ingredient, problem.keys) == ("nonfinite", "b", ("model.layers.0.up.weight",))


def test_adapters_of_several_bases_are_refused_with_all_of_them(pool):
    other = tiny_checkpoint(pool.parent / "other", tensors=TENSORS)
    write_adapter(pool / "b", linear_factors(UP, seed=1), other)
    with pytest.raises(PoolError, match="different bases") as refused:
        soup.check(pool)
    assert str(other) in str(refused.value)
    assert str(pool.parent / "base") in str(refused.value)
    assert soup.check(pool, base=other).ok


def test_an_adapter_whose_base_is_nowhere_asks_for_it(pool):
    for name in ("a", "b"):
        write_adapter(pool / name, linear_factors(UP), "")
    with pytest.raises(CheckpointError, match="whose base is not known, or can't be opened: pass `base`"):
        soup.Pool(pool)
    assert soup.check(pool, base=pool.parent / "base").ok


def test_a_base_that_is_not_here_asks_for_another(pool):
    for name in ("a", "b"):
        write_adapter(pool / name, linear_factors(UP), pool.parent / "gone")
    with pytest.raises(CheckpointError, match=r"gone: no such directory(.|\n)*pass `base`"):
        soup.Pool(pool)


def test_an_adapter_as_the_base_of_others_is_told_as_such(pool):
    with pytest.raises(CheckpointError, match="an adapter is the base of no other: merge it into its own first"):
        soup.Pool([pool / "a", pool / "b"], base=write_adapter(pool.parent / "c", linear_factors(UP), ""))


def test_an_adapter_that_no_base_would_help_says_why(pool):
    for name in ("a", "b"):
        write_adapter(pool / name, linear_factors(UP), pool.parent / "base", init_lora_weights="olora")
    with pytest.raises(CheckpointError, match="init_lora_weights 'olora'"):
        soup.Pool(pool)


def test_inspect_shows_an_adapter_by_itself(pool):
    report = inspect_checkpoint(pool / "a")
    assert report.adapter == {"base": str(pool.parent / "base"), "ranks": [4], "lora_alpha": 8}
    assert [row.name for row in report.components] == ["model.layers"]
    assert report.as_json()["digest"].startswith("xxh3:")
    assert "adapter" not in inspect_checkpoint(pool / "whole").as_json()


def test_a_full_fine_tune_among_adapters_is_told(pool):
    base = load_file(pool.parent / "base/model.safetensors")
    tuned = {name: (value.float() * 1.01).to(value.dtype) for name, value in base.items()}
    save_file(tuned, pool / "whole/model.safetensors", {"format": "pt"})
    rows = soup.check(pool, base=pool.parent / "base").distances.ingredients
    assert {row.name: row.verdict for row in rows}["whole"] == "a full fine-tune among 2 adapters"


def test_nan_in_a_tensor_of_the_base_that_no_adapter_changes_is_told_once(pool):
    norm = torch.tensor([1.0, torch.nan, 1.0, 1.0], dtype=torch.bfloat16)
    tiny_checkpoint(pool.parent / "base", tensors={**UP, "model.norm.weight": norm})
    (problem,) = soup.check(pool, exclude=["whole"]).problems
    assert (problem.kind, problem.ingredient, problem.keys) == ("nonfinite", "base", ("model.norm.weight",))
