"""A configuration that nobody has seen is cut down by the names of its fields, and stays consistent."""

from __future__ import annotations

from transformers import PreTrainedConfig

from tests.helpers.tiny_configs import Sizes, tiny_config


class UnseenVision(PreTrainedConfig):
    model_type = "unseen_vision"
    hidden_size: int = 1152
    depth: int = 27
    num_heads: int = 16
    in_channels: int = 3
    image_size: int = 448
    patch_size: int = 14
    out_hidden_size: int = 4096
    deepstack_visual_indexes: tuple | list = (8, 16, 24)

    def __post_init__(self, **kwargs):
        self.deepstack_visual_indexes = [*self.deepstack_visual_indexes]
        super().__post_init__(**kwargs)


class UnseenText(PreTrainedConfig):
    model_type = "unseen_text"
    ignore_keys_at_rope_validation = {"mrope_section"}  # noqa: RUF012
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int = 128
    vocab_size: int = 150_000
    eos_token_id: int = 149_000
    num_experts: int | None = None
    layer_types: list[str] | None = None
    kept_in: dict | None = None

    def __post_init__(self, **kwargs):
        if self.layer_types is None:
            self.layer_types = ["sliding_attention"] * 4 + ["full_attention"] * (self.num_hidden_layers - 4)
        super().__post_init__(**kwargs)


class Unseen(PreTrainedConfig):
    model_type = "unseen"
    sub_configs_defaults = {"text_config": UnseenText, "vision_config": UnseenVision}  # noqa: RUF012
    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    image_token_id: int = 149_001
    eos_token_id: int = 149_000


def test_sizes_shrink_and_widths_that_have_to_agree_do():
    config = tiny_config(Unseen)
    text, vision = config.text_config, config.vision_config
    assert (text.hidden_size, text.intermediate_size, text.vocab_size) == (64, 96, 256)
    assert vision.out_hidden_size == text.hidden_size
    assert text.num_attention_heads * text.head_dim == text.hidden_size
    assert (text.num_attention_heads, text.num_key_value_heads, vision.num_heads) == (4, 2, 4)
    assert (vision.in_channels, vision.patch_size, vision.image_size) == (3, 14, 56)


def test_a_layer_of_each_kind_is_kept_and_lists_follow():
    config = tiny_config(Unseen)
    assert config.text_config.num_hidden_layers == 2
    assert config.text_config.layer_types == ["sliding_attention", "full_attention"]
    assert config.vision_config.depth == 4
    assert config.vision_config.deepstack_visual_indexes == [1, 2, 3]


def test_a_token_has_one_number_in_all_configurations_inside_the_tiny_vocabulary():
    config = tiny_config(Unseen)
    assert config.eos_token_id == config.text_config.eos_token_id < config.text_config.vocab_size
    assert config.image_token_id not in (config.eos_token_id, 0, 1, 2)


def test_rotary_sections_are_as_long_as_half_a_head():
    config = tiny_config(Unseen)
    assert sum(config.text_config.rope_parameters["mrope_section"]) == config.text_config.head_dim // 2


def test_what_is_unset_by_default_is_filled_on_demand_alone():
    assert tiny_config(Unseen).text_config.num_experts is None
    assert tiny_config(Unseen, Sizes(fill_unset=True)).text_config.num_experts == 4
