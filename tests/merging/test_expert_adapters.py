"""Adapters on stacks of matrices, such as a layer's experts, against PEFT's own merge in float32."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig, MixtralConfig

import soup
from soup.checkpoints.adapted import AdaptedCheckpoint
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError, RecipeError
from soup.merging import kernel_library
from soup.merging.options import MergeOptions, WriteOptions
from tests.helpers import converted_families
from tests.helpers.converted_families import CONVERTED, tiny_converted
from tests.helpers.merge_oracle import read_back, recipe_of, same_bits
from tests.merging.test_peft_adapters import adapt, assert_same

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning")

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "num_local_experts": 4,
    "vocab_size": 32,
}
LANGUAGE = {"mixtral": MixtralConfig, "gpt_oss": GptOssConfig}
EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]


def make_base(family, folder, dtype=torch.float32):
    """A base on disk, and the function that loads it."""
    torch.manual_seed(0)
    if family in LANGUAGE:
        model = AutoModelForCausalLM.from_config(LANGUAGE[family](**SIZES))
        load = AutoModelForCausalLM.from_pretrained
    else:
        from transformers import AutoModelForImageTextToText

        model, load = tiny_converted(family), AutoModelForImageTextToText.from_pretrained
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn_like(value) * 0.1)
    model.to(dtype).save_pretrained(folder)
    return folder, load


def on_experts(**config):
    return LoraConfig(**{"r": 2, "lora_alpha": 6, "target_modules": [], "target_parameters": EXPERTS, **config})


FAMILIES = [
    *LANGUAGE,
    *(set(CONVERTED) & {"glm4v_moe", "kimi_k25", "qwen3_5_moe", "qwen3_omni_moe_thinker", "qwen3_vl_moe"}),
]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_adapters_on_experts_are_what_peft_merges(tmp_path, family):
    base, load = make_base(family, tmp_path / "base")
    expected = adapt(base, tmp_path / "pool" / "adapter", on_experts(), load=load)
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    assert_same(read_back(tmp_path / "out"), expected)
    original = read_back(base)
    assert any("experts" in name and not torch.equal(value, original[name]) for name, value in expected.items())


CONFIGS = {
    "both, with attention": {"target_modules": r".*\.q_proj"},
    "one of them": {"target_parameters": ["experts.down_proj"]},
    "the other": {"target_parameters": ["mlp.experts.gate_up_proj"]},
    "rsLoRA": {"use_rslora": True},
    "patterns": {"rank_pattern": {"experts.down_proj": 3}, "alpha_pattern": {r"layers\.1\.mlp\.experts\.down_proj": 5}},
    "the router": {"target_parameters": ["gate.weight", *EXPERTS]},
    "a layer's weight": {"target_parameters": ["q_proj.weight"], "alpha_pattern": {"q_proj.weight": 9}},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_configuration_of_them_is(tmp_path, kind):
    base, load = make_base("mixtral", tmp_path / "base")
    expected = adapt(base, tmp_path / "pool" / "adapter", on_experts(**CONFIGS[kind]), load=load)
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    assert_same(read_back(tmp_path / "out"), expected)


def test_matrices_that_the_hub_has_the_other_way_round_are_changed_so(tmp_path, monkeypatch):
    monkeypatch.setitem(converted_families.SIZES, "moe_intermediate_size", 24)  # for square ones nobody can tell
    base, load = make_base("qwen3_vl_moe", tmp_path / "base")
    expected = adapt(base, tmp_path / "pool" / "adapter", on_experts(), load=load)
    state = load_file(base / "model.safetensors")
    turned = [name for name in state if name.endswith(tuple(EXPERTS))]
    state |= {name: state[name].mT.contiguous() for name in turned}
    save_file(state, base / "model.safetensors", {"format": "pt"})
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    assert_same(read_back(tmp_path / "out"), expected | {name: expected[name].mT for name in turned})


def test_adapters_on_matrices_one_by_one_are_what_peft_loads(tmp_path):
    """As transformers 4 had them, where experts were modules."""
    base, load = make_base("mixtral", tmp_path / "base")
    expected = adapt(base, tmp_path / "pool" / "adapter", LoraConfig(r=2, target_modules=["w1", "w2", "w3"]), load=load)
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out")
    assert_same(read_back(tmp_path / "out"), expected)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_pool_of_them_has_the_same_bytes_whatever_the_blocks(tmp_path, monkeypatch, family, dtype):
    base, load = make_base(family, tmp_path / "base", dtype)
    for seed, rank in enumerate((2, 3)):
        config = on_experts(r=rank, target_modules=r".*\.(q|o)_proj" if seed else [])
        adapt(base, tmp_path / "pool" / f"a{seed}", config, seed, load)
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "whole")
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "blocks", merge=MergeOptions(block_elements=37, threads=2))
    monkeypatch.setattr(kernel_library, "load_library", lambda: None)
    soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "torch")
    made, *others = (read_back(tmp_path / name) for name in ("whole", "blocks", "torch"))
    assert all(same_bits(value, other[name]) for other in others for name, value in made.items())
    states = [read_back(tmp_path / f"a{seed}-merged") for seed in (0, 1)]
    for name, value in made.items():
        mean = torch.stack([state[name].double() for state in states]).mean(0)
        assert torch.allclose(value.double(), mean, rtol=0, atol=4e-3 if dtype == torch.bfloat16 else 3e-6), name


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda factors, key: factors.pop(key), "its other factor is missing"),
        (lambda factors, key: factors.update({key: factors[key][:-1]}), "factors of shapes"),
        (lambda factors, key: factors.update({key: factors[key][:, :-1].contiguous()}), "factors of shapes"),
    ],
)
def test_factors_that_do_not_fit_the_stack_are_refused(tmp_path, change, reason):
    base, load = make_base("mixtral", tmp_path / "base")
    adapt(base, tmp_path / "pool" / "adapter", on_experts(), load=load)
    file = tmp_path / "pool" / "adapter" / "adapter_model.safetensors"
    factors = load_file(file)
    change(factors, next(key for key in factors if key.endswith("experts.lora_A.weight")))
    save_file(factors, file)
    with pytest.raises(CheckpointError, match=reason):
        AdaptedCheckpoint(file.parent, Checkpoint(base))


def test_a_base_whose_class_is_not_known_is_told(tmp_path):
    base, load = make_base("mixtral", tmp_path / "base")
    adapt(base, tmp_path / "pool" / "adapter", on_experts(), load=load)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "mine", "architectures": ["Mine"]}))
    with pytest.raises(CheckpointError, match=r"target_parameters .* whose class transformers does not have"):
        AdaptedCheckpoint(tmp_path / "pool" / "adapter", Checkpoint(base))


def test_a_soup_of_them_is_no_single_adapter(tmp_path):
    base, load = make_base("mixtral", tmp_path / "base")
    adapt(base, tmp_path / "pool" / "adapter", on_experts(), load=load)
    with pytest.raises(RecipeError, match="adapter: target_parameters"):
        soup.merge(recipe_of(tmp_path / "pool"), tmp_path / "out", write=WriteOptions(as_adapter="exact"))
