"""The soup of adapters as one adapter: what it adds is what the soup adds, for soup and for PEFT."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

import soup
from soup.errors import OutputError, PoolError, RecipeError
from soup.merging.options import MergeOptions, WriteOptions
from soup.testing import tiny_checkpoint
from tests.helpers.merge_oracle import read_back, recipe_of, same_bits
from tests.helpers.tiny_adapters import exact, linear_factors, mean_of, write_adapter

TARGETS = {"model.layers.0.up.weight": (33, 17), "model.layers.0.down.weight": (17, 33)}
TENSORS = {**TARGETS, "model.norm.weight": (17,)}


def make_pool(folder, configs, dtype="bfloat16", factors=linear_factors):
    base = tiny_checkpoint(folder / "base", seed=99, dtype=dtype, tensors=TENSORS)
    for seed, config in enumerate(configs):
        made = factors(TARGETS, config["r"], seed=seed, dtype="bfloat16")
        write_adapter(folder / "pool" / f"a{seed}", made, base, **config)
    return base, folder / "pool"


def as_adapter(pool, out, how="exact", weights=None, **fields):
    soup.merge(recipe_of(pool, weights, **fields), out, write=WriteOptions(as_adapter=how))
    return json.loads((out / "adapter_config.json").read_text())


def assert_holds_the_soup(folder, pool, weights=None):
    soup.merge(recipe_of(pool, weights), folder / "soup")
    config = as_adapter(pool, folder / "one" / "adapter", weights=weights)
    soup.merge(recipe_of(folder / "one"), folder / "again")
    expected, made = read_back(folder / "soup"), read_back(folder / "again")
    assert made.keys() == expected.keys()
    assert all(same_bits(value, expected[name]) for name, value in made.items())
    return config


@pytest.mark.parametrize(
    ("configs", "weights"),
    [
        ([{"r": 4, "lora_alpha": 8}] * 3, None),
        ([{"r": 4, "lora_alpha": 8}, {"r": 2, "lora_alpha": 3}, {"r": 8, "lora_alpha": 4, "use_rslora": True}], None),
        ([{"r": 4, "lora_alpha": 8}, {"r": 2, "lora_alpha": 8}], [0.75, 0.5]),
        ([{"r": 4, "lora_alpha": 8}, {"r": 2, "lora_alpha": 8}], [-0.5, 1.5]),
        ([{"r": 4, "lora_alpha": -8}] * 2, None),
        ([{"r": 4, "lora_alpha": 8, "alpha_pattern": {"up": 5}}] * 2, None),
    ],
    ids=["alike", "mixed", "weighted", "one taken away", "below 0", "patterns"],
)
def test_one_adapter_gives_the_model_that_the_soup_gives(tmp_path, configs, weights):
    _, pool = make_pool(tmp_path, configs)
    config = assert_holds_the_soup(tmp_path, pool, weights)
    assert config["r"] == sum(each["r"] for each in configs)


def test_modules_of_another_rank_than_most_have_theirs(tmp_path):
    base, pool = make_pool(tmp_path, [{"r": 4, "lora_alpha": 8}] * 2)
    up = dict(list(TARGETS.items())[:1])
    write_adapter(pool / "up", linear_factors(up, 4, seed=7, dtype="bfloat16"), base, r=4, lora_alpha=8)
    config = assert_holds_the_soup(tmp_path, pool)
    assert {config["r"], *config["rank_pattern"].values()} == {8, 12}


def test_adapters_that_were_trained_alike_keep_the_bits_of_their_factors(tmp_path):
    _, pool = make_pool(tmp_path, [{"r": 4, "lora_alpha": 8}] * 3)
    as_adapter(pool, tmp_path / "one")
    made = load_file(tmp_path / "one" / "adapter_model.safetensors")
    parts = [load_file(pool / f"a{i}" / "adapter_model.safetensors") for i in range(3)]
    key = "base_model.model.model.layers.0.up.lora_{}.weight"
    assert same_bits(made[key.format("A")], torch.cat([part[key.format("A")] for part in parts]))
    assert same_bits(made[key.format("B")], torch.cat([part[key.format("B")] for part in parts], 1))


def test_factors_of_several_dtypes_are_written_in_the_one_that_holds_them(tmp_path):
    base, pool = make_pool(tmp_path, [{"r": 4, "lora_alpha": 8}], dtype="float32")
    write_adapter(pool / "a1", linear_factors(TARGETS, 4, seed=1), base, lora_alpha=8)
    assert_holds_the_soup(tmp_path, pool)


EMBEDDINGS, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


def embedding_factors(seed, **whole):
    a, b = (tensor * 5 for tensor in linear_factors({"": (4, 8)}, 2, seed=seed).values())
    return {"model.embed_tokens.lora_embedding_A": a, "model.embed_tokens.lora_embedding_B": b, **whole}


def test_the_base_s_embeddings_beside_their_factors_must_be_the_base_s(tmp_path):
    values = torch.arange(32.0).reshape(8, 4)
    base = tiny_checkpoint(tmp_path / "base", tensors={EMBEDDINGS: values}, config={"tie_word_embeddings": False})
    for seed in (0, 1):
        factors = embedding_factors(seed, **{"model.embed_tokens.base_layer.weight": values})
        write_adapter(tmp_path / "pool" / f"a{seed}", factors, base, r=2, target_modules=["embed_tokens"])
    assert_holds_the_soup(tmp_path, tmp_path / "pool")
    factors["model.embed_tokens.base_layer.weight"] = values + 1
    write_adapter(tmp_path / "pool" / "a1", factors, base, r=2, target_modules=["embed_tokens"])
    with pytest.raises(PoolError, match=r"are not the base's.*\n  - a1: base_model\.\S+\nWithout the option"):
        as_adapter(tmp_path / "pool", tmp_path / "other")


@pytest.mark.parametrize("saved", [["embed_tokens"], ["lm_head"]], ids=str)
def test_ends_that_one_adapter_unties_are_both_stored(tmp_path, saved):
    shapes = {EMBEDDINGS: (8, 4), "model.up.weight": (6, 4)}
    base = tiny_checkpoint(tmp_path / "base", tensors=shapes, dtype="float32", config={"tie_word_embeddings": True})
    name = {"embed_tokens": EMBEDDINGS, "lm_head": OUTPUT}[saved[0]]
    factors = {**linear_factors({"model.up.weight": (6, 4)}, 2), name: torch.ones(8, 4)}
    write_adapter(tmp_path / "pool" / "a0", factors, base, r=2, modules_to_save=saved)
    write_adapter(tmp_path / "pool" / "a1", linear_factors({"model.up.weight": (6, 4)}, 2, 1), base, r=2)
    config = assert_holds_the_soup(tmp_path, tmp_path / "pool")
    assert config["modules_to_save"] == saved


def test_ends_that_one_adapter_keeps_tied_stay_so(tmp_path):
    shapes = {EMBEDDINGS: (8, 4), "model.up.weight": (6, 4)}
    base = tiny_checkpoint(tmp_path / "base", tensors=shapes, dtype="float32", config={"tie_word_embeddings": True})
    ends = {EMBEDDINGS: torch.ones(8, 4), OUTPUT: torch.ones(8, 4)}
    saved = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    write_adapter(tmp_path / "pool" / "a0", {**linear_factors({"model.up.weight": (6, 4)}), **ends}, base, **saved)
    write_adapter(tmp_path / "pool" / "a1", linear_factors({"model.up.weight": (6, 4)}, seed=1), base)
    config = assert_holds_the_soup(tmp_path, tmp_path / "pool")
    assert {key: config[key] for key in saved} == saved
    stored = load_file(tmp_path / "one" / "adapter" / "adapter_model.safetensors")
    assert {f"base_model.model.{EMBEDDINGS}", f"base_model.model.{OUTPUT}"} < stored.keys(), "PEFT looks for both"


def test_peft_loads_the_adapter_and_merges_what_soup_merges(tmp_path):
    from peft import PeftModel
    from torch import nn

    base, pool = make_pool(tmp_path, [{"r": 4, "lora_alpha": 8}, {"r": 2, "lora_alpha": 3}], dtype="float32")
    up = dict(list(TARGETS.items())[:1])
    write_adapter(pool / "up", linear_factors(up, 4, seed=7), base, r=4, lora_alpha=8)  # so that ranks differ
    as_adapter(pool, tmp_path / "one")
    module = nn.Module()
    module.model = nn.Module()
    module.model.layers = nn.ModuleList([nn.Module()])
    layer = module.model.layers[0]
    layer.up, layer.down = nn.Linear(17, 33, bias=False), nn.Linear(33, 17, bias=False)
    module.load_state_dict({name: value for name, value in read_back(base).items() if name in TARGETS})
    made = PeftModel.from_pretrained(module, tmp_path / "one").merge_and_unload().state_dict()
    expected = mean_of([exact(read_back(base), part) for part in sorted(pool.iterdir())])
    assert all(torch.allclose(value.double(), expected[name], rtol=0, atol=1e-6) for name, value in made.items())


def test_a_smaller_rank_is_the_nearest_and_tells_how_far_it_is(tmp_path, capsys):
    from soup.merging.merge import open_pool, write_soup
    from soup.merging.plan import plan_merge

    base, pool = make_pool(tmp_path, [{"r": 4, "lora_alpha": -8}] * 2, dtype="float32")
    recipe, remarks = recipe_of(pool), []
    with open_pool(recipe) as opened:
        plan = plan_merge(recipe, opened, write=WriteOptions(as_adapter="rank=3"))
        write_soup(plan, tmp_path / "one" / "adapter", on_remark=remarks.append)
    plain = {name: value.double() for name, value in read_back(base).items()}
    whole = mean_of([exact(plain, part) for part in sorted(pool.iterdir())])
    small = exact(plain, tmp_path / "one" / "adapter")
    made = load_file(tmp_path / "one" / "adapter" / "adapter_model.safetensors")
    assert {value.dtype for value in made.values()} == {torch.float32}, "its factors are none of the adapters'"
    lost = kept = best = 0.0
    for name in TARGETS:
        values = torch.linalg.svdvals(whole[name] - plain[name]).square()
        best += values[3:].sum().item()
        kept += values.sum().item()
        lost += (small[name] - whole[name]).square().sum().item()
    assert lost == pytest.approx(best, rel=1e-4)
    assert f"{math.sqrt(lost / kept):.2%} of its norm" in remarks[0]
    assert f"{math.sqrt(lost / kept):.2%}" in (tmp_path / "one" / "adapter" / "README.md").read_text()


@pytest.mark.parametrize("how", ["exact", "rank=12", "rank=8"])
def test_an_adapter_that_holds_the_whole_soup_is_not_told_to_differ_from_it(tmp_path, capsys, how):
    _, pool = make_pool(tmp_path, [{"r": 4, "lora_alpha": 8}, {"r": 4, "lora_alpha": 8}], dtype="float32")
    as_adapter(pool, tmp_path / "one", how)
    assert "differs from the soup" not in capsys.readouterr().err + (tmp_path / "one" / "README.md").read_text()


def test_whole_tensors_are_averaged_and_stored(tmp_path):
    def factors(shapes, rank, **fields):
        norm = torch.full((17,), 1.0 + fields["seed"])
        return {**linear_factors(shapes, rank, **fields), "model.norm.weight": norm}

    _, pool = make_pool(tmp_path, [{"r": 4, "modules_to_save": ["norm"]}] * 2, factors=factors)
    config = as_adapter(pool, tmp_path / "one")
    assert config["modules_to_save"] == ["norm"]
    made = load_file(tmp_path / "one" / "adapter_model.safetensors")
    assert made["base_model.model.model.norm.weight"].tolist() == [1.5] * 17


def test_parameters_that_are_no_modules_are_refused_with_what_to_do(tmp_path):
    _, pool = make_pool(tmp_path, [{"r": 4, "target_parameters": ["up.weight"]}])
    with pytest.raises(RecipeError, match=r"target_parameters.*\nWithout `as_adapter` it is written as a whole model"):
        as_adapter(pool, tmp_path / "one")


def test_what_is_no_adapter_is_refused_with_all_reasons(tmp_path):
    base, pool = make_pool(tmp_path, [{"r": 4}])
    tiny_checkpoint(pool / "whole", tensors=TENSORS)
    dora = {
        **linear_factors(TARGETS),
        "model.layers.0.up.lora_magnitude_vector": torch.ones(33),
        "model.layers.0.down.lora_magnitude_vector": torch.ones(17),
    }
    write_adapter(pool / "dora", dora, base, use_dora=True)
    with pytest.raises(RecipeError) as refused:
        as_adapter(pool, tmp_path / "one")
    assert "whole: a whole model" in str(refused.value)
    assert "dora: DoRA" in str(refused.value)


@pytest.mark.parametrize("how", ["", "rank=0", "rank=x", "rank", "8"])
def test_other_words_for_the_adapter_are_refused(how):
    with pytest.raises(RecipeError, match="expected exact or rank=R"):
        WriteOptions(as_adapter=how)


def test_the_recipe_beside_an_adapter_makes_the_whole_soup(tmp_path):
    _, pool = make_pool(tmp_path, [{"r": 4, "lora_alpha": 8}] * 2)
    as_adapter(pool, tmp_path / "one")
    soup.merge(tmp_path / "one" / "recipe.yaml", tmp_path / "again", merge=MergeOptions())
    soup.merge(recipe_of(pool), tmp_path / "soup")
    expected = read_back(tmp_path / "soup")
    assert all(same_bits(value, expected[name]) for name, value in read_back(tmp_path / "again").items())


def test_a_factor_with_nan_and_dropped_tensors_are_refused(tmp_path):
    base, pool = make_pool(tmp_path, [{"r": 4, "lora_alpha": 8}] * 2)
    with pytest.raises(RecipeError, match="leaves tensors out, which an adapter can't"):
        as_adapter(pool, tmp_path / "one", drop=("*norm*",))
    factors = linear_factors(TARGETS, dtype="bfloat16")
    factors["model.layers.0.up.lora_A.weight"][0, 0] = torch.nan
    write_adapter(pool / "a1", factors, base, lora_alpha=8)
    for how in ("exact", "rank=3"):
        with pytest.raises(PoolError, match=r"model\.layers\.0\.up: NaN or infinity in a factor"):
            as_adapter(pool, tmp_path / "one", how)
        assert not (tmp_path / "one").exists()
        write = WriteOptions(as_adapter=how)
        soup.merge(recipe_of(pool), tmp_path / how, merge=MergeOptions(allow_nonfinite=True), write=write)
        made = load_file(tmp_path / how / "adapter_model.safetensors")
        assert {name.split(".")[5] for name, value in made.items() if not value.isfinite().all()} == {"up"}


@pytest.mark.parametrize("how", ["exact", "rank=3"])
def test_an_adapter_that_stands_there_already_is_left_and_another_is_never_replaced(tmp_path, how):
    _, pool = make_pool(tmp_path, [{"r": 4}, {"r": 2}])
    as_adapter(pool, tmp_path / "one", how)
    card = tmp_path / "one" / "README.md"
    card.write_text("mine")
    as_adapter(pool, tmp_path / "one", how)
    assert card.read_text() == "mine"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        path = tmp_path / "one" / name
        data = path.read_bytes()
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
        with pytest.raises(OutputError, match="exists and is not empty"):
            as_adapter(pool, tmp_path / "one", how)
        path.write_bytes(data)
    with pytest.raises(OutputError, match="exists and is not empty"):
        as_adapter(pool, tmp_path / "one", "rank=1")
