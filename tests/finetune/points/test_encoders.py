"""What encoders see, against the hidden states that transformers' own vision models give."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, BertConfig, CLIPConfig, T5Config

from finetune.points.config import PatchesConfig, feature_grid_of
from finetune.points.encoders import Patches, build_encoder, encode_tiles, idle_parameters
from tests.helpers.tiny_points import ENCODERS, TILE

WITH_WEIGHTS = [name for name in ENCODERS if name != "none"]


def config_of(name):
    options = dict(ENCODERS[name])
    return AutoConfig.for_model(options.pop("model_type"), **options)


def encoder(name):
    torch.manual_seed(0)
    return build_encoder(config_of(name)).eval()


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(3, 3, TILE, TILE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("layer", [-1, -2, -3, -4])
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_what_is_seen_is_transformers_own_hidden_state_without_the_class_token(name, layer, pixels):
    vit = encoder(name)
    state = vit(pixels, output_hidden_states=True).hidden_states[layer]
    sight = feature_grid_of(vit.config, layer)
    if state.ndim == 4:
        expected = state.permute(0, 2, 3, 1)
    else:
        first = {"siglip": 0}.get(name, 1)  # SigLIP has no class token
        expected = state[:, first:].reshape(3, sight.grid, sight.grid, -1)
    features = encode_tiles(vit, pixels, layer)
    assert features.shape == (3, sight.grid, sight.grid, sight.width)
    assert (features - expected).abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize("layers", [[-2, -4], [-4, -2], [-3, -3]], ids=str)
@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2"])
def test_of_several_layers_the_features_are_joined_patch_by_patch_in_the_order_named(name, layers, pixels):
    vit = encoder(name)
    features = encode_tiles(vit, pixels, layers)
    assert features.shape == (3, 4, 4, 64)
    assert feature_grid_of(vit.config, layers).width == 64
    assert torch.equal(features, torch.cat([encode_tiles(vit, pixels, layer) for layer in layers], dim=-1))


@pytest.mark.parametrize("name", ["clip", "dinov2"])
def test_of_several_layers_a_weight_is_idle_if_none_depends_on_it(name, pixels):
    vit = encoder(name)
    encode_tiles(vit, pixels, (-4, -2)).square().sum().backward()
    idle = {id(parameter) for parameter in idle_parameters(vit, (-4, -2))}
    assert idle
    for key, parameter in vit.named_parameters():
        assert (parameter.grad is None) == (id(parameter) in idle), key


def test_layers_of_grids_of_several_sizes_are_told():
    with pytest.raises(ValueError, match=r"\[-1, -2\] of convnext are grids of several sizes"):
        feature_grid_of(config_of("convnext"), [-1, -2])


def test_registers_are_left_out_with_the_class_token(pixels):
    options = {**ENCODERS["dinov2"], "num_register_tokens": 3}
    options.pop("model_type")
    torch.manual_seed(0)
    vit = build_encoder(AutoConfig.for_model("dinov2_with_registers", **options)).eval()
    state = vit(pixels, output_hidden_states=True).hidden_states[-2]
    assert torch.equal(encode_tiles(vit, pixels, -2), state[:, 4:].reshape(3, 4, 4, -1))


def test_a_convnext_halves_its_grid_from_stage_to_stage():
    config = config_of("convnext")  # 32 pixels in patches of 2
    assert [
        (feature_grid_of(config, layer).grid, feature_grid_of(config, layer).width) for layer in (-5, -4, -3, -2, -1)
    ] == [
        (16, 8),
        (16, 8),
        (8, 16),
        (4, 32),
        (2, 40),
    ]


def test_without_an_encoder_a_feature_is_the_pixels_of_a_patch(pixels):
    vit = Patches(PatchesConfig(image_size=TILE, patch_size=8))
    features = encode_tiles(vit, pixels, -2)
    assert features.shape == (3, 4, 4, 192)
    assert torch.equal(features[1, 2, 3].reshape(8, 8, 3), pixels[1, :, 16:24, 24:32].permute(1, 2, 0))
    assert not list(vit.parameters())


@pytest.mark.parametrize("layer", [-1, -2])
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_a_weight_is_idle_if_and_only_if_no_gradient_reaches_it(name, layer, pixels):
    vit = encoder(name)
    encode_tiles(vit, pixels, layer).square().sum().backward()
    idle = {id(parameter) for parameter in idle_parameters(vit, layer)}
    for key, parameter in vit.named_parameters():
        assert (parameter.grad is None) == (id(parameter) in idle), key


@pytest.mark.parametrize("name", ["clip", "siglip", "eva_clip"])
def test_later_layers_are_not_run_where_the_inner_order_is_known(name, pixels):
    vit, ran = encoder(name), []
    for i, layer in enumerate(vit.encoder.layers):
        layer.register_forward_hook(lambda *_, i=i: ran.append(i))
    encode_tiles(vit, pixels, -2)
    assert ran == list(range(len(vit.encoder.layers) - 1))


@pytest.mark.parametrize("config", [BertConfig(), T5Config()])
def test_a_model_that_takes_no_pixels_is_no_encoder(config):
    with pytest.raises(ValueError, match=f"{config.model_type}: not a vision model"):
        build_encoder(config)


def test_a_type_that_transformers_has_no_model_of_is_told():
    with pytest.raises(ValueError, match="transformers has no model of this type"):
        build_encoder(AutoConfig.for_model("clip_vision_model").__class__.__mro__[1]())


def test_a_layer_that_is_not_there_is_told():
    with pytest.raises(ValueError, match=r"expected -1 to -4 for clip_vision_model, found -5"):
        feature_grid_of(config_of("clip"), -5)


def test_a_configuration_without_sides_is_told():
    with pytest.raises(ValueError, match="image_size None, patch_size None"):
        feature_grid_of(CLIPConfig(), -2)


def test_tiles_of_another_size_are_told(pixels):
    with pytest.raises(ValueError, match="expected a hidden state of 4 x 4 patches"):
        encode_tiles(encoder("convnext"), torch.zeros(1, 3, 64, 64), -2)
