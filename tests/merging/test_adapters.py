"""Pools of adapters and of adapters with whole models, against base + mean of s B A in float64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import soup
from soup.checkpoints.adapter import Adapter
from soup.checkpoints.digest import digest_checkpoint
from soup.errors import CheckpointError, PoolError, RecipeError
from soup.merging import kernel_library
from soup.merging.kernel_library import has_kernels
from soup.merging.options import MergeOptions
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe
from soup.testing import tiny_checkpoint
from tests.helpers.merge_oracle import read_back, recipe_of, rounded, same_bits, ulps
from tests.helpers.tiny_adapters import exact, linear_factors, mean_of, write_adapter

SHAPES = {"layers.0.up.weight": (33, 17), "layers.0.down.weight": (17, 33), "head.weight": (40, 17)}
TARGETS = dict(list(SHAPES.items())[:2])
TENSORS = {**SHAPES, "norm.weight": (17,), "temperature": ()}


def make_pool(
    folder, adapters=3, wholes=0, dtype="bfloat16", tensors=TENSORS, targets=TARGETS, ranks=(4, 2, 8), **config
):
    base = tiny_checkpoint(folder / "base", seed=99, dtype=dtype, tensors=tensors)
    for i in range(adapters):
        rank = ranks[i % len(ranks)]
        write_adapter(folder / "pool" / f"adapter-{i}", linear_factors(targets, rank, seed=i), base, **config)
    for i in range(wholes):
        tiny_checkpoint(folder / "pool" / f"whole-{i}", seed=i, dtype=dtype, tensors=tensors)
    return base, folder / "pool"


def merge(pool, out, options=None, **fields):
    soup.merge(recipe_of(pool, **fields), out, merge=options)
    return read_back(out)


def states_of(base, pool):
    """The models of a pool, adapters added in float64."""
    return [
        exact(read_back(base), part) if (part / "adapter_config.json").exists() else read_back(part)
        for part in sorted(pool.iterdir())
    ]


def oracle(base, pool):
    return mean_of(states_of(base, pool))


def assert_within_contract(found, states, dtype):
    """All but 0.05 % of the elements (or one of few) are the exact mean rounded once; the others lie beside it.

    Where values cancel, they lie within 2^-24 of the mean of what they are without their signs: docs/numerics.md.
    """
    expected, sizes = mean_of(states), mean_of([{name: each.abs() for name, each in state.items()} for state in states])
    for name, value in found.items():
        away = ulps(value, rounded(expected[name], dtype))
        far = (value.double() - expected[name]).abs() > 2.0**-24 * sizes[name]
        assert not (far.flatten() & (away > 1)).any(), name
        assert int((away > 0).sum()) <= max(1, value.numel() * 0.0005), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("wholes", [0, 2])
def test_a_soup_of_adapters_is_the_base_and_the_mean_of_their_products(tmp_path, dtype, wholes):
    base, pool = make_pool(tmp_path, wholes=wholes, dtype=dtype)
    assert_within_contract(merge(pool, tmp_path / "out"), states_of(base, pool), getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("factors", ["bfloat16", "float32"])
def test_a_soup_of_adapters_has_the_same_bytes_without_the_compiled_library(tmp_path, monkeypatch, dtype, factors):
    targets = {"layers.0.up.weight": (130, 70), "layers.0.down.weight": (70, 130)}
    base, pool = make_pool(tmp_path, 0, dtype=dtype, tensors=targets)
    for i, rank in enumerate((4, 2, 20)):
        write_adapter(pool / f"adapter-{i}", linear_factors(targets, rank, seed=i, dtype=factors), base)
    made = merge(pool, tmp_path / "compiled")
    monkeypatch.setattr(kernel_library, "load_library", lambda: None)
    again = merge(pool, tmp_path / "torch")
    assert all(same_bits(made[name], value) for name, value in again.items())


@pytest.mark.skipif(not has_kernels(), reason="installed where there was no C compiler")
def test_a_soup_of_adapters_over_16_bits_never_imports_torch(tmp_path):
    base, pool = make_pool(tmp_path)
    code = (
        "import sys, soup; from pathlib import Path; from soup.merging.recipe import CheckpointSource, Recipe\n"
        "sources = [CheckpointSource(name=path.name, path=str(path)) for path in sorted(Path(sys.argv[1]).iterdir())]\n"
        "soup.merge(Recipe.uniform(sources), sys.argv[2])\n"
        "print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(pool), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert_within_contract(read_back(tmp_path / "out"), states_of(base, pool), torch.bfloat16)


def test_a_float64_base_keeps_its_precision(tmp_path):
    base, pool = make_pool(tmp_path, dtype="float64")
    made = merge(pool, tmp_path / "out")
    for name, value in oracle(base, pool).items():
        assert torch.allclose(made[name], value, rtol=0, atol=5e-17), name


def test_tensors_that_no_adapter_touches_are_copied(tmp_path):
    base, pool = make_pool(tmp_path)
    made, original = merge(pool, tmp_path / "out"), read_back(base)
    for name in original.keys() - TARGETS.keys():
        assert same_bits(made[name], original[name])


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    ranks=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    blocks=st.sampled_from([1, 7, 64, 4096]),
    threads=st.integers(1, 3),
    dtype=st.sampled_from(["bfloat16", "float32"]),
    wholes=st.integers(0, 1),
)
@settings(max_examples=25, deadline=None)
def test_block_size_and_threads_change_no_byte(tmp_path_factory, rows, columns, ranks, blocks, threads, dtype, wholes):
    folder = tmp_path_factory.mktemp("shapes")
    shapes = {"up.weight": (rows, columns)}
    base, pool = make_pool(folder, len(ranks), wholes, dtype, shapes, shapes, ranks)
    whole = merge(pool, folder / "whole")
    blocked = merge(pool, folder / "blocked", MergeOptions(block_elements=blocks, threads=threads))
    assert same_bits(whole["up.weight"], blocked["up.weight"])
    assert_within_contract(whole, states_of(base, pool), getattr(torch, dtype))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list open files")
def test_a_pool_that_is_left_has_no_file_open(tmp_path):
    _, folder = make_pool(tmp_path, 1, wholes=1)
    with Pool(folder) as pool:
        for part in pool.all:
            digest_checkpoint(part.checkpoint)
        digest_checkpoint(pool[0].checkpoint.stored)
        assert len(open_below(tmp_path)) == 3
    assert open_below(tmp_path) == []


def open_below(folder):
    links = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
    return [link for link in links if link.startswith(str(folder.resolve()))]


def test_copies_of_one_adapter_give_that_adapter_back(tmp_path):
    base, pool = make_pool(tmp_path, 1)
    single = merge(pool, tmp_path / "single")
    for i in (1, 2):
        write_adapter(pool / f"copy-{i}", linear_factors(TARGETS, 4, seed=0), base)
    thrice = merge(pool, tmp_path / "thrice")
    assert all(same_bits(thrice[name], value) for name, value in single.items())


def test_the_base_of_adapters_is_the_one_that_they_name(tmp_path):
    base, pool = make_pool(tmp_path)
    with Pool(pool) as opened:
        assert opened.base.location == str(base)
        assert opened.names == ("adapter-0", "adapter-1", "adapter-2")


@pytest.mark.parametrize("named", ["{base}", "../../base", "beside/base"])
def test_a_recipe_without_a_base_takes_the_one_that_its_adapters_name(tmp_path, named):
    base, pool = make_pool(tmp_path)
    expected = merge(pool, tmp_path / "expected")
    for i, rank in enumerate((4, 2, 8)):
        write_adapter(pool / f"adapter-{i}", linear_factors(TARGETS, rank, seed=i), named.format(base=base))
    if named.startswith("beside"):
        (tmp_path / "beside").mkdir()
        base.rename(tmp_path / "beside" / "base")
    parts = [{"name": path.name, "path": str(path), "weight": 1} for path in sorted(pool.iterdir())]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"method": "linear", "ingredients": parts}))
    sealed = soup.merge(tmp_path / "recipe.yaml", tmp_path / "out")
    assert sealed.base.digest.startswith("xxh3:")
    assert all(same_bits(value, expected[name]) for name, value in read_back(tmp_path / "out").items())


def write_tokens(folder, base, rows, indices, **config):
    factors = {"embed_tokens.token_adapter.trainable_tokens_delta": rows}
    return write_adapter(folder, factors, base, trainable_token_indices=indices, **config)


@pytest.mark.parametrize("block_elements", [None, 5])
def test_rows_of_trained_tokens_take_the_place_of_the_base_s_and_are_averaged(tmp_path, block_elements):
    embeddings = torch.randn(9, 7, dtype=torch.float64)
    base = tiny_checkpoint(tmp_path / "base", tensors={"model.embed_tokens.weight": embeddings})
    rows = torch.randn(3, 7, dtype=torch.float64)
    write_tokens(tmp_path / "pool" / "a", base, rows[:2], [8, 0])
    write_tokens(tmp_path / "pool" / "b", base, rows[2:], {"embed_tokens": [0]})
    made = merge(tmp_path / "pool", tmp_path / "out", MergeOptions(block_elements=block_elements))
    expected = embeddings.clone()
    expected[8], expected[0] = (embeddings[8] + rows[0]) / 2, (rows[1] + rows[2]) / 2
    assert torch.allclose(made["model.embed_tokens.weight"], expected, rtol=0, atol=1e-15)
    untouched = slice(1, 8)
    assert same_bits(made["model.embed_tokens.weight"][untouched], embeddings[untouched])


@pytest.mark.parametrize(
    ("indices", "reason"),
    [
        ([1], "has 2 rows of 7 for 1 tokens"),
        ([1, 9], "tokens up to 9 of model.embed_tokens.weight"),
        ({"lm_head": [1, 2]}, "expected a list of tokens for embed_tokens"),
        ([1, -1], "expected a list of tokens"),
    ],
)
def test_rows_without_their_tokens_are_refused(tmp_path, indices, reason):
    base = tiny_checkpoint(tmp_path / "base", tensors={"model.embed_tokens.weight": (9, 7)})
    write_tokens(tmp_path / "pool" / "a", base, torch.zeros(2, 7), indices)
    with pytest.raises(CheckpointError, match=reason):
        merge(tmp_path / "pool", tmp_path / "out")


def test_other_tokens_make_another_digest(tmp_path):
    base = tiny_checkpoint(tmp_path / "base", tensors={"model.embed_tokens.weight": (9, 7)})
    first, second = (write_tokens(tmp_path / name, base, torch.ones(1, 7), [i]) for i, name in enumerate("ab"))
    assert digest_checkpoint(Adapter(first)).content != digest_checkpoint(Adapter(second)).content


def test_biases_of_saved_modules_that_version_0_1_merged_otherwise_make_another_digest(tmp_path):
    base = tiny_checkpoint(tmp_path / "base", tensors={"up.weight": (6, 5)})
    settings = [{}, {"bias": "all"}, {"modules_to_save": ["head"]}, {"bias": "all", "modules_to_save": ["head"]}]
    contents = set()
    for number, keys in enumerate(settings):
        path = write_adapter(tmp_path / f"{number}", linear_factors({"up.weight": (6, 5)}), base, **keys)
        contents.add(digest_checkpoint(Adapter(path)).content)
    assert len(contents) == 2


def test_a_grouped_convolution_is_refused_by_name(tmp_path):
    base = tiny_checkpoint(tmp_path / "base", tensors={"conv.weight": (8, 4, 3, 3)})
    factors = {"conv.lora_A.weight": torch.ones(4, 4, 3, 3), "conv.lora_B.weight": torch.ones(8, 2, 1, 1)}
    write_adapter(tmp_path / "pool" / "a", factors, base)
    with pytest.raises(CheckpointError, match="conv: a grouped convolution, whose factors PEFT can't merge either"):
        merge(tmp_path / "pool", tmp_path / "out")


@pytest.mark.parametrize("wholes", [0, 1])
def test_of_adapters_that_are_joined_the_one_with_nan_is_named(tmp_path, wholes):
    base, pool = make_pool(tmp_path, wholes=wholes)
    factors = linear_factors(TARGETS, 2, seed=1)
    factors["layers.0.up.lora_B.weight"][3, 1] = torch.nan
    write_adapter(pool / "adapter-1", factors, base)
    with pytest.raises(PoolError, match=r"- adapter-1: layers\.0\.up\.weight: NaN or infinity"):
        merge(pool, tmp_path / "out")


@pytest.mark.parametrize(("dtype", "alpha"), [("float16", 1e7), ("float32", 1e41)])
@pytest.mark.parametrize("count", [1, 2])
def test_what_an_adapter_adds_beyond_the_dtype_is_refused(tmp_path, dtype, alpha, count):
    _, pool = make_pool(tmp_path, count, dtype=dtype, lora_alpha=alpha)
    with pytest.raises(PoolError, match=f"too large for {dtype}"):
        merge(pool, tmp_path / "out")
    assert "overflow" in {problem.kind for problem in soup.check(pool).problems}


def test_a_base_in_the_pool_s_directory_is_no_ingredient(tmp_path):
    base, pool = make_pool(tmp_path)
    base.rename(pool / "base")
    for i in range(3):
        write_adapter(pool / f"adapter-{i}", linear_factors(TARGETS, seed=i), pool / "base")
    with Pool(pool) as opened:
        assert opened.names == ("adapter-0", "adapter-1", "adapter-2")


def test_a_recipe_names_adapters_and_base_with_their_digests_and_gives_the_same_bytes_again(tmp_path):
    _, pool = make_pool(tmp_path)
    made = merge(pool, tmp_path / "out")
    sealed = Recipe.read(tmp_path / "out" / "recipe.yaml")
    assert sealed.base.digest.startswith("xxh3:")
    assert len({share.digest for share in sealed.ingredients}) == 3
    again = soup.merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again")
    assert again.digest == sealed.digest
    assert all(same_bits(value, made[name]) for name, value in read_back(tmp_path / "again").items())


def test_another_dtype_is_rounded_once(tmp_path):
    base, pool = make_pool(tmp_path)
    made = merge(pool, tmp_path / "out", dtype="float32")
    assert_within_contract({name: made[name] for name in TARGETS}, states_of(base, pool), torch.float32)


@pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], [2.0, -1.5, 0.5], [1.0, -1.0, 3.0]])
def test_weights_weigh_what_adapters_add(tmp_path, weights):
    base, pool = make_pool(tmp_path, dtype="float32")
    states = [exact(read_back(base), part) for part in sorted(pool.iterdir())]
    made = merge(pool, tmp_path / "out", weights=weights)
    for name, value in made.items():
        expected = sum(w * state[name] for w, state in zip(weights, states, strict=True)) / sum(weights)
        assert torch.allclose(value.double(), expected, rtol=0, atol=2e-8), name


def test_weights_that_cancel_among_the_adapters_leave_the_whole_model_and_their_difference(tmp_path):
    base, pool = make_pool(tmp_path, 2, 1, dtype="float32")
    left, right, whole = (
        exact(read_back(base), part) if part.name.startswith("adapter") else read_back(part)
        for part in sorted(pool.iterdir())
    )
    for name, value in merge(pool, tmp_path / "out", weights=[1.0, -1.0, 1.0]).items():
        expected = left[name] - right[name] + whole[name]
        assert torch.allclose(value.double(), expected.double(), rtol=0, atol=2e-8), name


METHOD = """
from dataclasses import dataclass
from soup.merging.methods import Method

@dataclass(frozen=True)
class Arithmetic(Method):
    scale: float = 0.5
    needs_base = True

    def __call__(self, block):
        base = block.base
        return base + self.scale * sum(block[i] - base for i in range(len(block)))
"""


@pytest.mark.parametrize("block_elements", [None, 7])
def test_any_method_sees_the_adapted_values(tmp_path, block_elements):
    base, pool = make_pool(tmp_path, 2, 1, dtype="float32")
    (tmp_path / "mine.py").write_text(METHOD)
    options = MergeOptions(trust_code=True, block_elements=block_elements)
    made = merge(pool, tmp_path / "out", options, method=f"{tmp_path / 'mine.py'}:Arithmetic", base=base)
    plain = read_back(base)
    states = [
        exact(plain, part) if part.name.startswith("adapter") else read_back(part) for part in sorted(pool.iterdir())
    ]
    for name, value in made.items():
        expected = plain[name].double() + 0.5 * sum(state[name].double() - plain[name].double() for state in states)
        assert torch.allclose(value.double(), expected, rtol=0, atol=2e-8), name


def test_the_same_merge_again_finds_its_soup(tmp_path):
    _, pool = make_pool(tmp_path)
    recipe = recipe_of(pool)
    first = soup.merge(recipe, tmp_path / "out")
    when = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    assert soup.merge(recipe, tmp_path / "out") == first
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == when


def test_another_base_than_the_recipe_names_is_refused(tmp_path):
    base, pool = make_pool(tmp_path)
    soup.merge(recipe_of(pool), tmp_path / "out")
    tiny_checkpoint(base, seed=3, tensors=TENSORS)
    with pytest.raises(RecipeError, match=r"base \(.*\): expected xxh3:"):
        soup.merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again")


def test_a_base_that_is_not_there_is_told_before_the_adapters_that_wait_for_it(tmp_path):
    for number in range(30):
        write_adapter(tmp_path / "pool" / f"a{number:02}", linear_factors(TARGETS), tmp_path / "gone")
    with pytest.raises(CheckpointError, match=rf"can't be opened:\n  - {tmp_path}/gone: no such directory"):
        Pool(tmp_path / "pool")
