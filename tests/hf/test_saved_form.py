"""A module in memory as its saved form is once it is loaded; the oracles are transformers' and PEFT's own."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, Qwen2Config, Qwen2ForCausalLM

from soup.errors import CheckpointError
from soup.hf.saved_form import buffers_made_anew, without_adapters
from tests.helpers.training_basics import tiny_model
from tests.helpers.vlm_families import FAMILIES, save_family

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
FACTORS = r".*llm.*(q_proj|v_proj)"


@pytest.mark.parametrize("convert", [torch.nn.Module.half, torch.nn.Module.bfloat16])
@pytest.mark.parametrize("kind", [*FAMILIES])
def test_buffers_that_a_conversion_rounded_are_made_as_loading_makes_them(kind, convert, tmp_path):
    save_family(kind, tmp_path / "start", seed=3)
    module = convert(AutoModelForImageTextToText.from_pretrained(tmp_path / "start"))
    module.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")
    for part, name, values in buffers_made_anew(module):
        part.register_buffer(name, values, persistent=False)
    theirs = dict(loaded.named_buffers())
    for name, buffer in module.named_buffers():
        assert (buffer.dtype, name) == (theirs[name].dtype, name)
        assert torch.equal(buffer, theirs[name]), name


def test_a_module_that_nobody_converted_has_none_to_make_anew():
    assert buffers_made_anew(tiny_model()[0]) == []


def adapted(**settings):
    model = tiny_model(seed=3)[0]
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(r=2, target_modules=FACTORS, init_lora_weights=False, **settings))


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_dora": True}, {"modules_to_save": ["vision_projector"]}],
    ids=["lora", "dora", "modules_to_save"],
)
def test_adapters_are_merged_as_peft_merges_them_and_the_module_is_left_as_it_was(settings, tmp_path):
    module = adapted(**settings)
    with torch.no_grad():  # what is saved whole differs from the start, too
        for name, parameter in module.named_parameters():
            if "modules_to_save" in name:
                parameter.normal_()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    copy.deepcopy(module).merge_and_unload().save_pretrained(tmp_path / "theirs")
    with without_adapters(module) as model:
        model.save_pretrained(tmp_path / "ours")
    ours, theirs = (load_file(tmp_path / each / "model.safetensors") for each in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    after = module.state_dict()
    assert [*before] == [*after]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_layers_of_one_weight_have_one_merged_weight(tmp_path):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 11}
    model = Qwen2ForCausalLM(
        Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True)
    )
    module = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[3, 5]))
    with torch.no_grad():
        module.get_input_embeddings().token_adapter.trainable_tokens_delta["default"].normal_()
    with without_adapters(module) as plain:
        assert plain.lm_head.weight is plain.get_input_embeddings().weight
        plain.save_pretrained(tmp_path / "ours")
    module.merge_and_unload().save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / each / "model.safetensors") for each in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_adapters_that_are_switched_off_are_left_out(tmp_path):
    module = adapted(modules_to_save=["vision_projector"])
    start = tiny_model(seed=3)[0].state_dict()
    with module.disable_adapter(), without_adapters(module) as model:
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert state.keys() == start.keys()
    assert all(torch.equal(state[name], start[name]) for name in start)


def test_adapters_that_transformers_holds_itself_are_merged_too(tmp_path):
    module = tiny_model(seed=3)[0]
    torch.manual_seed(1)
    module.add_adapter(LoraConfig(r=2, target_modules=FACTORS, init_lora_weights=False))
    with without_adapters(module) as model:
        model.save_pretrained(tmp_path / "ours")
    adapted().merge_and_unload().save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / each / "model.safetensors") for each in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert module._hf_peft_config_loaded


def test_learnt_prompts_are_no_weights_of_a_checkpoint():
    model = tiny_model()[0]
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, num_layers=1, token_dim=8)
    module = get_peft_model(model, config)
    with pytest.raises(CheckpointError, match="its adapter is learnt prompts"), without_adapters(module):
        pass
