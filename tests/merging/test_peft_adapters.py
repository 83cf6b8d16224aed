"""Adapters that PEFT itself saves, against its own `merge_and_unload` in float32: every feature, on whole families."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GPT2Config, GPT2LMHeadModel

import soup
from finetune.points import PointsForConditionalGeneration
from soup.errors import CheckpointError
from soup.hf.key_mapping import plan_loading
from soup.merging.options import WriteOptions
from soup.testing import tiny_checkpoint
from tests.helpers.case_parts import some_of
from tests.helpers.merge_oracle import mean_of, read_back, recipe_of, same_bits
from tests.helpers.tiny_architectures import fine_tunes
from tests.helpers.tiny_points import points_model
from tests.helpers.vlm_families import save_family

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

LINEAR = r".*\.(q_proj|down_proj|fc1|linear_1|qkv)"


def fill(model, seed):
    """Give all that is trained random values: B is zero when training begins."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                drawn = torch.randn(value.shape, generator=noise) * 0.2
                value.copy_(value * (1 + drawn) if "magnitude" in name else value + drawn)


def adapt(base, out, config, seed=1, load=AutoModelForImageTextToText.from_pretrained):
    """Save an adapter over a base; return the tensors of the model that PEFT merges, by their names on disk."""
    model = get_peft_model(load(base), config)
    fill(model, seed)
    model.save_pretrained(out)
    settings = json.loads((out / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(base)}))
    merged = model.merge_and_unload()
    merged.save_pretrained(out.parent.parent / f"{out.name}-merged")
    return read_back(out.parent.parent / f"{out.name}-merged")


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(actual[name], value, rtol=0, atol=3e-6), name


CONFIGS = {
    "plain": {"r": 4, "lora_alpha": 6},
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "r": 4,
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 3},
        "alpha_pattern": {"q_proj": 5, r"layers\.[01]\.mlp\.down_proj": 16},
    },
    "biases": {"bias": "all"},
    "dora": {"r": 4, "use_dora": True},
    "velora": {"r": 4, "velora_config": {"num_groups": 4}},
}


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision", "internvl"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_an_adapter_is_what_peft_merges(tmp_path, family, kind):
    base = save_family(family, tmp_path / "base", 0)
    config = LoraConfig(target_modules=LINEAR, **CONFIGS[kind])
    expected = adapt(base, tmp_path / "pool" / "adapter", config)
    soup.merge(recipe_of(tmp_path / "pool", base=base), tmp_path / "out")
    made, original = read_back(tmp_path / "out"), read_back(base)
    assert_same(made, expected)
    assert sum(not torch.equal(made[name], original[name]) for name in made) >= 4


EMBEDDINGS = r".*\.(embed_tokens|q_proj)"
PATCHES = r".*(patch_embedding|projection|patch_embed\.proj|q_proj)"
OTHERS = {
    "a bias of its own": {"target_modules": r".*language_model.*\.q_proj", "lora_bias": True},
    "whole modules": {"target_modules": LINEAR, "modules_to_save": ["norm"]},
    "whole modules, and biases": {
        "target_modules": LINEAR,
        "modules_to_save": ["multi_modal_projector", "merger"],
        "bias": "all",
    },
    "convolutions": {"target_modules": PATCHES},
    "convolutions by DoRA": {"target_modules": PATCHES, "use_dora": True},
    "embeddings": {"target_modules": EMBEDDINGS},
    "embeddings by DoRA": {"target_modules": EMBEDDINGS, "use_dora": True},
    "the output layer": {"target_modules": r"lm_head|.*\.q_proj"},
    "rows of tokens": {"target_modules": LINEAR, "trainable_token_indices": [7, 0, 1]},
    "rows of tokens by name": {"target_modules": LINEAR, "trainable_token_indices": {"embed_tokens": [5]}},
    "embeddings saved whole, and tied": {
        "target_modules": LINEAR,
        "modules_to_save": ["embed_tokens"],
        "ensure_weight_tying": True,
    },
    "both ends": {"target_modules": r"lm_head|.*\.embed_tokens"},
}


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision", "internvl"])
@pytest.mark.parametrize("kind", OTHERS)
def test_changes_of_other_layers_are_what_peft_makes_of_them(tmp_path, family, kind):
    base = save_family(family, tmp_path / "base", 0)  # InternVL's embeddings and output layer are tied
    expected = adapt(base, tmp_path / "pool" / "adapter", LoraConfig(r=4, lora_alpha=6, **OTHERS[kind]))
    soup.merge(recipe_of(tmp_path / "pool", base=base), tmp_path / "out")
    assert_same(read_back(tmp_path / "out"), expected)


ONE = {
    "biases": {"target_modules": LINEAR, "bias": "all"},
    "patterns": {"target_modules": LINEAR, "use_rslora": True, "alpha_pattern": {"q_proj": 5}},
    "velora": {"target_modules": LINEAR, "velora_config": {"num_groups": 4}},
    "convolutions": OTHERS["convolutions"],
    "embeddings": OTHERS["embeddings"],
    "whole modules": OTHERS["whole modules"],
    "tied embeddings by a pattern": {"target_modules": EMBEDDINGS, "ensure_weight_tying": True},
    "embeddings saved whole, and tied": OTHERS["embeddings saved whole, and tied"],
    "both ends saved whole, and tied where they are": {
        "target_modules": LINEAR,
        "modules_to_save": ["lm_head", "embed_tokens"],
        "ensure_weight_tying": True,
    },
}


@pytest.mark.parametrize("family", some_of(["qwen2_5_vl", "internvl"]))
@pytest.mark.parametrize("kind", ONE)
def test_one_adapter_is_the_soup_for_peft(tmp_path, family, kind):
    base = save_family(family, tmp_path / "base", 0)
    for seed, rank in enumerate((2, 4)):
        adapt(base, tmp_path / "pool" / f"a{seed}", LoraConfig(r=rank, lora_alpha=6, **ONE[kind]), seed)
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "one", write=WriteOptions(as_adapter="exact"))
    load = AutoModelForImageTextToText.from_pretrained
    merged = PeftModel.from_pretrained(load(base), tmp_path / "one").merge_and_unload()
    assert_same(merged.state_dict(), load(tmp_path / "out").state_dict())
    assert not json.loads((tmp_path / "one/adapter_config.json").read_text()).get("velora_config"), "it is of training"


@pytest.mark.parametrize(
    ("saved", "target", "listed"),
    [
        ([["language_model"], ["norm"]], r".*vision_tower.*\.q_proj", "model.vision_tower.post_layernorm"),
        ([["language_model"], ["vision_tower"]], r".*\.vision_tower.*q_proj", "vision_tower"),
    ],
)
def test_modules_that_adapters_save_within_each_other_are_listed_as_peft_can_load_them(tmp_path, saved, target, listed):
    base = save_family("llava_onevision", tmp_path / "base", 0)
    for seed, modules in enumerate(saved):
        targets = target if not seed else r".*language_model.*q_proj"
        adapt(
            base, tmp_path / "pool" / f"a{seed}", LoraConfig(r=2, target_modules=targets, modules_to_save=modules), seed
        )
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "one", write=WriteOptions(as_adapter="exact"))
    load = AutoModelForImageTextToText.from_pretrained
    merged = PeftModel.from_pretrained(load(base), tmp_path / "one").merge_and_unload()
    assert_same(merged.state_dict(), load(tmp_path / "out").state_dict())
    assert listed in json.loads((tmp_path / "one/adapter_config.json").read_text())["modules_to_save"]


def test_a_bias_of_a_layer_that_another_adapter_targets_is_where_peft_looks_for_it(tmp_path):
    base = save_family("qwen2_5_vl", tmp_path / "base", 0)
    for seed, fields in enumerate(
        [{"target_modules": r".*\.q_proj"}, {"target_modules": r".*\.k_proj", "bias": "all"}]
    ):
        adapt(base, tmp_path / "pool" / f"a{seed}", LoraConfig(r=2, **fields), seed)
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "one", write=WriteOptions(as_adapter="exact"))
    load = AutoModelForImageTextToText.from_pretrained
    merged = PeftModel.from_pretrained(load(base), tmp_path / "one").merge_and_unload()
    assert_same(merged.state_dict(), load(tmp_path / "out").state_dict())


RENAMED = {
    "emu3": r"lm_head|.*q_proj",  # the output layer's words are others, and it is not tied
    "hyperclovax_vision_v2": r".*\.(projector|q_proj)",
    "hunyuan_vl": r".*(patch_embedding|q_proj)",
}


@pytest.mark.parametrize("architecture", RENAMED)
def test_names_that_words_do_not_tell_are_those_of_transformers_own_conversion(tmp_path, architecture):
    base = tmp_path / "base"
    next(fine_tunes(architecture)).float().save_pretrained(base)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=RENAMED[architecture])
    expected = adapt(base, tmp_path / "pool" / "adapter", config)
    soup.merge(recipe_of(tmp_path / "pool", base=base), tmp_path / "out")
    assert_same(read_back(tmp_path / "out"), expected)


@pytest.mark.parametrize(
    ("architecture", "target"), [("step3p7", r".*vision_model.*q_proj"), ("qianfan_ocr", r".*vision_tower.*k_proj")]
)
def test_what_transformers_makes_of_other_tensors_on_loading_is_refused_with_the_way_out(
    tmp_path, architecture, target
):
    base = tmp_path / "base"
    next(fine_tunes(architecture)).float().save_pretrained(base)
    expected = adapt(base, tmp_path / "pool" / "adapter", LoraConfig(r=4, target_modules=target))
    with pytest.raises(CheckpointError, match="transformers makes it of others on loading") as refused:
        recipe_of(tmp_path / "pool", base=base)
    assert "PEFT makes it a whole model: PeftModel" in str(refused.value)
    assert expected.keys() == read_back(base).keys()


def test_what_transformers_ties_to_a_module_that_is_saved_as_a_whole_is_told(tmp_path):
    base = tmp_path / "base"
    next(fine_tunes("t5gemma2")).float().save_pretrained(base)
    config = LoraConfig(r=2, target_modules=r".*v_proj", modules_to_save=["encoder"])
    merged = adapt(base, tmp_path / "pool" / "adapter", config)
    assert "model.decoder.embed_tokens.weight" in merged, "it stays the base's"
    with pytest.raises(CheckpointError, match="trained apart from") as refused:
        recipe_of(tmp_path / "pool", base=base)
    assert "text_model.embed_tokens.weight: trained apart from lm_head.out_proj.weight, model.dec" in str(refused.value)


POINTS = {
    "linear": ("qwen2", {"target_modules": r".*\.(q_proj|up_proj|fc1)"}),
    "tied": ("qwen2_tied", {"target_modules": r"lm_head|.*\.(q_proj|embed_tokens)"}),
    "weights as [in, out]": ("gpt2", {"target_modules": r".*\.(c_attn|c_proj|c_fc)", "fan_in_fan_out": True}),
    "DoRA of weights as [in, out]": (
        "gpt2",
        {"target_modules": r".*\.(c_attn|c_proj)", "fan_in_fan_out": True, "use_dora": True},
    ),
    "squares as [in, out] and as [out, in]": ("gpt2", {"target_modules": r".*(\.c_proj|\.q_proj|projector\.2)"}),
}


@pytest.mark.parametrize("kind", POINTS)
def test_adapters_of_points_are_what_peft_merges(tmp_path, kind):
    llm, config = POINTS[kind]
    base = tmp_path / "base"
    points_model("clip", llm=llm).save_pretrained(base)
    load = PointsForConditionalGeneration.from_pretrained
    expected = adapt(base, tmp_path / "pool" / "adapter", LoraConfig(r=4, lora_alpha=6, **config), load=load)
    soup.merge(recipe_of(tmp_path / "pool", base=base), tmp_path / "out")
    assert_same(read_back(tmp_path / "out"), expected)


def test_a_square_layer_is_turned_by_its_class_where_the_config_speaks_of_another(tmp_path):
    settings = {"n_embd": 12, "n_layer": 1, "n_head": 2, "vocab_size": 9, "n_positions": 8}
    GPT2LMHeadModel(GPT2Config(**settings, tie_word_embeddings=False)).save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["c_proj", "lm_head"])  # the last layer is no Conv1D
    expected = adapt(
        tmp_path / "base", tmp_path / "pool" / "adapter", config, load=AutoModelForCausalLM.from_pretrained
    )
    assert json.loads((tmp_path / "pool/adapter/adapter_config.json").read_text())["fan_in_fan_out"] is False
    soup.merge(recipe_of(tmp_path / "pool", base=tmp_path / "base"), tmp_path / "out")
    assert_same(read_back(tmp_path / "out"), expected)


class Attention(torch.nn.Module):
    """A layer that PEFT wraps although its weights are three in one, and one that it can't merge."""

    def __init__(self):
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(8, 2)
        self.plain = torch.nn.Linear(8, 8, bias=False)
        self.config = {"model_type": "tiny", "tie_word_embeddings": False}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"target_modules": ["attn"]}, "attn: an nn.MultiheadAttention, to whose out_proj PEFT adds its product twice"),
        ({"target_modules": ["plain"], "lora_bias": True}, "plain.lora_B.bias: the base has no such bias, and PEFT"),
    ],
)
def test_what_peft_does_not_merge_as_it_trains_is_refused_with_the_reason(tmp_path, config, reason):
    tiny_checkpoint(tmp_path / "base", tensors=Attention().state_dict())
    get_peft_model(Attention(), LoraConfig(r=2, **config)).save_pretrained(tmp_path / "pool" / "adapter")
    with pytest.raises(CheckpointError) as refused:
        recipe_of(tmp_path / "pool", base=tmp_path / "base")
    assert reason in str(refused.value)
    assert "no such tensor" not in str(refused.value)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision", "internvl"])
def test_a_soup_of_adapters_that_is_streamed_into_a_loaded_model_is_the_one_that_ships(tmp_path, family):
    base = save_family(family, tmp_path / "base", 0, torch.bfloat16)
    for seed, rank in enumerate((2, 4, 8)):
        config = LoraConfig(r=rank, target_modules=LINEAR, use_dora=seed == 2)
        adapt(base, tmp_path / "pool" / f"adapter-{seed}", config, seed)
    module = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.bfloat16)
    with mean_of(tmp_path / "pool", tmp_path / "home") as candidate:
        plan = plan_loading(module, read_back(base))
        candidate.load_into(module, plan.names, plan.conversions)
        written = AutoModelForImageTextToText.from_pretrained(candidate.directory(), dtype=torch.bfloat16)
        soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
        assert_equal(read_back(tmp_path / "out"), read_back(candidate.directory()))
    assert_equal(module.state_dict(), written.state_dict())


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    assert all(same_bits(value, expected[name]) for name, value in actual.items())


def test_a_soup_of_adapters_of_points_is_streamed_as_it_ships(tmp_path):
    base = tmp_path / "base"
    points_model("clip", llm="qwen2_tied").bfloat16().save_pretrained(base)
    load = PointsForConditionalGeneration.from_pretrained
    for seed, targets in enumerate([r".*\.(q_proj|up_proj|fc1)", r".*\.(q_proj|embed_tokens)"]):
        adapt(base, tmp_path / "pool" / f"adapter-{seed}", LoraConfig(r=4, target_modules=targets), seed, load)
    module = load(base, dtype=torch.bfloat16)
    with mean_of(tmp_path / "pool", tmp_path / "home") as candidate:
        plan = plan_loading(module, read_back(base))
        candidate.load_into(module, plan.names, plan.conversions)
        assert_equal(module.state_dict(), load(candidate.directory(), dtype=torch.bfloat16).state_dict())
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    assert_equal(module.state_dict(), load(tmp_path / "out", dtype=torch.bfloat16).state_dict())
