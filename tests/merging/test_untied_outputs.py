"""Adapters that train embeddings or output layer of a base that ties them, each for itself: the soup is not tied."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText

import soup
from finetune.points import PointsForConditionalGeneration
from soup.checkpoints.tied import untie_config
from soup.hf.key_mapping import plan_loading
from soup.merging.merge import open_pool
from soup.merging.options import WriteOptions
from soup.merging.plan import plan_merge
from soup.merging.pool import Pool
from soup.testing import tiny_checkpoint
from tests.helpers.merge_oracle import mean_of, read_back, recipe_of, same_bits
from tests.helpers.tiny_adapters import linear_factors, write_adapter
from tests.helpers.tiny_architectures import fine_tunes
from tests.helpers.tiny_points import points_model
from tests.helpers.vlm_families import save_family
from tests.merging.test_peft_adapters import fill

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

load = AutoModelForImageTextToText.from_pretrained


def adapt(base, out, seed=1, load=load, **config):
    """Save an adapter over a base; return the tensors in memory of the model that PEFT merges."""
    model = get_peft_model(load(base), LoraConfig(r=4, lora_alpha=6, **{"target_modules": r".*\.q_proj", **config}))
    fill(model, seed)
    model.save_pretrained(out)
    settings = json.loads((out / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(base)}))
    return model.merge_and_unload().state_dict()


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value.double(), rtol=0, atol=3e-6), name


def ends(state):
    """Embeddings and output layer."""
    return [
        next(value for name, value in state.items() if name.endswith(end))
        for end in ("embed_tokens.weight", "lm_head.weight")
    ]


VISION = r".*(vision|visual).*(q_proj|qkv)"
UNTYING = {
    "the output layer": {"modules_to_save": ["lm_head"]},
    "the embeddings": {"modules_to_save": ["embed_tokens"]},
    "both": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "the whole language model": {"target_modules": VISION, "modules_to_save": ["language_model"]},
    "the whole language model, which PEFT does not tie": {
        "target_modules": VISION,
        "modules_to_save": ["language_model"],
        "ensure_weight_tying": True,
    },
    "the output layer, and the whole language model": {
        "target_modules": VISION,
        "modules_to_save": ["lm_head", "language_model"],
    },
    "the output layer, and LoRA of the embeddings": {
        "modules_to_save": ["lm_head"],
        "target_modules": r".*\.(q_proj|embed_tokens)",
    },
}
TYING = {
    "LoRA": {},
    "LoRA of the embeddings": {"target_modules": r".*\.(q_proj|embed_tokens)"},
    "both, kept tied": {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    "rows of tokens": {"trainable_token_indices": [7, 0, 1]},
}


@pytest.mark.parametrize("family", ["internvl", "qwen3_vl"])
@pytest.mark.parametrize("kind", UNTYING)
def test_the_soup_of_an_adapter_that_unties_is_the_model_that_peft_merges(tmp_path, family, kind):
    base = save_family(family, tmp_path / "base", 0)
    expected = adapt(base, tmp_path / "pool" / "adapter", **UNTYING[kind])
    soup.merge(recipe_of(tmp_path / "pool", base=base), tmp_path / "out")
    made = load(tmp_path / "out").state_dict()
    assert_close(made, expected)
    assert not torch.equal(*ends(made))


@pytest.mark.parametrize("kind", TYING)
def test_the_soup_of_an_adapter_that_does_not_is_tied(tmp_path, kind):
    base = save_family("internvl", tmp_path / "base", 0)
    expected = adapt(base, tmp_path / "pool" / "adapter", **TYING[kind])
    soup.merge(recipe_of(tmp_path / "pool", base=base), tmp_path / "out")
    assert_close(load(tmp_path / "out").state_dict(), expected)
    assert read_back(tmp_path / "out").keys() == read_back(base).keys()


@pytest.mark.parametrize(
    ("saved", "is_tied"), [(["lm_head"], False), (["lm_head", "embed_tokens"], False), (["language_model"], True)]
)
def test_a_language_model_with_both_that_peft_does_not_look_into_is_tied_where_it_is_saved_as_a_whole(
    tmp_path, saved, is_tied
):
    base = tmp_path / "base"
    next(fine_tunes("blip-2")).float().save_pretrained(base)
    config = {"target_modules": r".*qformer.*\.query", "modules_to_save": saved, "ensure_weight_tying": True}
    expected = adapt(base, tmp_path / "pool" / "adapter", **config)
    soup.merge(recipe_of(tmp_path / "pool", base=base), tmp_path / "out")
    made = load(tmp_path / "out").state_dict()
    assert_close(made, expected)
    assert torch.equal(*ends(made)) == is_tied


def test_points_is_untied_too(tmp_path):
    points_model("clip", llm="qwen2_tied").save_pretrained(tmp_path / "base")
    read = PointsForConditionalGeneration.from_pretrained
    expected = adapt(tmp_path / "base", tmp_path / "pool" / "adapter", load=read, modules_to_save=["lm_head"])
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    assert_close(read(tmp_path / "out").state_dict(), expected)


@pytest.fixture
def pool(tmp_path):
    """Adapters of every kind and a whole model on a tied base, and the models in memory."""
    base = save_family("internvl", tmp_path / "base", 0)
    kinds = [*TYING.values(), *UNTYING.values()]
    states = [adapt(base, tmp_path / "pool" / f"a{i}", i, **config) for i, config in enumerate(kinds)]
    whole = save_family("internvl", tmp_path / "pool" / "whole", 9)
    return base, tmp_path / "pool", [*states, load(whole).state_dict()]


def test_in_a_mixed_pool_all_are_untied_where_one_is(tmp_path, pool):
    base, folder, states = pool
    soup.merge(recipe_of(folder, base=base), tmp_path / "out")
    expected = {name: torch.stack([state[name].double() for state in states]).mean(0) for name in states[0]}
    assert_close(load(tmp_path / "out").state_dict(), expected)


@pytest.mark.parametrize("method", ["task-arithmetic", "ties"])
def test_a_method_that_reads_the_base_sees_it_untied(tmp_path, pool, method):
    base, folder, states = pool
    soup.merge(recipe_of(folder, base=base, method=method), tmp_path / "out")
    for i, state in enumerate(states):  # the same with whole models that are not tied
        path = tmp_path / "whole" / f"m{i}"
        tiny_checkpoint(path, tensors={name: value.clone() for name, value in state.items()}, dtype="float32")
    tied = load(base).state_dict()
    tiny_checkpoint(tmp_path / "untied", tensors={name: value.clone() for name, value in tied.items()})
    soup.merge(recipe_of(tmp_path / "whole", base=tmp_path / "untied", method=method), tmp_path / "expected")
    assert_close(load(tmp_path / "out").state_dict(), read_back(tmp_path / "expected"))


def test_what_streams_is_what_ships(tmp_path, pool):
    _, folder, _ = pool
    with mean_of(folder, tmp_path / "home") as candidate:
        module = load(candidate.template)
        plan = plan_loading(module, dict(candidate.tensors()))
        candidate.load_into(module, plan.names, plan.conversions)
    soup.merge(recipe_of(folder), tmp_path / "out")
    shipped = load(tmp_path / "out").state_dict()
    assert all(same_bits(value, shipped[name]) for name, value in module.state_dict().items())


def test_without_the_adapter_that_unties_a_soup_of_the_same_pool_is_tied(tmp_path, pool):
    base, folder, _ = pool
    with Pool(folder) as opened:
        recipe = recipe_of(folder)
        alone = recipe.model_copy(update={"ingredients": recipe.ingredients[:2]})
        assert plan_merge(recipe, opened).untied_output
        assert plan_merge(alone, opened).untied_output is None
        assert len(plan_merge(alone, opened).writes) == len(read_back(base))


def test_plan_config_and_card_tell(tmp_path):
    base = save_family("internvl", tmp_path / "base", 0)
    adapt(base, tmp_path / "pool" / "adapter", modules_to_save=["lm_head"])
    recipe = recipe_of(tmp_path / "pool")
    with open_pool(recipe) as opened:
        assert plan_merge(recipe, opened).as_json(tmp_path)["untied"].endswith("lm_head.weight")
        assert any("tie_word_embeddings: false" in text for text in opened.warnings())
    soup.merge(recipe, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"]) == (False, False)
    assert "lm_head.weight`, is not the embeddings" in (tmp_path / "out" / "README.md").read_text()
    again = soup.merge(recipe, tmp_path / "out")  # found to be there already
    assert again.digest == soup.merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again").digest


def test_one_adapter_holds_the_soup(tmp_path):
    base = save_family("internvl", tmp_path / "base", 0)
    kinds = [TYING["LoRA of the embeddings"], TYING["both, kept tied"], *UNTYING.values()]
    for i, config in enumerate(kinds):
        adapt(base, tmp_path / "pool" / f"a{i}", i, **config)
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "one", write=WriteOptions(as_adapter="exact"))
    expected = load(tmp_path / "out").state_dict()
    assert_close(PeftModel.from_pretrained(load(base), tmp_path / "one").merge_and_unload().state_dict(), expected)


def test_a_base_that_stores_both_and_ties_them_is_untied_in_its_config(tmp_path):
    shapes = {"model.embed_tokens.weight": (8, 4), "lm_head.weight": (8, 4), "model.up.weight": (6, 4)}
    base = tiny_checkpoint(tmp_path / "base", tensors=shapes, config={"tie_word_embeddings": True})
    factors = {**linear_factors({"model.up.weight": (6, 4)}), "lm_head.weight": torch.ones(8, 4, dtype=torch.bfloat16)}
    write_adapter(tmp_path / "pool" / "a", factors, base, modules_to_save=["lm_head"])
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    assert read_back(tmp_path / "out")["lm_head.weight"].unique().tolist() == [1.0]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize(
    "inner", [{"tie_word_embeddings": True}, {"hidden_size": 8}, {"vocab_size": 9, "tie_word_embeddings": True}]
)
def test_no_config_within_says_tied_or_leaves_it_to_its_class(inner):
    config = {"tie_word_embeddings": True, "text_config": dict(inner), "vision_config": {"hidden_size": 4}}
    assert untie_config(config)
    assert (config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"]) == (False, False)
    assert config["vision_config"] == {"hidden_size": 4}
    assert not untie_config(config)
