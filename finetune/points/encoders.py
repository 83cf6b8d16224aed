"""An encoder's features of a tile: `hidden_states[layer]` of any vision model, without its class token, as a grid.

Of several layers the features are joined, patch by patch, in the order in which the layers are named.

    T   tiles                        V   side of a tile, in pixels
    G   patches along a tile's side  C   width of an encoder
    L   all its tokens: a class token or registers first, then the patches row by row

Weights that the features do not depend on are `idle`: of later layers, the last norm, the pooling head. No gradient
ever reaches them: a training on several ranks that waits for one would wait for ever. In the families whose inner
order is known here, they are not run either.

Source: POINTS, arXiv 2409.04828, section 3.1 (`hidden_states[-2]`), after LLaVA, arXiv 2304.08485.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache

import torch
import transformers
from torch import Tensor, nn
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel

from finetune.points.config import Layers, PatchesConfig, as_layers, feature_grid_of

__all__ = ["Patches", "build_encoder", "encode_tiles", "encoder_class", "idle_parameters"]

# EVA-CLIP is in transformers as the ViT-g/14 of BLIP-2, which no Auto class lists.
_UNLISTED = {"blip_2_vision_model": "Blip2VisionModel"}

# Families in which tokens go embeddings -> (a norm) -> encoder.layers, or encoder.stages, and nothing else; and what a
# layer takes besides its tokens: where it takes a mask, no mask.
_KNOWN: dict[str, tuple[None, ...]] = {
    "clip_vision_model": (None,),
    "siglip_vision_model": (None,),
    "blip_2_vision_model": (),
    "convnext": (),
    "convnextv2": (),
}


class Patches(PreTrainedModel):
    """No encoder: a tile's pixels, patch by patch. It has no weights.

    Source: Fuyu (Bavishi et al., 2023).
    """

    config_class = PatchesConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: PatchesConfig):
        super().__init__(config)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Give the pixels of each patch, channels last [T, 3, V, V] -> [T, G, G, C]."""
        T, _, V, _ = pixel_values.shape
        P = self.config.patch_size
        x = pixel_values.reshape(T, -1, V // P, P, V // P, P)
        return x.permute(0, 2, 4, 3, 5, 1).flatten(3)


def encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Give the class of a vision model, by its configuration.

    Raises:
        ValueError: transformers has no model of that type, or one that takes something else than pixels.
    """
    if isinstance(config, PatchesConfig):
        return Patches
    if config.model_type in _UNLISTED:
        return getattr(transformers, _UNLISTED[config.model_type])
    try:
        model_class = MODEL_MAPPING[type(config)]
    except KeyError as error:
        raise ValueError(f"{config.model_type}: transformers has no model of this type.") from error
    model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    if model_class.main_input_name != "pixel_values":
        raise ValueError(
            f"{config.model_type}: not a vision model: {model_class.__name__} takes {model_class.main_input_name}."
        )
    return model_class


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a fresh encoder.

    Raises:
        ValueError: no vision model of that type.
    """
    kind = encoder_class(config)
    if hasattr(config, "num_attention_heads"):
        return kind(config)
    # It has no attention: any implementation will do, which transformers would refuse.
    config._attn_implementation = "eager"
    vit = kind(config)
    vit._supports_sdpa = vit._supports_flash_attn = vit._supports_flex_attn = True
    return vit


def idle_parameters(vit: PreTrainedModel, layers: Layers) -> Iterator[nn.Parameter]:
    """Give the weights that the `hidden_states` of these layers do not depend on."""
    if vit.config.model_type in _KNOWN:
        used = (*_stem(vit), *_blocks(vit)[: _depth(vit, max(as_layers(layers)))])
        run = {id(p) for part in used for p in part.parameters()}
        yield from (p for p in vit.parameters() if id(p) not in run)
    elif not isinstance(vit, Patches):
        idle = _without_gradient(vit.__class__, vit.config.to_json_string(), max(as_layers(layers)))
        yield from (parameter for name, parameter in vit.named_parameters() if name in idle)


@cache
def _without_gradient(kind: type[PreTrainedModel], config_json: str, layer: int) -> frozenset[str]:
    """Return the names of the weights that no gradient reaches, by a backward pass without a number in memory.

    None of a model that needs numbers to run.
    """
    config = kind.config_class.from_dict(json.loads(config_json))
    with torch.device("meta"), torch.enable_grad():
        vit = kind(config)
        try:
            encode_tiles(vit, torch.zeros(1, 3, config.image_size, config.image_size), layer).sum().backward()
        except (NotImplementedError, RuntimeError):
            return frozenset()
    return frozenset(name for name, parameter in vit.named_parameters() if parameter.grad is None)


def encode_tiles(vit: PreTrainedModel, pixels_T3VV: Tensor, layers: Layers) -> Tensor:
    """Give `hidden_states` of these layers, without what comes before the patches [T, 3, V, V] -> [T, G, G, C].

    Raises:
        ValueError: a hidden state is no grid of the size of the configuration.
    """
    grid = feature_grid_of(vit.config, layers).grid
    states = _hidden_states(vit, pixels_T3VV, as_layers(layers))
    grids = [_as_grid(x, grid, vit) for x in states]
    return grids[0] if len(grids) == 1 else torch.cat(grids, dim=-1)


def _hidden_states(vit: PreTrainedModel, x: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
    if isinstance(vit, Patches):
        return [vit(x).permute(0, 3, 1, 2)] * len(layers)
    if vit.config.model_type not in _KNOWN:
        states = vit(x, output_hidden_states=True).hidden_states
        return [states[layer] for layer in layers]
    for part in _stem(vit):
        x = part(x)
    depths = [_depth(vit, layer) for layer in layers]
    kept = {0: x}
    for depth, block in enumerate(_blocks(vit)[: max(depths)], 1):
        x = block(x, *_KNOWN[vit.config.model_type])
        if depth in depths:
            kept[depth] = x
    return [kept[depth] for depth in depths]


def _stem(vit: PreTrainedModel) -> list[nn.Module]:
    """Return the modules before the first layer."""
    return [vit.embeddings, *([vit.pre_layrnorm] if hasattr(vit, "pre_layrnorm") else [])]


def _depth(vit: PreTrainedModel, layer: int) -> int:
    """Return how many blocks run before `hidden_states[layer]`."""
    return len(_blocks(vit)) + 1 + layer


def _blocks(vit: PreTrainedModel) -> nn.ModuleList:
    return vit.encoder.stages if hasattr(vit.encoder, "stages") else vit.encoder.layers


def _as_grid(x: Tensor, grid: int, vit: PreTrainedModel) -> Tensor:
    """[T, C, G, G] of a convolution, or [T, L, C] of a transformer, as [T, G, G, C]."""
    if x.ndim == 4 and x.shape[2:] == (grid, grid):
        return x.permute(0, 2, 3, 1)
    first = 1 + (getattr(vit.config, "num_register_tokens", 0) or 0)  # the most that may come before the patches
    if x.ndim == 3 and grid**2 <= x.shape[1] <= grid**2 + first:
        return x[:, -(grid**2) :].unflatten(1, (grid, grid))
    raise ValueError(
        f"{type(vit).__name__}: expected a hidden state of {grid} x {grid} patches, found {list(x.shape)}: were the "
        f"tiles {vit.config.image_size} pixels a side?"
    )
