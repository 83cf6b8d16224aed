"""What names and shapes tell of a checkpoint before a weight is read, as `soup check` says it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, VeraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

import soup
from soup.checkpoints.dtypes import DTYPES, TensorSpec
from soup.checkpoints.tensor_names import abbreviate, is_counter, other_names, unmergeable, wrapped
from soup.cli.app import cli
from soup.errors import PoolError
from soup.merging.pool import Pool
from soup.testing import TINY_SHAPES, tiny_checkpoint, tiny_tensor
from tests.helpers.toy_pools import make_checkpoint


def tiny_llama():
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )


def specs(state):
    return [TensorSpec(name, DTYPES["F32"], tuple(value.shape)) for name, value in state.items()]


TUNERS = {
    "lora": LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "dora": LoraConfig(target_modules=["q_proj"], use_dora=True),
    "embedding": LoraConfig(target_modules=["embed_tokens"]),
    "tokens": LoraConfig(target_modules=["q_proj"], trainable_token_indices=[1]),
    "ia3": IA3Config(target_modules=["q_proj"], feedforward_modules=[]),
    "loha": LoHaConfig(target_modules=["q_proj"]),
    "lokr": LoKrConfig(target_modules=["q_proj"]),
    "oft": OFTConfig(target_modules=["q_proj"], oft_block_size=4, r=0),
    "vera": VeraConfig(target_modules=["q_proj"]),
}


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning", "ignore:.*save_embedding_layers:UserWarning"
)
@pytest.mark.parametrize("tuner", TUNERS)
def test_the_state_of_a_peft_model_and_its_factors_alone_can_not_be_averaged(tuner):
    model = get_peft_model(tiny_llama(), TUNERS[tuner])
    (whole,) = unmergeable(specs(model.state_dict()))
    assert "parts of a PEFT adapter" in str(whole)
    (factors,) = unmergeable(specs(get_peft_model_state_dict(model)))
    assert "merge_and_unload()" in str(factors)


def test_plain_models_have_no_adapter_s_names():
    names = ["model.layers.0.att.w_lora.lora.0.weight", "model.miss_rate", "q_a_proj.weight", "base_model.model.w"]
    assert not list(
        unmergeable([*specs(tiny_llama().state_dict()), *(TensorSpec(n, DTYPES["F32"], ()) for n in names)])
    )


def test_a_pool_of_peft_states_is_refused_before_weights_are_read(tmp_path):
    state = {
        "base_model.model.layers.0.q_proj.base_layer.weight": np.ones((4, 4), np.float32),
        "base_model.model.layers.0.q_proj.lora_A.default.weight": np.ones((1, 4), np.float32),
        "base_model.model.layers.0.q_proj.lora_B.default.weight": np.ones((4, 1), np.float32),
    }
    for name in "ab":
        make_checkpoint(tmp_path / "ckpts" / name, tensors=state)
    done = CliRunner().invoke(cli, ["check", "--pool", str(tmp_path / "ckpts")])
    assert done.exit_code == 1
    assert "prefix" not in done.output, "the cure of prefixes would not make it a model"
    for name in "ab":
        assert f"problem: {name}: 3 tensors are parts of a PEFT adapter" in done.stdout
    with pytest.raises(PoolError, match="not the mean of their products"):
        soup.cook("average", tmp_path / "ckpts", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_zero_3_did_not_gather_are_refused_and_named(tmp_path):
    state = {name: tiny_tensor(name, shape) for name, shape in TINY_SHAPES.items()}
    state["lm_head.weight"] = state["model.multi_modal_projector.linear.weight"] = torch.empty(0, dtype=torch.bfloat16)
    for name in "ab":
        tiny_checkpoint(tmp_path / "ckpts" / name, tensors=state)
    with Pool(tmp_path / "ckpts") as pool:
        with pytest.raises(PoolError, match="zero_to_fp32") as caught:
            pool.check()
        pool.check(drop=["lm_head.weight", "*projector*"])
    named = "lm_head.weight, model.multi_modal_projector.linear.weight."
    assert f"a: 2 of {len(state)} tensors are empty, of shape [0]: {named}" in str(caught.value)
    assert "b: 2 of" in str(caught.value)


def test_a_part_that_is_called_module_is_no_wrapper():
    assert wrapped(["module.w", "head.w"]) == []
    assert wrapped(["module.w", "module.head.w"]) == ["module.w", "module.head.w"]
    assert wrapped(["layers.0._orig_mod.w", "head.w"]) == ["layers.0._orig_mod.w"]


def by_name(*names, shape=(2,)):
    return {name: TensorSpec(name, DTYPES["F32"], shape) for name in names}


def test_the_same_tensors_under_other_prefixes_are_counted_by_both_prefixes():
    ours = by_name("model.layers.0.w", "model.layers.1.w", "lm_head.w")
    theirs = by_name("language_model.model.layers.0.w", "language_model.model.layers.1.w", "lm_head.w")
    assert other_names(ours, theirs) == {("", "language_model."): 2}
    theirs = by_name("module.layers.0.w", "module.layers.1.w", "lm_head.w")
    assert other_names(ours, theirs) == {("model.", "module."): 2}
    assert other_names(ours, ours) == {}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (by_name("model.a", "b"), by_name("a", "c")),  # another tensor
        (by_name("model.a", "b"), by_name("a")),  # one less
        (by_name("model.a", "b"), by_name("a", "b", shape=(3,))),
        (by_name("model.a", "a"), by_name("module.a", "base_model.a")),  # which of both is which?
        (by_name("model.a", "a"), by_name("a")),
        (by_name("a"), by_name("model.a", "a")),
    ],
)
def test_other_tensors_are_not_the_same_under_other_names(ours, theirs):
    assert other_names(ours, theirs) is None


def test_eight_names_are_listed_and_more_are_counted():
    assert abbreviate([]) == ""
    assert abbreviate([*"abcdefgh"]) == "a, b, c, d, e, f, g, h"
    assert abbreviate([*"abcdefghij"]) == "a, b, c, d, e, f, g, h, ... and 2 more"


def test_a_counter_is_one_whole_number_of_that_name():
    def counts(name, code, shape):
        return is_counter(TensorSpec(name, DTYPES[code], shape))

    assert counts("bn.num_batches_tracked", "I64", ())
    assert counts("bn.num_batches_tracked", "I32", (1,))
    assert not counts("bn.num_batches_tracked", "F32", ())
    assert not counts("bn.num_batches_tracked", "I64", (2,))
    assert not counts("position_ids", "I64", (1,))
