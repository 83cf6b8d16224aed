"""Connectors against formulas written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import gelu, linear

from finetune.points.config import CONNECTORS
from finetune.points.connectors import (
    AttentionPoolConnector,
    LinearConnector,
    PoolConnector,
    ShuffleConnector,
    build_connector,
    pixel_shuffle,
)
from tests.helpers.tiny_points import points_config


def patches(grid=6, width=5, tiles=2):
    return torch.randn(tiles, grid, grid, width, generator=torch.Generator().manual_seed(0))


def square(x, tile, row, column, factor):
    """The patches of one square, row by row, as one long list of numbers."""
    rows, columns = range(row * factor, (row + 1) * factor), range(column * factor, (column + 1) * factor)
    return torch.cat([x[tile, r, c] for r in rows for c in columns])


def mlp(connector, feature):
    up, _, down = connector
    return linear(gelu(linear(feature, up.weight, up.bias)), down.weight, down.bias)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_a_shuffled_feature_is_its_square_of_patches_row_by_row(squares, factor, width):
    x = patches(squares * factor, width)
    shuffled = pixel_shuffle(x, factor)
    assert shuffled.shape == (2, squares**2, width * factor**2)
    for index in range(squares**2):
        assert torch.equal(shuffled[1, index], square(x, 1, index // squares, index % squares, factor))


@torch.no_grad()
def test_points_projects_each_square_by_an_mlp():
    x, connector = patches(), ShuffleConnector(5, 7, 2)
    tokens = connector(connector.arrange(x))
    assert tokens.shape == (2, 9, 7)
    for index in range(9):
        expected = mlp(connector, square(x, 1, index // 3, index % 3, 2))
        torch.testing.assert_close(tokens[1, index], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_molmo_projects_each_patch_by_an_mlp_and_takes_the_mean_of_a_square():
    x, connector = patches(), PoolConnector(5, 7, 3)
    tokens = connector(connector.arrange(x))
    assert tokens.shape == (2, 4, 7)
    for index in range(4):
        rows, columns = range(index // 2 * 3, index // 2 * 3 + 3), range(index % 2 * 3, index % 2 * 3 + 3)
        expected = torch.stack([mlp(connector, x[1, r, c]) for r in rows for c in columns]).mean(0)
        torch.testing.assert_close(tokens[1, index], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("heads", "layers"), [(1, 1), (4, 1), (4, 2)])
def test_molmo_as_released_computes_what_transformers_molmo2_computes(heads, layers):
    molmo2 = pytest.importorskip("transformers.models.molmo2.modeling_molmo2", reason="transformers before Molmo2")
    config = molmo2.Molmo2AdapterConfig(
        vision_feature_layer=[-1] * layers,
        hidden_size=8,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=8 // heads,
        intermediate_size=12,
        text_hidden_size=7,
    )
    oracle = molmo2.Molmo2Adapter(config)
    x, connector = patches(width=8 * layers), AttentionPoolConnector(8 * layers, 7, 2, encoder=8, heads=heads, inner=12)
    attention, mlp = oracle.image_pooling_2d, oracle.image_projector
    projections = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    for ours, theirs in zip(connector, [*projections, mlp.gate_proj, mlp.up_proj, mlp.down_proj], strict=True):
        theirs.load_state_dict(ours.state_dict())
    corners = torch.tensor([[r * 12 + c * 2 + i for i in (0, 1, 6, 7)] for r in range(3) for c in range(3)])
    tokens = connector(connector.arrange(x))
    assert tokens.shape == (2, 9, 7)
    expected = oracle(x.flatten(1, 2), torch.cat([corners, corners + 36])).last_hidden_state
    torch.testing.assert_close(tokens.flatten(0, 1), expected, rtol=1e-5, atol=1e-6)


def test_the_attention_of_molmos_connector_has_the_encoders_width_and_heads():
    connector = build_connector(points_config("clip", connector="attention-pool", vision_feature_layer=[-1, -3]))
    assert connector.heads == 2
    shapes = [(32, 64)] * 3 + [(32, 32)] + [(64, 32)] * 2 + [(48, 64)]
    assert [tuple(layer.weight.shape) for layer in connector] == shapes
    assert [layer.bias is None for layer in connector] == [False] * 4 + [True] * 3


@torch.no_grad()
def test_fuyu_has_one_linear_layer():
    x, connector = patches(), LinearConnector(5, 7, 1)
    tokens = connector(connector.arrange(x))
    assert [name for name, _ in connector.named_parameters()] == ["0.weight", "0.bias"]
    expected = linear(x[1, 2, 3], connector[0].weight, connector[0].bias)
    torch.testing.assert_close(tokens[1, 2 * 6 + 3], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CONNECTORS)
def test_all_connectors_give_as_many_tokens_as_the_config_says_from_any_number_of_encoders(name):
    config = points_config("clip", "siglip", name)
    connector = build_connector(config)
    arranged = connector.arrange(torch.zeros(3, config.grid, config.grid, config.feature_grid.width))
    both = torch.stack([arranged, arranged], dim=1)
    assert connector(both).shape == (3, 2, config.tokens_per_tile, config.text_config.hidden_size)


@pytest.mark.parametrize("name", CONNECTORS)
def test_arranging_takes_no_weights_and_loses_no_number(name):
    config = points_config("clip", connector=name)
    x = torch.arange(16 * 32.0).reshape(1, 4, 4, 32)
    arranged = build_connector(config).arrange(x)
    assert not arranged.requires_grad
    assert torch.equal(arranged.flatten().sort().values, x.flatten())
