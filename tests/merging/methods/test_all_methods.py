"""What every method promises: methods x properties."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import soup
from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.reader import Checkpoint
from soup.cli.app import cli
from soup.errors import PoolError, RecipeError
from soup.merging import kernel_library
from soup.merging.method_building import build_method
from soup.merging.options import MergeOptions
from soup.merging.recipe import CheckpointSource, Recipe
from soup.support.plugins import METHODS
from soup.testing import check_method, tiny_checkpoint
from tests.helpers.merge_oracle import same_bits
from tests.helpers.method_pools import FROZEN, make_pool, merge, numbers

CASES = {
    "linear": {},
    "task-arithmetic": {"scale": 0.7},
    "task-arithmetic by component": {"components": {"vision": 0.5, "llm": 1.5}, "beta": 0.3, "alpha": 0.8},
    "task-arithmetic auto": {"alpha": "auto", "beta": 0.4, "normalize": False, "scale": 0.3},
    "ties": {"density": 0.3},
    "ties by tensor": {"scope": "tensor", "merge": "sum", "density": 0.5, "alpha": "auto"},
    "dare": {"p": 0.4},
    "dare elect": {"p": 0.6, "elect": True},
    "consensus": {},
    "model-stock": {},
    "model-stock by block": {"scope": "block"},
    "karcher": {},
    "karcher around base": {"around": "base", "unit": "row"},
    "iso-c": {},
    "swudi": {"time": 30.0},
    "swudi participation": {"rank": "participation", "start": "sum"},
    "knots": {"full": True},
}
ON_DELTAS = [case for case in CASES if case not in ("linear", "karcher")]
EIGENVECTORS = ("iso-c", "swudi", "knots")


def method_of(case):
    return case.split(" ")[0]


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    made = {}

    def of(dtype):
        if dtype not in made:
            made[dtype] = make_pool(tmp_path_factory.mktemp("pool"), dtype=dtype)
        return made[dtype]

    return of


def test_every_method_is_in_the_table_of_cases():
    assert {method_of(case) for case in CASES} == set(METHODS.shipped)


@pytest.mark.parametrize("case", CASES)
def test_check_method_passes(case):
    recipe = Recipe.uniform([CheckpointSource(name="a", path="a")]).model_copy(
        update={"method": method_of(case), "params": CASES[case]}
    )
    try:
        method = build_method(recipe)
    except RecipeError:  # of one ingredient
        recipe = Recipe.uniform([CheckpointSource(name=n, path=n) for n in "ab"]).model_copy(
            update={"method": method_of(case), "params": CASES[case]}
        )
        method = build_method(recipe)
    check_method(method)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_blocks_and_threads_change_no_byte(pools, case, dtype):
    folder, results = pools(dtype), []
    for number, (block, threads) in enumerate([(None, 2), (7, 1), (4096, 3)]):
        options = MergeOptions(block_elements=block, threads=threads)
        out = f"{case}-{number}"
        results.append(merge(folder, method_of(case), out, options=options, **CASES[case]))
        made = digest_checkpoint(Checkpoint(folder / out)).content
        assert soup.Recipe.read(folder / out / "recipe.yaml").result_digest == made
    for other in results[1:]:
        assert all(same_bits(other[name], results[0][name]) for name in results[0])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_the_bytes_are_the_same_without_the_compiled_library(pools, case, dtype, monkeypatch):
    compiled_bytes = merge(pools(dtype), method_of(case), f"{case}-compiled", **CASES[case])
    monkeypatch.setattr(kernel_library, "load_library", lambda: None)
    torch_bytes = merge(pools(dtype), method_of(case), f"{case}-torch", **CASES[case])
    assert all(same_bits(torch_bytes[name], compiled_bytes[name]) for name in torch_bytes)


@pytest.mark.parametrize("case", CASES)
def test_shards_cut_in_another_way_change_no_value(tmp_path, case):
    folder = make_pool(tmp_path, dtype=torch.bfloat16)
    whole = merge(folder, method_of(case), **CASES[case])
    for name in ("base", "ckpts/m1"):
        tensors = load_file(folder / name / "model.safetensors")
        (folder / name / "model.safetensors").unlink()
        tiny_checkpoint(folder / name, tensors=tensors, shards=3)
    recipe = soup.Recipe.read(folder / "out/recipe.yaml")
    soup.merge(recipe.model_copy(update={"side_digest": None}), folder / "cut")
    cut = {}
    for file in (folder / "cut").glob("*.safetensors"):
        cut |= load_file(file)
    assert all(same_bits(cut[name], whole[name]) for name in whole)


@pytest.mark.parametrize("case", CASES)
def test_what_all_agree_on_with_the_base_keeps_its_bits(pools, case):
    folder = pools(torch.bfloat16)
    merged = merge(folder, method_of(case), f"frozen {case}", **CASES[case])
    base = load_file(folder / "base/model.safetensors")
    assert same_bits(merged[FROZEN], base[FROZEN])


@pytest.mark.parametrize("case", CASES)
def test_copies_of_the_base_give_the_base(tmp_path, case):
    folder = make_pool(tmp_path, dtype=torch.bfloat16, spread=0.0)
    merged, base = merge(folder, method_of(case), **CASES[case]), load_file(folder / "base/model.safetensors")
    assert all(same_bits(merged[name], base[name]) for name in base)


@pytest.mark.parametrize("case", CASES)
def test_whole_numbers_are_those_that_the_ingredients_agree_on_whatever_the_base_has(tmp_path, case):
    folder = make_pool(tmp_path, shapes={"model.language_model.layers.0.mlp.weight": (6, 4)})
    for name, last in (("base", 7), ("ckpts/m0", 2), ("ckpts/m1", 2), ("ckpts/m2", 2)):
        held = load_file(folder / name / "model.safetensors")
        tiny_checkpoint(folder / name, tensors=held | {"positions": torch.tensor([0, 1, last])})
    assert soup.check(folder / "ckpts", base=folder / "base").problems == ()
    merged = merge(folder, method_of(case), **CASES[case])
    assert merged["positions"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("case", CASES)
def test_one_ingredient_and_odd_shapes_are_merged_or_refused_by_a_sentence(tmp_path, case):
    folder = make_pool(tmp_path, count=1)
    if method_of(case) == "model-stock":
        with pytest.raises(RecipeError, match="two ingredients or more"):
            merge(folder, "model-stock")
        return
    merged = merge(folder, method_of(case), **CASES[case])
    assert all(value.isfinite().all() for value in merged.values())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("case", CASES)
def test_an_ingredient_with_nan_or_infinity_is_named_with_the_tensor(tmp_path, case, value):
    spoilt = "model.language_model.layers.1.mlp.weight"
    folder = make_pool(tmp_path)
    tensors = load_file(folder / "ckpts" / "m1" / "model.safetensors")
    tensors[spoilt][-1, -1] = value
    tiny_checkpoint(folder / "ckpts" / "m1", tensors=tensors)
    options = MergeOptions(block_elements=50)  # the other blocks hold finite numbers
    with pytest.raises(PoolError, match=rf"^1 tensor can't be merged:\n  - m1: {spoilt}: NaN or infinity\."):
        merge(folder, method_of(case), options=options, **CASES[case])
    allowed = MergeOptions(block_elements=50, allow_nonfinite=True)
    made = merge(folder, method_of(case), "allowed", options=allowed, **CASES[case])
    assert {name for name, result in made.items() if not result.isfinite().all()} == {spoilt}


@pytest.mark.parametrize("case", ON_DELTAS)
def test_a_missing_base_is_refused(pools, case):
    folder = pools(torch.float32)
    options = MergeOptions(method=method_of(case), method_args=CASES[case])
    with pytest.raises(RecipeError, match="needs the base"):
        soup.cook("average", folder / "ckpts", out=folder / "refused", merge=options)


@pytest.mark.parametrize("case", [case for case in CASES if method_of(case) not in EIGENVECTORS])
def test_the_order_of_ingredients_hardly_matters(pools, case):
    folder = pools(torch.float32)
    one = merge(folder, method_of(case), f"one {case}", **CASES[case])
    pool = sorted((folder / "ckpts").iterdir(), reverse=True)
    recipe = soup.Recipe.read(folder / f"one {case}" / "recipe.yaml")
    turned = recipe.model_copy(update={"ingredients": tuple(reversed(recipe.ingredients)), "side_digest": None})
    assert [share.name for share in turned.ingredients] == [path.name for path in pool]
    soup.merge(turned, folder / f"turned {case}")
    other = load_file(folder / f"turned {case}" / "model.safetensors")
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_candidate_holds_the_bytes_that_ship(tmp_path, case):
    folder = make_pool(tmp_path, dtype=torch.bfloat16)
    seen = []

    def score(checkpoint):
        seen.append(load_file(f"{checkpoint}/model.safetensors"))
        return 50

    options = MergeOptions(method=method_of(case), method_args=CASES[case])
    base = folder / "base"
    soup.cook("average", folder / "ckpts", base=base, out=folder / "out", eval=score, merge=options)
    shipped = load_file(folder / "out/model.safetensors")
    assert all(same_bits(seen[-1][name], shipped[name]) for name in shipped)


WRONG = {
    "task-arithmetic": [
        ({"scale": 3}, r"scale: expected a number from -1 to 2, found 3"),
        ({"scale": "x"}, "scale: Input should be a valid number, unable to parse string as a number, found 'x'"),
        ({"beta": -1}, "beta: expected a number from 0"),
        ({"beta": 1.6}, "beta: expected a number from 0 to 1.5"),
        ({"alpha": 2.5}, "alpha: expected a number from -2 to 2, found 2.5"),
        ({"components": {"tower": 1}}, "components"),
        ({"components": {"llm": [1, 2]}}, "one for each of the 3 ingredients"),
        ({"sclae": 1}, r"sclae: no such parameter\. Did you mean 'scale'\? Known: "),
    ],
    "linear": [({"components": {"llm": [1, -1, 0]}}, r"sum of the weights of llm, and .* sum to 0")],
    "ties": [
        ({"components": {"llm": [1, -1, 2]}}, r"components: llm: expected numbers from 0 where signs are elected"),
        ({"density": 0}, "above 0 and up to 1"),
        ({"scale": 2.5}, "scale: expected a number from 0 to 2, found 2.5"),
        ({"density": 1.1}, "density"),
        ({"scope": "block"}, "scope"),
    ],
    "dare": [
        ({"components": {"llm": -1.0}, "elect": True}, "components: llm: expected numbers from 0"),
        ({"p": 1}, r"p: expected a number from 0 to 0.99, found 1"),
        ({"scale": -1.5}, "scale: expected a number from -1 to 2, found -1.5"),
        ({"seed": "x"}, "seed"),
    ],
    "consensus": [({"threshold": 0}, "threshold: expected a number from 0.1"), ({"agree": -1}, "agree: expected")],
    "model-stock": [({"clamp": [0.5, 0.2]}, "clamp: expected two numbers"), ({"scope": "x"}, "scope")],
    "karcher": [({"around": "x"}, "around"), ({"unit": "column"}, "unit")],
    "iso-c": [({"scale": 4}, "scale: expected a number from -3 to 3"), ({"max_side": 1}, "max_side: expected")],
    "swudi": [({"time": -1}, "time: expected"), ({"rank": 0}, "rank: expected"), ({"start": "x"}, "start")],
    "knots": [({"density": 2}, "density: expected"), ({"inner": "x"}, "inner")],
}


@pytest.mark.parametrize(
    ("method", "params", "why"), [(method, *case) for method, cases in WRONG.items() for case in cases]
)
def test_a_wrong_parameter_is_refused_by_a_sentence_before_anything_is_read(pools, method, params, why):
    with pytest.raises(RecipeError, match=why):
        merge(pools(torch.float32), method, "wrong", **params)


def test_parameters_that_are_numbers_of_numpy_are_written_as_yaml_has_them(pools):
    folder = pools(torch.float32)
    params = {"density": np.float64(0.5), "scale": np.float32(1), "components": {"llm": np.array([1.0, 2.0, 3.0])}}
    merge(folder, "ties", "numpy", **params)
    written = soup.Recipe.read(folder / "numpy/recipe.yaml")
    assert written.params == {"density": 0.5, "scale": 1.0, "components": {"llm": [1.0, 2.0, 3.0]}}


@pytest.mark.parametrize("method", ["linear", "task-arithmetic", "dare", "consensus", "iso-c", "swudi"])
def test_weights_that_sum_to_nothing_are_refused(pools, method):
    with pytest.raises(RecipeError, match=r"sum of the weights, and \[1\.0, -1\.0, 0\.0\] sum to 0"):
        merge(pools(torch.float32), method, "nothing", weights=[1.0, -1.0, 0.0])


def test_numbers_are_what_the_files_hold(pools):
    base, tuned = numbers(pools(torch.float32))
    assert len(tuned) == 3
    assert torch.equal(base[FROZEN], tuned[0][FROZEN])


def test_the_page_on_methods_has_a_row_for_each():
    page = (Path(__file__).parents[3] / "docs/methods.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(METHODS.shipped)


IDLE = {
    "components: projector: changes nothing: by the words of their names the tensors belong to llm": [
        ("linear", {"components": {"projector": [1, 2]}}),
        ("task-arithmetic", {"components": {"projector": 0.5, "llm": 2}}),
    ],
    "beta: changes nothing: by their names no tensors stand in a stack of several blocks": [("ties", {"beta": 0.5})],
}


@pytest.mark.parametrize(("text", "method", "params"), [(text, *case) for text in IDLE for case in IDLE[text]])
def test_parameters_that_speak_of_no_tensor_of_the_model_are_told(tmp_path, text, method, params):
    tensors = {"model.layers.0.up.weight": (4, 3), "model.norm.weight": (3,)}
    for seed, path in enumerate(["base", "ckpts/a", "ckpts/b"]):
        tiny_checkpoint(tmp_path / path, seed=seed, tensors=tensors)
    merge = MergeOptions(method=method, method_args=params)
    made = soup.cook("average", tmp_path / "ckpts", base=tmp_path / "base", merge=merge, out=tmp_path / "out")
    assert made.warnings == (text,)
    done = CliRunner().invoke(cli, ["merge", str(tmp_path / "out/recipe.yaml"), "-o", str(tmp_path / "again")])
    assert f"warning: {text}" in done.stderr


def test_parameters_that_speak_of_a_tensor_of_the_model_are_not_told(tmp_path):
    tensors = {f"model.layers.{block}.up.weight": (4, 3) for block in range(2)}
    for seed, path in enumerate(["base", "ckpts/a", "ckpts/b"]):
        tiny_checkpoint(tmp_path / path, seed=seed, tensors=tensors)
    merge = MergeOptions(method="dare", method_args={"beta": 0.5, "components": {"llm": 0.5}})
    made = soup.cook("average", tmp_path / "ckpts", base=tmp_path / "base", merge=merge, out=tmp_path / "out")
    assert not made.warnings
