"""Hot swap where transformers converts tensors on loading: experts in one tensor, queries, keys and values apart."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from soup.errors import CheckpointError
from soup.hf.key_mapping import plan_loading
from tests.helpers.case_parts import some_of
from tests.helpers.converted_families import CONVERTED, tiny_converted
from tests.helpers.hot_swaps import bare_swap, candidate_of, load, on_disk
from tests.helpers.merge_oracle import same_bits

DOWN = "model.language_model.layers.0.mlp.experts.{}.down_proj.weight"
"""An expert's tensor in the files of qwen3_5_moe."""


def write_models(folder, family):
    """Two fine-tunes of one start, which is written and read first: transformers keeps some tensors in float32."""
    torch.manual_seed(0)
    tiny_converted(family).save_pretrained(folder / "start")
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_pretrained(folder / "start", dtype=torch.bfloat16)
        for index, parameter in enumerate(model.parameters()):
            if index % 5:  # the others are the same in both
                parameter.data.add_(0.05 * torch.randn_like(parameter))
        model.save_pretrained(folder / "pool" / f"m{seed}")
    return folder / "pool"


def logits(module):
    tokens = torch.arange(20, 36)[None]
    with torch.inference_mode():
        return module.eval()(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits


@pytest.mark.parametrize("family", some_of(CONVERTED))
def test_what_transformers_converts_is_streamed_bit_for_bit_and_never_written(family, tmp_path, monkeypatch):
    pool, swap, modules = write_models(tmp_path, family), bare_swap(monkeypatch), set()
    for weights in ([0.5, 0.5], [0.25, 0.75]):  # the second goes where the first is
        with candidate_of(pool, tmp_path / "home", weights=weights) as candidate:
            module = swap.model_for(candidate).module
            modules.add(id(module))
            assert plan_loading(module, on_disk(candidate.template)).conversions
            assert not (tmp_path / "home").exists()
            fresh = load(candidate.directory())
            held, read = module.state_dict(), fresh.state_dict()
            assert held.keys() == read.keys()
            assert all(same_bits(values, read[name]) for name, values in held.items())
            assert same_bits(logits(module), logits(fresh))
    assert len(modules) == 1


def damaged(pool, change):
    """The pool with `change` made to the tensors of every model."""
    for path in pool.iterdir():
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return pool


def lose_an_expert(tensors):
    del tensors[DOWN.format(3)]


def cut_an_expert(tensors):
    tensors[DOWN.format(3)] = tensors[DOWN.format(3)][:, :8].contiguous()


def widen_an_expert(tensors):
    tensors[DOWN.format(3)] = tensors[DOWN.format(3)].float()


DAMAGES = {
    lose_an_expert: r"expected shape \[12, 32, 16\], found \[11, 32, 16\]",
    cut_an_expert: r"experts\.0\.down_proj.weight and what is converted with it: RuntimeError: stack expects",
    widen_an_expert: r"ValueError: .*experts\.3\.down_proj.weight: expected torch.bfloat16, found torch.float32",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_experts_that_do_not_fit_are_told_and_nothing_is_touched(damage, tmp_path):
    pool = write_models(tmp_path, "qwen3_5_moe")
    module = load(pool / "m1")
    before = {name: values.clone() for name, values in module.state_dict().items()}
    with candidate_of(damaged(pool, damage), tmp_path / "home") as candidate:
        plan = plan_loading(module, on_disk(candidate.template))
        with pytest.raises(CheckpointError, match=DAMAGES[damage]):
            candidate.load_into(module, *plan)
    assert all(same_bits(values, before[name]) for name, values in module.state_dict().items())


def test_experts_that_share_one_memory_are_not_streamed(tmp_path):
    pool = write_models(tmp_path, "qwen3_5_moe")
    module = load(pool / "m1")
    first, second = (layer.mlp.experts for layer in module.model.language_model.layers)
    second.down_proj = first.down_proj
    with candidate_of(pool, tmp_path / "home") as candidate:
        plan = plan_loading(module, on_disk(candidate.template))
        with pytest.raises(CheckpointError, match=r"down_proj \(converted\): the module has one memory for it and for"):
            candidate.load_into(module, *plan)


def test_a_checkpoint_with_experts_both_apart_and_together_is_not_streamed(tmp_path):
    path = write_models(tmp_path, "qwen3_5_moe") / "m1"
    together = DOWN.format(0).replace(".0.down_proj.weight", ".down_proj")
    with pytest.raises(LookupError, match=r"transformers loads both into .*layers\.0\.mlp\.experts\.down_proj"):
        plan_loading(load(path), [*on_disk(path), together])


def test_a_module_that_is_quantised_on_loading_is_not_streamed_into(tmp_path):
    path = write_models(tmp_path, "qwen3_5_moe") / "m1"
    module = load(path)
    module.hf_quantizer = object()
    with pytest.raises(LookupError, match="quantises it on loading"):
        plan_loading(module, on_disk(path))


def test_what_transformers_casts_on_loading_is_loaded_from_the_candidate_s_directory(tmp_path, monkeypatch, caplog):
    def narrow(tensors):
        tensors |= {name: values.bfloat16() for name, values in tensors.items()}

    pool = damaged(write_models(tmp_path, "glm4v_moe"), narrow)
    with candidate_of(pool, tmp_path / "home") as candidate, caplog.at_level(logging.WARNING):
        module = bare_swap(monkeypatch).model_for(candidate).module
        assert "e_score_correction_bias: expected dtype float32, found bfloat16" in caplog.text
        fresh = load(candidate.directory()).state_dict()
    assert all(same_bits(values, fresh[name]) for name, values in module.state_dict().items())
