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
    for place in range(squares**2):
        assert torch.equal(shuffled[1, place], square(x, 1, place // squares, place % squares, factor))


@torch.no_grad()
def test_points_projects_each_square_by_an_mlp():
    x, connector = patches(), ShuffleConnector(5, 7, 2)
    tokens = connector(connector.arrange(x))
    assert tokens.shape == (2, 9, 7)
    for place in range(9):
        expected = mlp(connector, square(x, 1, place // 3, place % 3, 2))
        torch.testing.assert_close(tokens[1, place], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_molmo_projects_each_patch_by_an_mlp_and_takes_the_mean_of_a_square():
    x, connector = patches(), PoolConnector(5, 7, 3)
    tokens = connector(connector.arrange(x))
    assert tokens.shape == (2, 4, 7)
    for place in range(4):
        rows, columns = range(place // 2 * 3, place // 2 * 3 + 3), range(place % 2 * 3, place % 2 * 3 + 3)
        expected = torch.stack([mlp(connector, x[1, r, c]) for r in rows for c in columns]).mean(0)
        torch.testing.assert_close(tokens[1, place], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("width", "heads"), [(5, 1), (128, 2)])
def test_molmo_as_released_pools_each_square_by_attention_of_its_mean(width, heads):
    x, connector = patches(width=width), AttentionPoolConnector(width, 7, 2)
    tokens = connector(connector.arrange(x))
    assert tokens.shape == (2, 9, 7)
    query, key, value, output, up, _, down = connector
    oracle = torch.nn.MultiheadAttention(width, heads, batch_first=True)
    oracle.in_proj_weight.copy_(torch.cat([query.weight, key.weight, value.weight]))
    oracle.in_proj_bias.copy_(torch.cat([query.bias, key.bias, value.bias]))
    oracle.out_proj.load_state_dict(output.state_dict())
    for place in range(9):
        window = square(x, 1, place // 3, place % 3, 2).view(1, 4, width)
        attended, _ = oracle(window.mean(1, keepdim=True), window, window)
        expected = linear(gelu(linear(attended[0, 0], up.weight, up.bias)), down.weight, down.bias)
        torch.testing.assert_close(tokens[1, place], expected, rtol=1e-5, atol=1e-6)


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
