"""Everything that shapes a POINTS model: encoders of a tile, what joins and connects them, the language model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

try:
    from transformers.configuration_utils import SubConfigSpec
except ImportError:  # before 5.20, where a configuration builds its parts by itself
    SubConfigSpec = None

__all__ = ["CONNECTORS", "FeatureGrid", "Layers", "PatchesConfig", "PointsConfig", "as_layers", "feature_grid_of"]

Layers = int | list[int] | tuple[int, ...]
"""Hidden states counted from the end: one, or several whose features are joined."""

CONNECTORS = ("shuffle", "pool", "attention-pool", "linear")
"""What may stand between the encoders and the language model; see `finetune.points.connectors`."""

PARTS = {"general_config": "clip_vision_model", "ocr_config": "clip_vision_model", "text_config": "qwen2"}
"""The parts' configurations, and the `model_type` of one that names none."""

OPTIONAL_PARTS = ("ocr_config",)


@strict
class PatchesConfig(PreTrainedConfig):
    """The configuration of no encoder at all: the pixels of each patch are the features.

    Source: Fuyu (Bavishi et al., 2023), which projects patches of 30 pixels straight into its language model.
    """

    model_type = "points_patches"

    image_size: int = 336
    patch_size: int = 28
    num_channels: int = 3

    @property
    def hidden_size(self) -> int:
        """How many numbers a patch is."""
        return self.num_channels * self.patch_size**2


AutoConfig.register(PatchesConfig.model_type, PatchesConfig, exist_ok=True)  # so that `general_config` may name it


@dataclass(frozen=True)
class FeatureGrid:
    """What an encoder makes of a tile of `tile` pixels a side: `grid` x `grid` features of `width` numbers."""

    tile: int
    grid: int
    width: int


def feature_grid_of(config: PreTrainedConfig, layers: Layers) -> FeatureGrid:
    """Give the features of a tile in `hidden_states[layer]` of a vision model, by its configuration alone.

    Of several layers they are joined, patch by patch.

    Raises:
        ValueError: no such layer, layers of several grids, or a configuration without the sizes of tiles and patches.
    """
    grids = [_of_layer(config, layer) for layer in as_layers(layers)]
    if len({features.grid for features in grids}) > 1:
        raise ValueError(f"vision_feature_layer: {layers} of {config.model_type} are grids of several sizes.")
    return FeatureGrid(grids[0].tile, grids[0].grid, sum(features.width for features in grids))


def as_layers(layers: Layers) -> tuple[int, ...]:
    """Give the layers that are looked at, be they one or several."""
    return (layers,) if isinstance(layers, int) else tuple(layers)


def _of_layer(config: PreTrainedConfig, layer: int) -> FeatureGrid:
    # A ConvNeXt halves the grid from stage to stage and has a width for each; all others keep one grid and one width.
    widths = getattr(config, "hidden_sizes", None)
    depth = len(widths) if widths else getattr(config, "num_hidden_layers", None)
    if depth is not None and not -depth - 1 <= layer <= -1:
        raise ValueError(f"vision_feature_layer: expected -1 to {-depth - 1} for {config.model_type}, found {layer}.")
    sizes: dict[str, Any] = {name: getattr(config, name, None) for name in ("image_size", "patch_size")}
    odd = [f"{name} {value}" for name, value in sizes.items() if not isinstance(value, int)]
    if odd:
        raise ValueError(f"{config.model_type}: expected one number for a square's side, found {', '.join(odd)}.")
    if not widths:
        return FeatureGrid(sizes["image_size"], sizes["image_size"] // sizes["patch_size"], config.hidden_size)
    stage = max(0, len(widths) + layer)  # hidden_states[0] is the first stage's input, in its grid and width
    return FeatureGrid(sizes["image_size"], sizes["image_size"] // (sizes["patch_size"] * 2**stage), widths[stage])


@strict
class PointsConfig(PreTrainedConfig):
    """The configuration of a POINTS model.

    `general_config` and `ocr_config` are the two vision encoders', any vision model of transformers by its
    `model_type`; without `ocr_config` there is one, and with a `PatchesConfig` as the first, none. `text_config` is the
    language model's, any causal one.
    `merge_weights` are the shares of the encoders (POINTS: a half each, which is the default).
    `vision_feature_layer` counts from the end, as `hidden_states` does: -2 is the output of the last layer but one.
    Of several, [-3, -10], the features are joined: Molmo's, of a CLIP of 24 layers whose last one it leaves out.
    `connector` is one of `CONNECTORS`; `shuffle` patches a side become one token (2: a quarter of the tokens).
    `image_token_id` is the token whose places image features take.

    Source: POINTS, arXiv 2409.04828, section 3.1 and Figure 2.
    """

    model_type = "points"
    if SubConfigSpec is not None:
        sub_configs_defaults: ClassVar = {
            name: SubConfigSpec(AutoConfig, model_type=model_type, optional=name in OPTIONAL_PARTS)
            for name, model_type in PARTS.items()
        }
    else:
        sub_configs: ClassVar = dict.fromkeys(PARTS, AutoConfig)
        has_no_defaults_at_init: ClassVar = True

    general_config: dict[Any, Any] | PreTrainedConfig | None = None
    ocr_config: dict[Any, Any] | PreTrainedConfig | None = None
    text_config: dict[Any, Any] | PreTrainedConfig | None = None
    merge_weights: list[float] | tuple[float, ...] | None = None
    vision_feature_layer: Layers = -2
    connector: str = "shuffle"
    shuffle: int = 2
    image_token_id: int = 0
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the parts' configurations, and takes from the language model's whether its embeddings are tied."""
        if SubConfigSpec is None:
            self._build_parts()
        super().__post_init__(**kwargs)
        count = len(self.vision_configs)
        self.merge_weights = [float(weight) for weight in self.merge_weights or [1 / count] * count]
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))

    def _build_parts(self) -> None:
        for name, default in PARTS.items():
            part = getattr(self, name)
            if isinstance(part, dict):
                sizes = {key: value for key, value in part.items() if key != "model_type"}
                setattr(self, name, AutoConfig.for_model(part.get("model_type", default), **sizes))
            elif part is None and name not in OPTIONAL_PARTS:
                setattr(self, name, AutoConfig.for_model(default))

    @property
    def vision_configs(self) -> dict[str, PreTrainedConfig]:
        """The encoders' configurations by the names of their modules, in the order of their shares."""
        configs = {"general_vit": self.general_config, "ocr_vit": self.ocr_config}
        return {name: config for name, config in configs.items() if config is not None}

    def validate_architecture(self) -> None:
        """Validate what belongs together; transformers calls it for every configuration.

        Raises:
            ValueError: everything that can't work, one line each: weights that don't sum to 1, an unknown connector,
                encoders that can't share one projector, a grid that does not divide.
        """
        wrong = list(self._faults())
        if wrong:
            raise ValueError("\n".join(wrong))

    def _faults(self) -> Iterator[str]:
        names, weights = list(self.vision_configs), self.merge_weights or []
        if not as_layers(self.vision_feature_layer):
            yield "vision_feature_layer: expected one layer or more, found none."
            return
        if len(weights) != len(names) or abs(sum(weights) - 1) > 1e-6:
            yield f"merge_weights: expected {len(names)} that sum to 1 ({', '.join(names)}), found {weights}."
        if self.connector not in CONNECTORS:
            yield f"connector: expected one of {', '.join(CONNECTORS)}, found {self.connector!r}."
        try:
            grids = [feature_grid_of(config, self.vision_feature_layer) for config in self.vision_configs.values()]
        except ValueError as error:
            yield str(error)
            return
        unequal = [
            f"{what} {getattr(grids[0], key)} and {getattr(grids[-1], key)}"
            for key, what in (("width", "hidden_size"), ("tile", "image_size"), ("grid", "patches along a tile's side"))
            if getattr(grids[0], key) != getattr(grids[-1], key)
        ]
        if unequal:
            yield f"general_config and ocr_config share one projector, but differ in {'; '.join(unequal)}."
        if self.shuffle < 1 or grids[0].grid % self.shuffle:
            yield f"shuffle {self.shuffle} does not divide the {grids[0].grid} patches along a tile's side."

    @property
    def feature_grid(self) -> FeatureGrid:
        """The features that the encoders make of a tile."""
        return feature_grid_of(self.general_config, self.vision_feature_layer)

    @property
    def tile(self) -> int:
        """Side of a tile, in pixels."""
        return self.feature_grid.tile

    @property
    def grid(self) -> int:
        """Patches along a tile's side."""
        return self.feature_grid.grid

    @property
    def tokens_per_tile(self) -> int:
        """Image tokens that one tile becomes: 144 for tiles of 336, patches of 14 and a shuffle of 2."""
        return (self.grid // self.shuffle) ** 2

    @property
    def shuffled_size(self) -> int:
        """Width of a shuffled feature, which POINTS' projector reads."""
        return self.feature_grid.width * self.shuffle**2
