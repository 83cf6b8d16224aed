"""Which values of `config.json` no mean can have both of, and which do not matter."""

from __future__ import annotations

import copy
import json

import pytest

from soup.checkpoints.config_differences import config_differences
from soup.report.pool_check import check
from tests.helpers.tiny_architectures import ARCHITECTURES, working_config
from tests.helpers.toy_pools import make_checkpoint

CONFIG = {
    "model_type": "toy",
    "architectures": ["Toy"],
    "dtype": "bfloat16",
    "transformers_version": "5.23.0",
    "image_token_id": 5,
    "vision_feature_layer": -2,
    "tie_word_embeddings": False,
    "use_cache": True,
    "max_dynamic_patch": 6,
    "tokenizer_padding_side": "right",
    "freeze_layers": 1,
    "vision_start_token_id": 9,
    "text_config": {
        "dtype": "bfloat16",
        "rope_parameters": {"rope_theta": 1e6, "rope_type": "default", "mrope_section": [2, 1, 1]},
        "rms_norm_eps": 1e-6,
        "num_attention_heads": 4,
        "hidden_act": "silu",
        "sliding_window": None,
        "eos_token_id": 2,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
    },
    "vision_config": {"image_size": 448, "patch_size": 14, "_name_or_path": "x", "layer_norm_eps": 1e-5},
}

ARITHMETIC = {
    "text_config.rope_parameters.rope_theta": 10000.0,
    "text_config.rope_parameters.mrope_section": [1, 1, 2],
    "text_config.rms_norm_eps": 1e-5,
    "text_config.num_attention_heads": 8,
    "text_config.hidden_act": "gelu",
    "text_config.sliding_window": 4096,
    "vision_config.image_size": 224,
    "vision_config.patch_size": 16,
    "vision_config.layer_norm_eps": 1e-6,
    "vision_feature_layer": -1,
    "image_token_id": 6,
    "vision_start_token_id": 7,
    "tie_word_embeddings": True,
}
TOLD = {
    "use_cache": False,
    "max_dynamic_patch": 12,
    "tokenizer_padding_side": "left",
    "freeze_layers": 2,
    "text_config.eos_token_id": 3,
    "text_config.attention_dropout": 0.1,
    "text_config.initializer_range": 0.01,
}
SILENT = {
    "dtype": "float32",
    "text_config.dtype": "float16",
    "transformers_version": "4.57.1",
    "vision_config._name_or_path": "y",
}


def changed(path, value):
    config = copy.deepcopy(CONFIG)
    *folders, key = path.split(".")
    part = config
    for folder in folders:
        part = part[folder]
    part[key] = value
    return config


def report(tmp_path, config):
    make_checkpoint(tmp_path / "ckpts/a", 1, config=CONFIG)
    make_checkpoint(tmp_path / "ckpts/b", 2, config=config)
    return check(tmp_path / "ckpts")


@pytest.mark.parametrize("path", ARITHMETIC)
def test_a_value_that_changes_the_arithmetic_is_a_problem_with_its_path_and_both_values(tmp_path, path):
    (only,) = report(tmp_path, changed(path, ARITHMETIC[path])).problems
    before = CONFIG
    for key in path.split("."):
        before = before[key]
    values = f"expected {json.dumps(before)} as in a, found {json.dumps(ARITHMETIC[path])}"
    assert str(only).startswith(f"b: config.json: {path}: {values}; it changes what the model computes. ")
    assert (only.kind, only.keys, only.against) == ("config", (path,), "a")
    assert (only.expected, only.found) == (json.dumps(before), json.dumps(ARITHMETIC[path]))


@pytest.mark.parametrize("path", TOLD)
def test_a_value_that_matters_in_training_or_answering_alone_is_told(tmp_path, path):
    pool_report = report(tmp_path, changed(path, TOLD[path]))
    assert pool_report.ok
    (warning,) = pool_report.warnings
    assert warning.startswith(f"b: config.json: {path}: ")


@pytest.mark.parametrize("path", SILENT)
def test_versions_of_tools_and_dtypes_are_silent(tmp_path, path):
    pool_report = report(tmp_path, changed(path, SILENT[path]))
    assert (pool_report.problems, pool_report.warnings) == ((), ())


def test_keys_that_only_one_version_of_transformers_writes_are_one_line_and_no_problem(tmp_path):
    config = changed("text_config.head_dim", 8)
    del config["vision_config"]["patch_size"]
    pool_report = report(tmp_path, config)
    assert pool_report.ok
    assert pool_report.warnings == (
        "b: config.json has keys more: text_config.head_dim (8) (held against a's)",
        "b: config.json lacks keys: vision_config.patch_size (14) (held against a's)",
    )


def test_rope_as_older_transformers_wrote_it_is_the_same_where_its_values_are():
    old = {"text_config": {"rope_theta": 1e6, "rope_scaling": {"type": "default", "mrope_section": [2, 1, 1]}}}
    new = {"text_config": {"rope_parameters": CONFIG["text_config"]["rope_parameters"]}}
    assert config_differences(old, new) == []
    new["text_config"]["rope_parameters"] = CONFIG["text_config"]["rope_parameters"] | {"rope_theta": 1e4}
    (difference,) = config_differences(old, new)
    assert difference == ("text_config.rope_theta", "1000000.0", "10000.0", True)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_config_does_not_differ_from_itself(name):
    config = working_config(name).to_dict()
    assert config_differences(config, copy.deepcopy(config)) == []
