"""Parts of models by name: frozen, trained in part, with rates of their own, adapted and merged back."""

from __future__ import annotations

import copy

import pytest
import torch

from finetune.config import TrainSettings
from finetune.training.adapters import attach, fold, language_layers
from finetune.training.components import (
    choose_trained,
    find_part,
    find_projector,
    last_layers,
    learning_rates,
    parameter_groups,
    part_names,
)
from soup.errors import FinetuneError
from tests.helpers.tiny_architectures import ARCHITECTURES
from tests.helpers.tiny_architectures import tiny_model as architecture
from tests.helpers.training_basics import BASICS, tiny_model
from tests.helpers.vlm_families import FAMILIES, character_tokenizer

FOREIGN = {"llava": "vision_tower", "qwen2_vl": "visual", "internvl": "vision_tower", "qwen3_vl": "visual"}


def settings(**changed):
    return TrainSettings(**{**BASICS, **changed})


def foreign(kind):
    from transformers import AutoModelForImageTextToText

    family = FAMILIES[kind]
    config = family.config(character_tokenizer(family.specials, **family.named))
    return AutoModelForImageTextToText.from_config(config)


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def chosen(model, **changed):
    choose_trained(model, settings(**changed))
    return trained(model)


def test_all_is_trained_that_nothing_is_said_of():
    model, _ = tiny_model()
    assert chosen(model) == {name for name, _ in model.named_parameters()}


def test_a_frozen_part_is_all_that_stays():
    model, _ = tiny_model()
    names = {name for name, _ in model.named_parameters()}
    expected = {name for name in names if not name.startswith(("ocr_vit.", "llm.model.norm"))}
    assert chosen(model, freeze=["ocr_vit", "llm.model.norm"]) == expected


def test_the_last_layers_are_those_that_are_asked():
    # hidden_states[-2] is what the last layer but one gives: the tiny encoder's third layer never learns.
    model, _ = tiny_model()
    assert last_layers(model, "general_vit", 1) == ["general_vit.encoder.layers.1"]
    assert last_layers(model, "llm", 1) == ["llm.model.layers.2"]
    names = chosen(model, train={"general_vit": "last 1"}, freeze=["ocr_vit", "llm"])
    projector = {name for name in names if name.startswith("vision_projector.")}
    assert len(projector) == 4
    assert all(name.startswith("general_vit.encoder.layers.1.") for name in names - projector)
    assert len(names - projector) == 16


def test_where_several_hidden_states_are_joined_the_last_layers_end_at_the_deepest_one():
    model, _ = tiny_model()
    for layers, last in (([-4, -2], 1), ([-1, -3], 2), ([-3, -3], 0)):
        model.config.vision_feature_layer = layers
        assert last_layers(model, "general_vit", 1) == [f"general_vit.encoder.layers.{last}"]


def test_all_and_none_of_a_part():
    model, _ = tiny_model()
    assert chosen(model, train={"llm": "none", "ocr_vit": "all"}) == {
        name for name, _ in model.named_parameters() if not name.startswith("llm.")
    }


def test_a_tied_weight_is_trained_only_if_both_its_parts_are():
    model, _ = tiny_model()
    assert "llm.model.embed_tokens.weight" not in chosen(model, freeze=["llm.lm_head"])


@pytest.mark.parametrize("kind", FOREIGN)
def test_parts_of_any_model_are_found_by_the_end_of_their_place(kind):
    model, tower = foreign(kind), FOREIGN[kind]
    assert find_part(model, tower) == f"model.{tower}"
    assert tower in part_names(model)
    assert "language_model" in part_names(model)
    names = chosen(model, freeze=["language_model"], train={tower: "last 1"})
    within = {name for name in names if name.startswith(f"model.{tower}.")}
    assert within
    assert within < {name for name, _ in model.named_parameters() if name.startswith(f"model.{tower}.")}
    assert not any("language_model" in name for name in names)


@pytest.mark.parametrize("kind", FOREIGN)
def test_adapters_sit_in_the_language_model_of_any_family(kind):
    model = foreign(kind)
    layers = language_layers(model)
    assert layers
    assert all("language_model" in name for name in layers)
    assert not any("head" in name for name in layers)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_projector_of_any_family_is_found(name):
    parts = {"smolvlm": ["model.connector"], "idefics3": ["model.connector"], "blip-2": ["language_projection"]}
    parts["qwen2_vl"] = parts["qwen2_5_vl"] = ["model.visual.merger"]
    parts["qwen3_vl"] = ["model.visual.merger", "model.visual.deepstack_merger_list"]
    assert find_projector(architecture(name)) == parts.get(name, ["model.multi_modal_projector"])


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_parts_that_adapters_save_by_default_are_the_family_s_own_projector(kind):
    model = foreign(kind)
    train_settings = settings(lora={"rank": 4})
    attach(model, train_settings)
    names = {name for name in chosen(model, lora={"rank": 4}) if ".lora_" not in name}
    assert names
    assert all("merger" in name or "multi_modal_projector" in name for name in names)


def test_every_wrong_word_is_told_with_what_was_meant():
    model, _ = tiny_model()
    wrong = settings(
        freeze=["ocr_vi"],
        train={"llm": "last 30", "vision_projector": "last 1"},
    )
    with pytest.raises(FinetuneError) as error:
        choose_trained(model, wrong)
    message = str(error.value)
    assert "3 wrong" in message
    assert "Did you mean 'ocr_vit'? Known: general_vit, llm, ocr_vit, vision_projector." in message
    for words in ("llm has 3 layers", "vision_projector has no layers"):
        assert words in message


def test_what_is_both_frozen_and_trained_is_told():
    model, _ = tiny_model()
    with pytest.raises(FinetuneError, match="general_vit: both"):
        choose_trained(model, settings(freeze=["general_vit"], train={"general_vit": "last 1"}))


def test_rates_are_those_of_the_innermost_part():
    model, _ = tiny_model()
    train_settings = settings(
        freeze=["ocr_vit"], lr_overrides={"llm": 1e-4, "llm.model.layers.2": 3e-4, "vision_projector": 5e-4}
    )
    choose_trained(model, train_settings)
    rates = learning_rates(model, train_settings)
    assert rates["llm.model.layers.2.mlp.up_proj.weight"] == 3e-4
    assert rates["llm.model.layers.1.mlp.up_proj.weight"] == 1e-4
    assert rates["vision_projector.0.weight"] == 5e-4
    assert rates["general_vit.embeddings.class_embedding"] == BASICS["lr"]
    assert rates.keys() == trained(model)


def test_each_parameter_is_in_one_group_of_its_rate_and_decay():
    model, _ = tiny_model()
    train_settings = settings(weight_decay=0.1, lr_overrides={"llm": 1e-4})
    choose_trained(model, train_settings)
    decayed = {name for name, parameter in model.named_parameters() if parameter.dim() > 1}
    groups = parameter_groups(model, train_settings, decayed)
    assert groups[0]["lr"] == BASICS["lr"]
    where = {id(parameter): group for group in groups for parameter in group["params"]}
    assert len(where) == sum(len(group["params"]) for group in groups) == len(trained(model))
    for name, parameter in model.named_parameters():
        group = where[id(parameter)]
        assert group["lr"] == (1e-4 if name.startswith("llm.") else BASICS["lr"])
        assert group["weight_decay"] == (0.1 if name in decayed else 0.0)


def test_a_rate_for_what_is_not_trained_is_told():
    model, _ = tiny_model()
    train_settings = settings(freeze=["ocr_vit"], lr_overrides={"ocr_vit": 1e-4, "projector": 1e-4})
    choose_trained(model, train_settings)
    with pytest.raises(FinetuneError, match=r"(?s)2 wrong.*called projector.*ocr_vit: nothing of it is trained"):
        learning_rates(model, train_settings)


def test_nothing_left_to_train_is_told():
    model, _ = tiny_model()
    train_settings = settings(freeze=["general_vit", "ocr_vit", "vision_projector", "llm"])
    choose_trained(model, train_settings)
    with pytest.raises(FinetuneError, match="nothing is left to train"):
        learning_rates(model, train_settings)


def adapted(**lora):
    """A model with adapters that do something: B is zero at first."""
    model, processor = tiny_model()
    train_settings = settings(lora=lora, freeze=["general_vit", "ocr_vit"])
    plain = copy.deepcopy(model)
    attach(model, train_settings)
    choose_trained(model, train_settings)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05, generator=generator)
    return plain, model.eval(), train_settings, processor


def test_with_adapters_only_they_and_what_is_saved_are_trained():
    _, model, _, _ = adapted()
    assert {name.split(".")[0] for name in trained(model)} == {"llm", "vision_projector"}
    assert all("lora_" in name for name in trained(model) if name.startswith("llm"))


def test_folded_weights_have_the_names_and_shapes_that_they_had():
    plain, model, adapter, _ = adapted(rank=4, alpha=6)
    folded = fold(model.state_dict(), adapter)
    assert {name: tensor.shape for name, tensor in folded.items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items()
    }
    assert not any("lora" in name or "base_layer" in name for name in folded)


def test_a_folded_weight_is_w_plus_alpha_over_r_b_a():
    plain, model, adapter, _ = adapted(rank=4, alpha=6)
    folded, state = fold(model.state_dict(), adapter), model.state_dict()
    name = "llm.model.layers.1.mlp.up_proj"
    down, up = (state[f"{name}.lora_{which}.default.weight"].double() for which in "AB")
    expected = plain.state_dict()[f"{name}.weight"].double() + 6 / 4 * up @ down
    assert (folded[f"{name}.weight"] - expected).abs().max() < 1e-6
    assert torch.equal(folded["llm.model.embed_tokens.weight"], plain.state_dict()["llm.model.embed_tokens.weight"])


def test_the_folded_model_answers_as_the_adapted_one():
    plain, model, adapter, processor = adapted(target=r"llm\.model\..*proj", rank=4)
    tokens = processor.tokenizer("What is seen here?", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        wanted, before = model(input_ids=tokens).logits, plain.eval()(input_ids=tokens).logits
        plain.load_state_dict(fold(model.state_dict(), adapter))
        merged = plain(input_ids=tokens).logits
    assert (wanted - before).abs().max() > 1e-2
    assert (merged - wanted).abs().max() < 2e-5 * wanted.abs().max()


def test_folding_agrees_with_peft_s_own_merge():
    from peft.tuners.lora import LoraLayer

    _, model, adapter, _ = adapted()
    folded = fold(model.state_dict(), adapter)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, layer in layers.items():
        layer.merge()
        assert torch.allclose(folded[f"{name}.weight"], layer.get_base_layer().weight, atol=1e-6)
    assert len(layers) == 21


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("q_proj", r"found within 9 names, but has to match the whole: \.\*q_proj\.\* would"),
        (".*q_prj", "Did you mean 'q_proj'"),
        (r"llm\.model\.norm", "matches no linear layer"),
        (r".*ocr_vit.*q_proj", r"ocr_vit\.encoder\.layers\.0\.self_attn\.q_proj: frozen by `freeze`"),
        (r".*lm_head", r"lm_head: its weight is another part's"),
    ],
)
def test_a_target_that_can_t_be_adapted_is_told_with_what_is_near(target, words):
    model, _ = tiny_model()
    with pytest.raises(FinetuneError, match=words):
        attach(model, settings(lora={"target": target}, freeze=["ocr_vit"]))


def test_what_is_saved_beside_adapters_has_to_exist():
    model, _ = tiny_model()
    train_settings = settings(lora={"save": ["projector"]})
    attach(model, train_settings)
    with pytest.raises(FinetuneError, match=r"lora\.save: no part is called projector\. Did you mean"):
        choose_trained(model, train_settings)
