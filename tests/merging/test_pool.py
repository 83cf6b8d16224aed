"""A pool as a new user brings it: `soup check` tells all that is wrong with it at once, and means what it is asked."""

from __future__ import annotations

import json
import re
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import soup
from soup.checkpoints.tied import EMBEDDINGS, OUTPUT
from soup.cli.app import cli
from soup.errors import CheckpointError, PoolError, RecipeError, SoupError
from soup.evaluation.progress import Progress
from soup.merging.merge import open_pool
from soup.merging.options import MergeOptions
from soup.merging.pool import Pool
from soup.merging.recipe import CheckpointSource, Recipe
from soup.report.pool_check import check as check_pool
from soup.testing import tiny_checkpoint
from tests.helpers.toy_pools import make_checkpoint, make_pool


@pytest.fixture
def pool(tmp_path):
    return make_pool(tmp_path / "ckpts")


def check(pool, dtype=None, drop=(), **more):
    return check_pool(str(pool), merge=MergeOptions(dtype=dtype, drop=drop, **more))


def sentences(report):
    return tuple(map(str, report.problems))


def rewrite(checkpoint, change):
    file = checkpoint / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def test_check_holds_the_others_against_each_other_where_one_cannot_be_opened(pool):
    (pool / "b/model.safetensors").write_bytes(b"")
    rewrite(pool / "d", lambda tensors: tensors | {"extra": np.zeros(1, np.float32)})
    report = check(pool)
    assert report.ingredients == (*"abcd",)
    broken, extra = sentences(report)
    assert "b/model.safetensors: truncated" in broken
    assert extra == "d: 1 tensor that a has not: extra. `exclude` leaves d out, `drop` leaves the tensors out"


def tied(path, rows, has_output, tie=True):
    ends = {f"model.{EMBEDDINGS}": (rows, 4), **({OUTPUT: (rows, 4)} if has_output else {})}
    tiny_checkpoint(path, tensors=ends | {"model.norm.weight": (4,)})
    (path / "config.json").write_text(json.dumps({"model_type": "x", "tie_word_embeddings": tie}))


@pytest.mark.parametrize("first", [True, False])
def test_a_copy_of_tied_embeddings_that_only_one_saved_is_told_as_such_and_the_cure_cures(tmp_path, first):
    tied(tmp_path / "a", 8, first)
    tied(tmp_path / "b", 8, not first)
    (problem,) = check(tmp_path).problems
    assert problem.cure == "It is a copy of the embeddings, to which it is tied: `drop` lm_head.weight leaves it out"
    assert check(tmp_path, drop=["lm_head.weight"]).ok


def test_an_output_layer_that_is_not_tied_is_no_copy(tmp_path):
    tied(tmp_path / "a", 8, has_output=True, tie=False)
    tied(tmp_path / "b", 8, has_output=False, tie=False)
    assert "copy" not in check(tmp_path).problems[0].cure


def test_a_grown_vocabulary_is_told_with_the_way_to_as_many_tokens_and_not_to_a_model_without_embeddings(tmp_path):
    for name, rows in (("a", 8), ("b", 9)):
        tied(tmp_path / name, rows, has_output=True)
    problems = check(tmp_path).problems
    assert {problem.kind for problem in problems} == {"shape"}
    assert all("model.resize_token_embeddings(9)" in problem.cure for problem in problems)
    assert not any("drop" in problem.cure for problem in problems)


def test_check_of_a_pool_that_cannot_be_opened_at_all_lists_every_reason(pool):
    for name in "abcd":
        (pool / name / "model.safetensors").write_bytes(b"")
    with pytest.raises(PoolError) as caught:
        check(pool)
    assert str(caught.value).count("truncated") == 4


def test_check_takes_nan_for_granted_where_the_merge_was_asked_to(pool):
    rewrite(pool / "c", lambda tensors: tensors | {"head": np.full(4, np.nan, np.float32)})
    assert sentences(check(pool)) == ("c: head: NaN or infinity. `allow_nonfinite` merges them all the same",)
    assert sentences(check(pool, allow_nonfinite=True)) == ()


def test_check_refuses_a_dtype_that_no_merge_would_take(pool):
    with pytest.raises(RecipeError, match="Did you mean 'bfloat16'"):
        check(pool, "bf17")


def test_a_dtype_that_differs_throughout_is_one_line_that_hides_no_other(tmp_path):
    tensors = {f"layer.{i}": np.zeros(3, np.float32) for i in range(200)}
    make_checkpoint(tmp_path / "ckpts/a", tensors=tensors)
    make_checkpoint(tmp_path / "ckpts/b", tensors={name: value.astype(np.float16) for name, value in tensors.items()})
    make_checkpoint(tmp_path / "ckpts/c", tensors=tensors | {"layer.7": np.zeros(4, np.float32)})
    recast, reshaped = sentences(check(tmp_path / "ckpts"))
    assert recast.startswith("b: expected float32 as in a, found float16 in 200 tensors: layer.0, ")
    assert recast.endswith(", ... and 192 more. `dtype` merges mixed floating dtypes")
    assert reshaped.startswith("c: layer.7: expected float32[3] as in a, found float32[4]. ")
    assert sentences(check(tmp_path / "ckpts", "float32")) == (reshaped,)


def test_packed_numbers_are_not_offered_a_dtype(tmp_path):
    make_checkpoint(tmp_path / "ckpts/a", tensors={"w": np.zeros(4, np.float32)})
    make_checkpoint(tmp_path / "ckpts/b", tensors={"w": np.zeros(4, np.int8)})
    (only,) = sentences(check(tmp_path / "ckpts"))
    assert only == "b: w: expected float32[4] as in a, found int8[4]"


def test_of_a_quantised_checkpoint_nothing_is_told_but_that_and_the_others_are_held_against_each_other(tmp_path):
    packed = {"w.weight": np.zeros((4, 1), np.uint8), "w.weight.absmax": np.zeros(2, np.uint8), "n": np.ones(2, "f4")}
    whole = {"w.weight": np.ones((2, 4), np.float32), "n": np.ones(2, np.float32)}
    make_checkpoint(tmp_path / "ckpts/a", tensors=packed)
    make_checkpoint(tmp_path / "ckpts/b", tensors=packed | {"w.weight": np.ones((6, 1), np.uint8)})
    make_checkpoint(tmp_path / "ckpts/c", tensors=whole)
    make_checkpoint(tmp_path / "ckpts/d", tensors=whole | {"n": np.ones(3, np.float32)})
    first, second, shape = sentences(check(tmp_path / "ckpts"))
    assert first.startswith("a: quantised: 1 tensor")
    assert second.startswith("b: quantised: 1 tensor")
    assert shape.startswith("d: n: expected float32[2] as in c, found float32[3]")
    make_checkpoint(tmp_path / "packed", tensors=packed)
    (only,) = sentences(check_pool(tmp_path / "ckpts/c", base=tmp_path / "packed"))
    assert only.startswith("base: quantised: 1 tensor")


def test_a_base_that_does_not_fit_is_replaced_and_not_left_out(tmp_path):
    whole = {"w.weight": np.ones((2, 4), np.float32), "n": np.ones(2, np.float32)}
    make_checkpoint(tmp_path / "ckpts/a", tensors=whole)
    config = {"rms_norm_eps": 1e-5}
    make_checkpoint(tmp_path / "base", tensors={"w.weight": np.ones((3, 4), np.float32)}, config=config)
    (tmp_path / "ckpts/a/config.json").write_text('{"rms_norm_eps": 1e-6}')
    names, shape, value = sentences(check_pool(tmp_path / "ckpts", base=tmp_path / "base"))
    assert names.endswith("n. `base` takes another base, `drop` leaves the tensors out")
    assert shape.endswith("float32[3, 4]. `base` takes another base, `drop` leaves the tensor out")
    assert value.endswith("Correct the file where it is wrong; `base` takes another base")


def test_a_pattern_of_drop_that_matches_nothing_is_told(pool):
    assert check(pool, drop=["vison.*", "head"]).warnings == ("`drop` vison.*: no tensor has such a name",)


def test_excluding_all_of_a_pool_says_so(pool):
    with pytest.raises(PoolError, match="`exclude` leaves no ingredient"):
        Pool(pool, exclude=[*"abcd"])


def test_all_ingredients_that_a_recipe_misses_are_told_at_once(tmp_path):
    recipe = Recipe.uniform([CheckpointSource(name=name, path=str(tmp_path / name)) for name in ("x", "y")])
    with pytest.raises(CheckpointError, match="2 checkpoints can't be opened") as caught:
        open_pool(recipe)
    assert f"{tmp_path / 'x'}: no such directory" in str(caught.value)
    assert f"{tmp_path / 'y'}: no such directory" in str(caught.value)


def test_a_base_that_cannot_be_opened_is_a_problem_of_the_pool_and_no_ingredient(pool, tmp_path):
    base = make_checkpoint(tmp_path / "base", tensors={"w": np.zeros(1, np.float32)})
    (base / "model.safetensors").write_bytes(b"")
    report = check_pool(str(pool), str(base))
    assert report.ingredients == (*"abcd",)
    assert len(report.problems) == 1
    assert "base/model.safetensors: truncated" in str(report.problems[0])


def test_inspect_says_in_words_that_a_checkpoint_is_quantised(tmp_path):
    config = {"model_type": "toy", "quantization_config": {"quant_method": "bitsandbytes"}}
    make_checkpoint(tmp_path / "packed", tensors={"w": np.zeros(4, np.int8)}, config=config)
    done = CliRunner().invoke(cli, ["inspect", str(tmp_path / "packed")])
    assert done.exit_code == 0
    assert "quantised: config.json has a quantization_config (bitsandbytes)\n" in done.stdout
    assert "model type: toy\n" in done.stdout


def counting(count, positions=3):
    return {
        "w": np.float32([count, 1]),
        "norm.num_batches_tracked": np.array(count),
        "position_ids": np.arange(positions),
    }


def test_a_check_tells_its_warnings_unless_nobody_is_to_hear_them(tmp_path, capsys):
    for count, name in enumerate("ab", start=7):
        make_checkpoint(tmp_path / "ckpts" / name, tensors=counting(count))
    check_pool(tmp_path / "ckpts")
    assert "warning: ingredients differ in 1 counter" in " ".join(capsys.readouterr().err.split())
    check_pool(tmp_path / "ckpts", progress=Progress())
    assert capsys.readouterr().err == ""


def test_counters_that_differ_are_those_of_the_first_ingredient_and_told(tmp_path):
    for count, name in enumerate("abc", start=7):
        make_checkpoint(tmp_path / "ckpts" / name, tensors=counting(count))
    report = check(tmp_path / "ckpts")
    assert report.problems == ()
    expected = "ingredients differ in 1 counter; a soup has its first ingredient's: norm.num_batches_tracked"
    assert report.warnings == (expected,)
    made = soup.cook("average", tmp_path / "ckpts", out=tmp_path / "out")
    assert expected in made.warnings
    merged = load_file(tmp_path / "out/model.safetensors")
    assert merged["norm.num_batches_tracked"] == 7
    assert merged["w"].tolist() == [8, 1]


@pytest.mark.parametrize("name", ["position_ids", "norm.num_batches_tracked.1", "mask"])
def test_other_integers_that_differ_are_refused_before_anything_is_merged_or_scored(tmp_path, name):
    for value, ingredient in enumerate("ab"):
        make_checkpoint(tmp_path / "ckpts" / ingredient, tensors={"w": np.zeros(1), name: np.array([value, 5])})
    (only,) = sentences(check(tmp_path / "ckpts"))
    assert only == f"b: {name}: int64 values can't be averaged, and differ from a's. `drop` leaves the tensor out"
    assert check(tmp_path / "ckpts", drop=[name]).ok
    with pytest.raises(PoolError, match="can't be averaged"):
        soup.cook("greedy", tmp_path / "ckpts", out=tmp_path / "out", eval=lambda checkpoint: 1 / 0)


def test_check_refuses_what_overflows_the_dtype_that_is_asked_for(pool):
    rewrite(pool / "c", lambda tensors: tensors | {"head": np.full(4, 1e5, np.float32)})
    assert check(pool).ok
    (only,) = sentences(check(pool, "float16"))
    assert only == "c: head: the result is too large for float16. A wider `dtype` may hold it"


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"drop": ["*"]}, "drop * leaves no tensor to merge."), ({"method": "linaer"}, "Unknown method 'linaer'")],
)
def test_check_refuses_what_no_merge_could_plan(pool, options, reason):
    (only,) = sentences(check_pool(str(pool), merge=MergeOptions(**options)))
    assert reason in only


def test_nan_in_a_tensor_that_is_dropped_is_no_problem(pool):
    rewrite(pool / "c", lambda tensors: tensors | {"head": np.full(4, np.nan, np.float32)})
    assert check(pool, drop=["head"]).ok


def bpe(*merges, **more):
    return {"model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": list(merges), **more}, "added_tokens": []}


def test_bpe_merges_as_texts_and_as_pairs_are_the_same_tokenizer(tmp_path):
    """tokenizers 0.19 and before wrote "a b", later ones write ["a", "b"]."""
    for name, merges in {"a": ["a b", "ab a"], "b": [["a", "b"], ["ab", "a"]], "c": [["ab", "a"], ["a", "b"]]}.items():
        make_checkpoint(tmp_path / "ckpts" / name, tokenizer=bpe(*merges))
    (only,) = sentences(check(tmp_path / "ckpts"))
    assert only.startswith("c: the tokenizer is not a's: tokenizer.json: merges differ. ")


PREFIXES = {
    "_orig_mod.": lambda name: f"_orig_mod.{name}",
    "module.": lambda name: f"module.{name}",
    "base_model.model.": lambda name: f"base_model.model.{name}",
    "model._orig_mod.": lambda name: re.sub(r"^model\.", "model._orig_mod.", name),
}
QWEN = ["model.visual.blocks.0.attn.qkv.weight", "model.language_model.layers.0.mlp.weight", "lm_head.weight"]


def qwen(rename):
    return {rename(name): np.ones(number + 2, np.float32) for number, name in enumerate(QWEN)}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_names_of_a_wrapped_model_are_the_same_behind_a_prefix_and_the_cure_cures(tmp_path, prefix):
    make_checkpoint(tmp_path / "ckpts/a", tensors=qwen(str))
    make_checkpoint(tmp_path / "ckpts/b", tensors=qwen(PREFIXES[prefix]))
    (only,) = sentences(check(tmp_path / "ckpts"))
    assert only.startswith(f"b: the same names behind another prefix: `{prefix}` where a has ")
    code = only.split('python -c "')[1].split('"')[0]
    exec(code, {})
    assert load_file(tmp_path / "ckpts/b/model.safetensors").keys() == set(QWEN)
    assert check(tmp_path / "ckpts").ok


def test_names_of_an_older_transformers_are_the_same_behind_other_prefixes(tmp_path):
    old = {"model.visual.": "visual.", "model.language_model.": "model.", "lm_head.": "lm_head."}
    make_checkpoint(tmp_path / "ckpts/a", tensors=qwen(str))
    rename = lambda name: next(name.replace(new, known) for new, known in old.items() if name.startswith(new))  # noqa: E731
    make_checkpoint(tmp_path / "ckpts/b", tensors=qwen(rename))
    (only,) = sentences(check(tmp_path / "ckpts"))
    prefixes = "no prefix where a has `model.` (1), `model.` where a has `model.language_model.` (1)"
    assert only.startswith(f"b: the same names behind another prefix: {prefixes}. Save both with the same version")


def test_other_tensors_are_not_taken_for_the_same_behind_a_prefix(tmp_path):
    make_checkpoint(tmp_path / "ckpts/a", tensors=qwen(str))
    make_checkpoint(tmp_path / "ckpts/b", tensors={f"module.{name}": np.ones(9, np.float32) for name in QWEN})
    missing, extra = sentences(check(tmp_path / "ckpts"))
    assert "b: 3 tensors missing that a has" in missing
    assert "b: 3 tensors that a has not" in extra


def test_a_prefix_that_all_ingredients_have_is_told_before_a_soup_has_it_too(tmp_path):
    for name in "ab":
        make_checkpoint(tmp_path / "ckpts" / name, tensors=qwen(PREFIXES["_orig_mod."]))
    report = check(tmp_path / "ckpts")
    assert report.ok
    assert report.warnings[0].startswith(
        "3 tensors of a have a wrapper's prefix, which no loader knows; a soup has them"
    )


@pytest.mark.parametrize("strategy", ["average", "greedy"])
def test_frequencies_of_a_rotary_embedding_keep_float32_in_a_soup_of_another_dtype(tmp_path, strategy):
    frequencies = np.float32(1) / np.float32(10000) ** (np.arange(8, dtype=np.float32) / 8)
    for number, name in enumerate("ab"):
        tensors = {"w": np.full(3, number, np.float32), "layers.0.rotary_emb.inv_freq": frequencies}
        make_checkpoint(tmp_path / "ckpts" / name, tensors=tensors)
    scored = {"eval": lambda checkpoint: 50} if strategy == "greedy" else {}
    soup.cook(strategy, tmp_path / "ckpts", out=tmp_path / "out", merge=MergeOptions(dtype="float16"), **scored)
    merged = load_file(tmp_path / "out/model.safetensors")
    assert merged["w"].dtype == np.float16
    assert np.array_equal(merged["layers.0.rotary_emb.inv_freq"], frequencies)
    assert merged["layers.0.rotary_emb.inv_freq"].dtype == np.float32
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float16"


@pytest.mark.parametrize("locations", [[], [None], b"ckpts", None, 3])
@pytest.mark.parametrize(
    "use", [soup.Pool, soup.check, partial(soup.cook, "average"), partial(soup.evaluate, eval="x")]
)
def test_what_names_no_checkpoints_is_refused_in_words(use, locations):
    with pytest.raises(SoupError, match="pool: expected"):
        use(locations)


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"block_elements": -1}, {"drop": [1]}, {"method_args": {1: 2}}], ids=str
)
def test_options_of_a_merge_that_no_merge_could_have_are_refused_when_they_are_made(options):
    with pytest.raises(RecipeError, match=f"{next(iter(options))}.*: expected"):
        soup.MergeOptions(**options)
