"""Sizes by name: their parameters counted by hand, without a weight in memory."""

from __future__ import annotations

import math

import pytest

from finetune.points.model import tensor_shapes
from finetune.points.presets import PRESETS, preset_config
from soup.errors import FinetuneError


def dense(inputs, outputs, bias=True):
    return inputs * outputs + (outputs if bias else 0)


def clip(width, layers, inner, side, patch):
    embeddings = width + dense(3 * patch**2, width, bias=False) + ((side // patch) ** 2 + 1) * width
    norm = 2 * width
    layer = 2 * norm + 4 * dense(width, width) + dense(width, inner) + dense(inner, width)
    return embeddings + norm + layers * layer + norm


def decoder(vocabulary, width, inner, layers, heads, keys, *, qkv_bias, tied):
    head = width // heads
    attention = (
        dense(width, width, qkv_bias) + 2 * dense(width, keys * head, qkv_bias) + dense(width, width, bias=False)
    )
    layer = 2 * width + attention + 3 * dense(width, inner, bias=False)
    return vocabulary * width * (1 if tied else 2) + layers * layer + width


def projector(patch, width):
    return dense(4 * patch, width) + dense(width, width)


CLIP_L_336 = clip(1024, 24, 4096, 336, 14)
BY_HAND = {
    "0.5b": 2 * CLIP_L_336 + projector(1024, 896) + decoder(151936, 896, 4864, 24, 14, 2, qkv_bias=True, tied=True),
    "7b": 2 * CLIP_L_336 + projector(1024, 3584) + decoder(152064, 3584, 18944, 28, 28, 4, qkv_bias=True, tied=False),
    "9b": 2 * CLIP_L_336 + projector(1024, 4096) + decoder(64000, 4096, 11008, 48, 32, 4, qkv_bias=False, tied=False),
}


def test_the_parts_have_the_sizes_that_their_makers_tell():
    assert CLIP_L_336 == 303_507_456
    assert decoder(151936, 896, 4864, 24, 14, 2, qkv_bias=True, tied=True) == 494_032_768
    assert decoder(152064, 3584, 18944, 28, 28, 4, qkv_bias=True, tied=False) == 7_615_616_512
    assert decoder(64000, 4096, 11008, 48, 32, 4, qkv_bias=False, tied=False) == 8_829_407_232


@pytest.mark.parametrize("name", BY_HAND)
def test_a_size_has_the_parameters_that_its_numbers_make(name):
    assert sum(math.prod(shape) for shape in tensor_shapes(preset_config(name)).values()) == BY_HAND[name]


@pytest.mark.parametrize("name", BY_HAND)
def test_published_sizes_make_144_tokens_of_a_tile_of_336(name):
    config = preset_config(name)
    assert (config.tile, config.tokens_per_tile, config.shuffled_size) == (336, 144, 4096)
    assert config.image_token_id < config.text_config.vocab_size


def test_the_tiny_size_is_tiny():
    assert 1_000_000 < sum(math.prod(shape) for shape in tensor_shapes(preset_config("tiny")).values()) < 2_000_000


def test_each_call_gives_a_configuration_of_its_own():
    first, second = preset_config("7b"), preset_config("7b")
    first.general_config.hidden_size = 1
    assert second.general_config.hidden_size == 1024


def test_an_unknown_size_is_told():
    with pytest.raises(FinetuneError, match=r"Unknown preset '7B'\. Did you mean '7b'\?"):
        preset_config("7B")
    assert set(PRESETS) == {"tiny", "0.5b", "7b", "9b"}
