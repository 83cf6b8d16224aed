"""What tensors are called on the Hub, for programs that do not know transformers' own new names."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from soup.hf.key_mapping import names_on_hub
from tests.helpers.vlm_families import FAMILIES, save_family

RENAMED = ("gemma3", "llava", "llava_onevision", "paligemma")
"""Whose vision towers lost a level of modules in transformers 5."""


@pytest.mark.parametrize("kind", RENAMED)
def test_what_transformers_5_saves_gets_the_hub_s_names_and_loads_as_the_same_model(kind, tmp_path):
    file = save_family(kind, tmp_path / "m", 0) and tmp_path / "m" / "model.safetensors"
    tensors, model = load_file(file), AutoModelForImageTextToText.from_pretrained(tmp_path / "m").state_dict()
    names = names_on_hub(tmp_path / "m", tensors)
    assert names == {
        name: name.replace("vision_tower.", "vision_tower.vision_model.")
        for name in tensors
        if name.startswith("vision_tower.")
    }
    save_file({names.get(name, name): values for name, values in tensors.items()}, file, {"format": "pt"})
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "m").state_dict()
    assert again.keys() == model.keys()
    assert all(torch.equal(again[name], values) for name, values in model.items())
    assert names_on_hub(tmp_path / "m", load_file(file)) == {}


@pytest.mark.parametrize("kind", sorted(FAMILIES.keys() - set(RENAMED)))
def test_what_is_called_as_on_the_hub_stays(kind, tmp_path):
    save_family(kind, tmp_path / "m", 0)
    assert names_on_hub(tmp_path / "m", load_file(tmp_path / "m" / "model.safetensors")) == {}


def test_of_a_class_that_transformers_does_not_have_nothing_is_said(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "unheard_of", "architectures": ["Unheard"]}')
    assert names_on_hub(tmp_path, ["a", "b"]) == {}
