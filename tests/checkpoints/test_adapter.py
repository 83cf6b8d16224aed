"""What is read of adapters, and what is refused: kinds that are no low-rank change, keys without a place."""

from __future__ import annotations

import dataclasses
import json

import peft
import pytest
import torch

from soup.checkpoints.adapted import AdaptedCheckpoint
from soup.checkpoints.adapter import Adapter, _known_settings
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError
from soup.testing import tiny_checkpoint
from tests.helpers.tiny_adapters import linear_factors, write_adapter

UP = {"model.layers.0.up.weight": (6, 4)}


def refusal(folder, factors=None, shapes=UP, **config):
    """The words in which an adapter is refused over a base of these tensors."""
    base = tiny_checkpoint(folder / "base", tensors=shapes)
    adapter = write_adapter(folder / "adapter", linear_factors(UP) if factors is None else factors, base, **config)
    with pytest.raises(CheckpointError) as refused:
        AdaptedCheckpoint(adapter, Checkpoint(base))
    return str(refused.value)


@pytest.mark.parametrize("kind", ["IA3", "VERA", "LOHA", "ADALORA", None])
def test_other_kinds_of_adapters_are_refused_by_name(tmp_path, kind):
    message = refusal(tmp_path, peft_type=kind)
    assert f"peft_type {kind}, not LORA" in message
    assert "merge_and_unload()" in message


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "XLORA", "CARTRIDGE", "LILY", "SHADOW"])
def test_kinds_that_change_no_weights_are_refused_without_a_cure_that_fails(tmp_path, kind):
    message = refusal(tmp_path, peft_type=kind)
    assert f"peft_type {kind}, not LORA" in message
    assert "merge_and_unload" not in message
    assert "leave it out" in message


def test_an_adapter_without_tensors_is_refused(tmp_path):
    assert "adapter_model.safetensors holds no tensors" in refusal(tmp_path, {})


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), "16", True, None])
def test_an_alpha_that_is_no_number_is_refused(tmp_path, alpha):
    assert f"expected a number for model.layers.0.up, found {alpha!r}" in refusal(tmp_path, lora_alpha=alpha)
    assert f"found {alpha!r}" in refusal(tmp_path, alpha_pattern={"up": alpha})


@pytest.mark.parametrize(
    "config",
    [
        *({"alpha_pattern": ["up"]}, {"rank_pattern": "up"}, {"use_rslora": 1}, {"use_dora": "yes"}),
        *({"fan_in_fan_out": "true"}, {"modules_to_save": "up"}, {"target_parameters": {"up": 1}}),
        {"ensure_weight_tying": []},
    ],
)
def test_a_setting_of_a_kind_that_peft_does_not_write_is_refused_and_not_passed_over(tmp_path, config):
    (key,) = config
    assert f"{key}: expected " in refusal(tmp_path, **config)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"use_later_lora": True}, "use_later_lora"),
        ({"b_config": {"k": 1}, "a_scale": 0.5}, "a_scale, b_config"),
        ({"use_later_lora": False, "b_config": None, "listed": []}, None),
        ({"loftq_config": {"bits": 4}, "lora_dtype": "bfloat16"}, None),
    ],
)
def test_settings_of_which_soup_knows_nothing_are_told(tmp_path, config, told):
    base = tiny_checkpoint(tmp_path / "base", tensors=UP)
    warnings = Adapter(write_adapter(tmp_path / "adapter", linear_factors(UP), base, **config)).warnings
    assert [text.partition("adapter_config.json has ")[2].partition(", of which")[0] for text in warnings] == (
        [told] if told else []
    )


def test_every_setting_of_peft_s_lora_is_known():
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} <= _known_settings()


def test_a_refusal_names_the_base_of_the_config(tmp_path):
    assert "adapter_config.json names ORG/NAME." in refusal(
        tmp_path, linear_factors({"other.weight": (6, 4)}), base_model_name_or_path="ORG/NAME"
    )


@pytest.mark.parametrize(
    ("config", "warned"), [({"r": 99}, True), ({"r": 99, "rank_pattern": {"up": 4}}, False), ({"r": 4}, False)]
)
def test_ranks_that_are_not_the_config_s_are_told(tmp_path, config, warned):
    base = tiny_checkpoint(tmp_path / "base", tensors=UP)
    adapted = AdaptedCheckpoint(write_adapter(tmp_path / "a", linear_factors(UP), base, **config), Checkpoint(base))
    told = [text for text in adapted.warnings if "rank 4 where adapter_config.json says 99" in text]
    assert bool(told) == warned


@pytest.mark.parametrize(
    ("parts", "config", "words"),
    [
        ({}, {"use_dora": True}, "has no lora_magnitude_vector, and use_dora is true"),
        ({"magnitude_vector": torch.ones(6)}, {}, "has a lora_magnitude_vector, and use_dora is not true"),
        ({}, {"lora_bias": True}, "has no lora_B.bias, and lora_bias is true"),
        ({"B.bias": torch.ones(6)}, {}, "has a lora_B.bias, and lora_bias is not true"),
    ],
)
def test_factors_of_which_the_config_does_not_know_are_refused(tmp_path, parts, config, words):
    factors = linear_factors(UP) | {f"model.layers.0.up.lora_{name}": value for name, value in parts.items()}
    shapes = UP | {"model.layers.0.up.bias": (6,)}
    assert words in refusal(tmp_path, factors, shapes, **config)


@pytest.mark.parametrize(
    "config",
    [
        {"layer_replication": [[0, 2]]},
        {"use_qalora": True},
        {"alora_invocation_tokens": [3]},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "olora"},
    ],
)
def test_a_lora_that_is_more_than_a_product_added_to_its_base_is_refused(tmp_path, config):
    assert next(iter(config)) in refusal(tmp_path, **config)


@pytest.mark.parametrize("config", [{"alora_invocation_tokens": [3]}, {"arrow_config": {"top_k": 2}}])
def test_what_peft_can_not_merge_either_is_refused_without_a_cure_that_fails(tmp_path, config):
    message = refusal(tmp_path, **config)
    assert "merge_and_unload" not in message
    assert "leave it out" in message


def test_an_adapter_of_a_base_that_peft_would_draw_again_is_not_to_be_loaded(tmp_path):
    message = refusal(tmp_path, init_lora_weights="pissa_niter_4")
    assert "PeftModel.from_pretrained" not in message
    assert "model.save_pretrained(OUT, path_initial_model_for_weight_conversion=START)" in message


def test_all_keys_that_the_base_has_no_place_for_are_listed(tmp_path):
    factors = {**linear_factors({"a.weight": (6, 4), "b.weight": (6, 4)}), "layers.9.bias": torch.zeros(2)}
    message = refusal(tmp_path, factors)
    for key in ("a.lora_A.weight", "b.lora_A.weight", "layers.9.bias"):
        assert f"{key}: the base has no such tensor" in message


def test_a_layer_of_a_tower_that_is_not_in_the_base_is_not_taken_for_the_language_model_s(tmp_path):
    base = {
        "model.layers.0.q_proj.weight": (6, 4),
        "vision_model.blocks.0.attn.in_proj_weight": (18, 4),
        "vision_tower.vision_model.encoder.layers.0.up.weight": (6, 4),
    }
    factors = linear_factors({"model.vision_model.layers.0.q_proj.weight": (6, 4)})
    message = refusal(tmp_path, factors, base)
    assert "model.vision_model.layers.0.q_proj.lora_A.weight: the base has no such tensor" in message
    renamed = linear_factors({"model.vision_tower.encoder.layers.0.up.weight": (6, 4)})
    adapter = write_adapter(tmp_path / "other", renamed, tmp_path / "base")
    changes = AdaptedCheckpoint(adapter, Checkpoint(tmp_path / "base")).changes
    assert changes.keys() == {"vision_tower.vision_model.encoder.layers.0.up.weight"}


def test_a_bias_of_factors_that_the_base_has_no_place_for_is_the_key_that_is_named(tmp_path):
    factors = {**linear_factors(UP), "model.layers.0.up.lora_B.bias": torch.zeros(6)}
    message = refusal(tmp_path, factors, lora_bias=True)
    assert "model.layers.0.up.lora_B.bias: the base has no such bias, and PEFT can't merge it either" in message
    assert "lora_A" not in message


def test_a_name_that_may_be_two_tensors_is_refused_with_both(tmp_path):
    shapes = {"language_model.layers.0.up.weight": (6, 4), "module.layers.0.up.weight": (6, 4)}
    message = refusal(tmp_path, shapes=shapes)
    assert "may be language_model.layers.0.up.weight or module.layers.0.up.weight of the base" in message


def test_factors_that_do_not_fit_are_refused_with_both_shapes(tmp_path):
    message = refusal(tmp_path, linear_factors({"model.layers.0.up.weight": (6, 5)}))
    assert "adds [6, 5] to model.layers.0.up.weight, which is bfloat16[6, 4]" in message


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_factors_that_are_no_ordinary_numbers_are_refused(tmp_path, dtype):
    factors = {key: value.to(dtype) for key, value in linear_factors(UP).items()}
    message = refusal(tmp_path, factors)
    for part in "AB":
        assert f"lora_{part}.weight: expected a factor of 16, 32 or 64 bits, found {str(dtype)[6:]}" in message


def test_a_quantised_base_is_told_as_such(tmp_path):
    shapes = {"model.layers.0.up.weight": torch.zeros(12, 1, dtype=torch.uint8)}
    shapes["model.layers.0.up.weight.absmax"] = torch.zeros(1)
    message = refusal(tmp_path, shapes=shapes)
    assert "is quantised: 1 tensor of a quantisation" in message
    assert "`base` takes the model that was quantised" in message


@pytest.mark.parametrize("kind", ["whole", "factors"])
def test_a_grown_vocabulary_is_refused_with_the_way_to_a_base_of_as_many_tokens(tmp_path, kind):
    whole = {"model.embed_tokens.weight": torch.zeros(9, 4)}
    module = "model.embed_tokens.lora_embedding_"
    factors = whole if kind == "whole" else {f"{module}A": torch.zeros(2, 9), f"{module}B": torch.zeros(4, 2)}
    message = refusal(tmp_path, factors, {"model.embed_tokens.weight": (8, 4)})
    assert "base.resize_token_embeddings(9)" in message
    assert "resize" not in refusal(
        tmp_path / "other", {"model.embed_tokens.weight": torch.zeros(8, 5)}, {"model.embed_tokens.weight": (8, 4)}
    )


def test_a_factor_alone_is_refused(tmp_path):
    factors = linear_factors(UP)
    del factors["model.layers.0.up.lora_B.weight"]
    assert "lora_A.weight: its other factor is missing" in refusal(tmp_path, factors)


@pytest.mark.parametrize(
    ("embeddings", "key", "output"),
    [
        ("model.embed_tokens.weight", "lm_head.weight", "lm_head.weight"),
        ("model.language_model.embed_tokens.weight", "lm_head.weight", "lm_head.weight"),
        ("language_model.model.embed_tokens.weight", "lm_head.weight", "language_model.lm_head.weight"),
        ("llm.model.embed_tokens.weight", "llm.lm_head.weight", "llm.lm_head.weight"),
    ],
)
def test_a_trained_output_layer_of_a_base_that_ties_it_is_a_tensor_of_its_own_beside_the_embeddings(
    tmp_path, embeddings, key, output
):
    base = tiny_checkpoint(tmp_path / "base", tensors={**UP, embeddings: (8, 4)})
    adapter = write_adapter(tmp_path / "a", {key: torch.zeros(8, 4)}, base)
    adapted = AdaptedCheckpoint(adapter, Checkpoint(base))
    assert adapted.changes.keys() == {output}
    assert adapted.tensors.keys() == {*UP, embeddings, output}


def test_a_pickled_adapter_is_refused_with_what_converts_it(tmp_path):
    adapter = write_adapter(tmp_path / "a", linear_factors(UP))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="is a pickle"):
        Adapter(adapter)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 6}, 1.5),
        ({"lora_alpha": 6, "use_rslora": True}, 3.0),
        ({"lora_alpha": 6, "alpha_pattern": {"up": 2}}, 0.5),
        ({"lora_alpha": 6, "alpha_pattern": {r"layers\.1\.up": 2, r"layers\.[0-9]\.up": 8}}, 2.0),
        ({"lora_alpha": 6, "alpha_pattern": {"p": 2}}, 1.5),
    ],
)
def test_the_scale_is_peft_s(tmp_path, config, scale):
    adapter = Adapter(write_adapter(tmp_path / "a", linear_factors(UP), **config))
    assert adapter.scale("model.layers.0.up", 4) == scale


def test_a_config_that_is_no_json_is_refused(tmp_path):
    adapter = write_adapter(tmp_path / "a", linear_factors(UP))
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        Adapter(adapter)


def test_an_adapter_that_changes_while_it_is_in_use_is_told(tmp_path):
    base = tiny_checkpoint(tmp_path / "base", tensors=UP)
    adapted = AdaptedCheckpoint(write_adapter(tmp_path / "a", linear_factors(UP), base), Checkpoint(base))
    adapted.refuse_changed()
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 99}))
    with pytest.raises(CheckpointError, match="changed while they were in use"):
        adapted.refuse_changed()


@pytest.mark.parametrize("where", ["model.embed_tokens", "lm_head"])
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("part", [None, "text_config", "llm_config", "language_config"])
def test_what_is_added_to_one_of_two_tied_tensors_is_added_to_both(tmp_path, where, ties, part):
    shapes = {"model.embed_tokens.weight": (8, 4), "lm_head.weight": (8, 4)}
    says = {"tie_word_embeddings": ties}
    config = {"vision_config": {"tie_word_embeddings": not ties}, **({part: says} if part else says)}
    base = tiny_checkpoint(tmp_path / "base", tensors=shapes, config=config)
    adapter = write_adapter(tmp_path / "a", linear_factors({f"{where}.weight": (8, 4)}), base)
    assert (
        AdaptedCheckpoint(adapter, Checkpoint(base)).changes.keys()
        == (shapes if ties else {f"{where}.weight": 0}).keys()
    )


@pytest.mark.parametrize("name", ["transformer.wte", "model.shared"])
def test_embeddings_that_only_the_model_s_class_unties_are_refused_where_they_are_trained_apart(tmp_path, name):
    shapes = {f"{name}.weight": (8, 4), **UP}
    base = tiny_checkpoint(tmp_path / "base", tensors=shapes)
    whole = linear_factors(UP) | {f"{name}.weight": torch.ones(8, 4)}
    saved = {"modules_to_save": [name.rpartition(".")[2]]}
    apart = write_adapter(tmp_path / "apart", whole, base, **saved)
    not_kept = write_adapter(tmp_path / "not kept", whole, base, ensure_weight_tying=True, **saved)  # by PEFT
    for adapter in (apart, not_kept):
        with pytest.raises(CheckpointError, match=rf"trained apart from the output layer that the base ties to {name}"):
            AdaptedCheckpoint(adapter, Checkpoint(base))
    copied = write_adapter(tmp_path / "copied", whole, base)
    untied = tiny_checkpoint(tmp_path / "untied", tensors=shapes | {"lm_head.weight": (8, 4)})
    for adapter, start in ((copied, base), (apart, untied)):
        assert f"{name}.weight" in AdaptedCheckpoint(adapter, Checkpoint(start)).changes


NAMES = {
    "an older transformers'": ("model.layers.0.up", "visual.blocks.0.qkv", "lm_head"),
    "a newer one's": ("model.language_model.layers.0.up", "model.visual.blocks.0.qkv", "lm_head"),
    "LLaVA's": ("language_model.model.layers.0.up", "visual.blocks.0.qkv", "language_model.lm_head"),
}


@pytest.mark.parametrize("on_disk", NAMES)
@pytest.mark.parametrize("in_memory", NAMES)
def test_names_in_memory_are_found_on_disk_whatever_transformers_called_them(tmp_path, on_disk, in_memory):
    base = tiny_checkpoint(tmp_path / "base", tensors={f"{name}.weight": (6, 4) for name in NAMES[on_disk]})
    factors = linear_factors({f"{name}.weight": (6, 4) for name in NAMES[in_memory]})
    adapted = AdaptedCheckpoint(write_adapter(tmp_path / "a", factors, base), Checkpoint(base))
    for name, other in zip(NAMES[on_disk], NAMES[in_memory], strict=True):
        (delta,) = adapted.changes[f"{name}.weight"].deltas
        assert delta.left.name == f"base_model.model.{other}.lora_B.weight"


def test_what_training_tools_leave_beside_an_adapter_does_no_harm(tmp_path):
    base = tiny_checkpoint(tmp_path / "base", tensors=UP)
    config = {"loftq_config": {}, "eva_config": None, "megatron_config": None, "megatron_core": "megatron.core"}
    config |= {"trainable_token_indices": None, "use_qalora": False, "qalora_group_size": 16, "corda_config": None}
    adapter = write_adapter(tmp_path / "a", linear_factors(UP), base, **config)
    for name in ("args.json", "additional_config.json", "trainer_state.json", "README.md", "chat_template.jinja"):
        (adapter / name).write_text("{}")
    for name in ("training_args.bin", "optimizer.pt", "value_head.safetensors"):
        (adapter / name).write_bytes(b"")
    adapted = AdaptedCheckpoint(adapter, Checkpoint(base))
    assert len(adapted.changes) == 1
    assert "not read, since PEFT would not load them: value_head.safetensors" in adapted.warnings[0]
