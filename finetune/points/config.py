"""Everything that shapes a POINTS model: two CLIP vision encoders, what joins them, a Qwen2 language model."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import CLIPVisionConfig, PreTrainedConfig, Qwen2Config

__all__ = ["PointsConfig"]


@strict
class PointsConfig(PreTrainedConfig):
    """The configuration of a POINTS model.

    `general_config` and `ocr_config` are the two vision encoders', `text_config` the language model's.
    `merge_weights` are the shares of the general and of the OCR encoder (POINTS: a half each).
    `vision_feature_layer` counts from the end, as `hidden_states` does: -2 is the output of the last layer but one.
    `shuffle` patches a side become one token (2: a quarter of the tokens, four times as wide).
    `image_token_id` is the token whose places image features take.

    Source: POINTS, arXiv 2409.04828, section 3.1 and Figure 2.
    """

    model_type = "points"
    sub_configs_defaults: ClassVar = {
        "general_config": CLIPVisionConfig,
        "ocr_config": CLIPVisionConfig,
        "text_config": Qwen2Config,
    }

    general_config: dict | PreTrainedConfig | None = None
    ocr_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    merge_weights: list[float] | tuple[float, ...] = (0.5, 0.5)
    vision_feature_layer: int = -2
    shuffle: int = 2
    image_token_id: int = 0
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Builds the three parts' configurations, and lets the language model say whether its embeddings are tied."""
        super().__post_init__(**kwargs)
        self.merge_weights = [float(weight) for weight in self.merge_weights]
        self.tie_word_embeddings = self.text_config.tie_word_embeddings

    def validate_architecture(self) -> None:
        """Part of the validation that transformers runs on every configuration.

        Raises:
            ValueError: weights that don't sum to 1, or encoders that can't share one projector.
        """
        if len(self.merge_weights) != 2 or abs(sum(self.merge_weights) - 1) > 1e-6:
            raise ValueError(f"merge_weights: expected two that sum to 1 (general, OCR), found {self.merge_weights}.")
        unequal = [
            f"{name} {getattr(self.general_config, name)} and {getattr(self.ocr_config, name)}"
            for name in ("hidden_size", "image_size", "patch_size")
            if getattr(self.general_config, name) != getattr(self.ocr_config, name)
        ]
        if unequal:
            raise ValueError(f"general_config and ocr_config share one projector, but differ in {'; '.join(unequal)}.")
        if self.grid % self.shuffle:
            raise ValueError(f"shuffle {self.shuffle} does not divide the {self.grid} patches along a tile's side.")
        if not 2 <= -self.vision_feature_layer <= self.general_config.num_hidden_layers + 1:
            raise ValueError(f"vision_feature_layer: expected -2 or earlier, found {self.vision_feature_layer}.")

    @property
    def tile(self) -> int:
        """Side of a tile, in pixels."""
        return self.general_config.image_size

    @property
    def grid(self) -> int:
        """Patches along a tile's side."""
        return self.general_config.image_size // self.general_config.patch_size

    @property
    def tokens_per_tile(self) -> int:
        """Image tokens that one tile becomes: 144 for tiles of 336, patches of 14 and a shuffle of 2."""
        return (self.grid // self.shuffle) ** 2

    @property
    def shuffled_size(self) -> int:
        """Width of a shuffled feature, which the projector reads."""
        return self.general_config.hidden_size * self.shuffle**2
