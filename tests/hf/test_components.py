"""Which component a tensor belongs to, by its name alone."""

from __future__ import annotations

import pytest

from soup.hf.components import component_of, group_by_component


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("vision_tower.encoder.layers.0.weight", "vision_tower"),
        ("language_model.model.layers.0.weight", "language_model"),
        ("model.vision_tower.encoder.weight", "model.vision_tower"),
        ("model.norm.weight", "model.norm"),
        ("base_model.model.lm_head.weight", "base_model.model"),
        ("module.projector.weight", "module.projector"),
        ("model.weight", "model"),
        ("model_ema.tower.weight", "model_ema"),
        ("lm_head.weight", "lm_head"),
        ("head", "head"),
        ("", ""),
    ],
)
def test_the_first_word_that_tells_parts_apart_is_the_component(name, component):
    assert component_of(name) == component


def test_groups_and_their_names_keep_their_order():
    names = ["model.vision.b", "lm_head.weight", "model.vision.a", "model.text.norm", "lm_head.bias"]
    assert [*group_by_component(names).items()] == [
        ("model.vision", ["model.vision.b", "model.vision.a"]),
        ("lm_head", ["lm_head.weight", "lm_head.bias"]),
        ("model.text", ["model.text.norm"]),
    ]
    assert group_by_component([]) == {}
