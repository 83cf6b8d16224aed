"""A POINTS model, in the order that tensors flow: encode, project, merge, embed, answer.

Shapes ride on names:

    B   rows of a batch              T   tiles of all its images, one after another
    S   tokens of a row              V   side of a tile, in pixels
    G   patches along a tile's side  C   width of a vision encoder
    M   what the connector reads of a tile (squares of patches, or patches); K their width
    N   image tokens of a tile       D   width of the language model
    E   the encoders: general, OCR

Source: POINTS, arXiv 2409.04828, section 3.1 and Figure 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from finetune.points.config import PointsConfig
from finetune.points.connectors import build_connector
from finetune.points.encoders import build_encoder, encode_tiles, idle_parameters

__all__ = ["PointsForConditionalGeneration", "PointsOutput", "language_model_class", "tensor_shapes"]


@dataclass
class PointsOutput(ModelOutput):
    """The output of a forward pass: loss [], logits [B, S, vocabulary], cache, the language model's inner states."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def language_model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Give the class of a causal language model, by its configuration.

    Raises:
        ValueError: transformers has no causal language model of that type.
    """
    try:
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError as error:
        raise ValueError(f"{config.model_type}: transformers has no causal language model of this type.") from error


def ranks() -> int:
    """Give how many processes train this model side by side."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class PointsForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Two vision encoders (or one, or none), one shared projector, one language model.

    The names `general_vit`, `ocr_vit`, `vision_projector` and `llm` are those of the published model.
    """

    config_class = PointsConfig
    base_model_prefix = ""
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: PointsConfig):
        super().__init__(config)
        for name, vision_config in config.vision_configs.items():
            self.add_module(name, build_encoder(vision_config))
        self.vision_projector = build_connector(config)
        self.llm = language_model_class(config.text_config)(config.text_config)
        self.post_init()
        # Its parts' lists name classes that other models of their families are built of; sharding would look for them.
        self._no_split_modules &= {type(module).__name__ for module in self.modules()}
        self.generation_config.suppress_tokens = [config.image_token_id]  # it stands for an image, and answers nothing
        self.train(self.training)

    @property
    def encoders(self) -> list[PreTrainedModel]:
        """The vision encoders, in the order of their shares."""
        return [getattr(self, name) for name in self.config.vision_configs]

    def idle_parameters(self) -> list[nn.Parameter]:
        """Give the encoders' weights that no output depends on: no gradient would ever come."""
        layer = self.config.vision_feature_layer
        return [parameter for vit in self.encoders for parameter in idle_parameters(vit, layer)]

    def train(self, mode: bool = True) -> PointsForConditionalGeneration:
        """Switch as torch does; idle weights require no gradient, which loading a checkpoint would make them do."""
        for parameter in self.idle_parameters():
            parameter.requires_grad_(False)
        return super().train(mode)

    def get_input_embeddings(self) -> nn.Module:
        """Give the language model's token embeddings."""
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token embeddings."""
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Give the language model's head."""
        return self.llm.get_output_embeddings()

    def encode(self, pixels_T3VV: Tensor) -> Tensor:
        """Give the encoders' features of each tile [T, 3, V, V] -> [T, E, M, K], before the projector's weights."""
        if not len(pixels_T3VV):
            return self._zero_features(0)
        layer = self.config.vision_feature_layer
        grids = [encode_tiles(vit, pixels_T3VV.to(self._dtype_of(vit)), layer) for vit in self.encoders]
        return torch.stack([self.vision_projector.arrange(x_TGGC) for x_TGGC in grids], dim=1)

    def _dtype_of(self, part: nn.Module) -> torch.dtype:
        """Return the dtype that a part computes in; frozen encoders may be kept in fewer bits than what is trained."""
        return next(part.parameters(), next(self.vision_projector.parameters())).dtype

    def project(self, features_TEMK: Tensor) -> Tensor:
        """Project features to the language model's width, each encoder's by its share [T, E, M, K] -> [T, N, D]."""
        x_TEND = self.vision_projector(features_TEMK.to(self._dtype_of(self.vision_projector)))
        shares = [share * x_TEND[:, index] for index, share in enumerate(self.config.merge_weights)]
        return sum(shares[1:], shares[0])

    def embed_inputs(
        self, input_ids_BS: Tensor, features_TEMK: Tensor | None, kept_tokens: Tensor | None = None
    ) -> Tensor:
        """Embed tokens [B, S, D], with image features in place of the image tokens, in order.

        `kept_tokens`: numbers of the features that are used, in the order in which they are; by default all.

        Raises:
            ValueError: not as many image tokens as features.
        """
        x_BSD = self.get_input_embeddings()(input_ids_BS)
        if features_TEMK is None:
            return x_BSD
        images_TND = self.project(features_TEMK).to(x_BSD.dtype)
        images_D = images_TND.flatten(0, 1)
        if kept_tokens is not None:
            images_D = images_D[kept_tokens]
        is_image_BS = input_ids_BS == self.config.image_token_id
        tokens, features = int(is_image_BS.sum()), len(images_D)
        if tokens != features:
            raise ValueError(
                f"expected {features} image tokens (id {self.config.image_token_id}) for {images_TND.shape[0]} tiles "
                f"of {images_TND.shape[1]} features each, found {tokens}: was the prompt truncated?"
            )
        return x_BSD.masked_scatter(is_image_BS.unsqueeze(-1), images_D)

    def _zero_features(self, tiles: int) -> Tensor:
        """Zeros in place of the features of so many tiles [T, E, M, K]."""
        G, C = self.config.grid, self.config.feature_grid.width
        arranged = self.vision_projector.arrange(torch.zeros(tiles, G, G, C, device=self.device))
        return torch.stack([arranged] * len(self.encoders), dim=1)

    def _dummy_vision_forward(self, x_BSD: Tensor, *, cached: bool) -> Tensor:
        """Return the same [B, S, D], with a dependency on all weights that images train: for a batch of text alone.

        Several ranks wait for each other's gradients, and, where weights are sharded, for each other's use of them: a
        rank without an image has to run the modules that the others run. Where features are `cached`, be they of no
        tile, no rank runs the encoders.
        """
        several = ranks() > 1
        encoders_learn = any(parameter.requires_grad for vit in self.encoders for parameter in vit.parameters())
        if not (several or encoders_learn or any(p.requires_grad for p in self.vision_projector.parameters())):
            return x_BSD
        if not cached and (several or encoders_learn):
            features_TEMK = self.encode(torch.zeros(1, 3, self.config.tile, self.config.tile, device=x_BSD.device))
        else:
            features_TEMK = self._zero_features(1)
        return x_BSD + (self.project(features_TEMK) * 0).sum().to(x_BSD.dtype)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        vision_features: Tensor | None = None,
        labels: Tensor | None = None,
        kept_tokens: Tensor | None = None,
        **kwargs: Any,
    ) -> PointsOutput:
        """Compute logits [B, S, vocabulary], and the mean loss over `labels` that are not -100.

        Args:
            input_ids: tokens [B, S].
            pixel_values: tiles [T, 3, V, V] of all images, in the order of the image tokens; T may be 0.
            attention_mask: 0 for padding [B, S].
            position_ids: positions of the tokens [B, S]. Without `attention_mask`, each position that does not follow
                the one before it begins a new row: rows packed into one don't attend to each other.
            past_key_values: the cache of earlier tokens.
            inputs_embeds: embedded tokens [B, S, D], in place of `input_ids`.
            vision_features: what `encode` gave [T, E, M, K], in place of `pixel_values`: frozen encoders need to run
                only once per image.
            labels: the tokens to learn, -100 elsewhere [B, S].
            kept_tokens: numbers of the image tokens [T N] that the text has, in its order, where margins are dropped.
            kwargs: what the language model takes besides (`use_cache`, `logits_to_keep`, ...).

        Raises:
            ValueError: not exactly one of `input_ids` and `inputs_embeds`, both kinds of image, images beside
                `inputs_embeds`, or not as many image tokens as the images have features.
        """
        _check_pairs(input_ids, inputs_embeds, pixel_values, vision_features)
        if pixel_values is not None and len(pixel_values):
            vision_features = self.encode(pixel_values)
        begins = past_key_values is None
        x_BSD = self._embedded(input_ids, inputs_embeds, vision_features, kept_tokens, begins=begins)
        if labels is not None or (position_ids is not None and attention_mask is None and past_key_values is None):
            kwargs.setdefault("use_cache", False)  # with a cache, rows packed into one would attend to each other
        kwargs.pop("return_dict", None)
        output = self.llm(
            inputs_embeds=x_BSD,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            **kwargs,
        )
        return PointsOutput(
            loss=output.loss,
            logits=output.logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def _embedded(
        self,
        input_ids_BS: Tensor | None,
        embeds_BSD: Tensor | None,
        features_TEMK: Tensor | None,
        kept_tokens: Tensor | None,
        *,
        begins: bool,
    ) -> Tensor:
        """Return the language model's input [B, S, D]: embedded tokens and images, or embeddings as they are.

        `begins`: there is no cache of earlier tokens, whose images are gone by now.

        Raises:
            ValueError: image tokens without images, images beside embeddings.
        """
        images_TEMK = features_TEMK if features_TEMK is not None and len(features_TEMK) else None
        if input_ids_BS is not None:
            if images_TEMK is None and begins and bool((input_ids_BS == self.config.image_token_id).any()):
                raise ValueError(f"expected images for the image tokens (id {self.config.image_token_id}), found none.")
            x_BSD = self.embed_inputs(input_ids_BS, images_TEMK, kept_tokens)
        elif embeds_BSD is not None and images_TEMK is None:
            x_BSD = embeds_BSD
        else:
            raise ValueError("inputs_embeds have no places for images: expected no images beside them.")
        if self.training and images_TEMK is None:
            return self._dummy_vision_forward(x_BSD, cached=features_TEMK is not None)
        return x_BSD

    def prepare_inputs_for_generation(
        self, *args: Any, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Prepare inputs as transformers does; cached features, too, are for the prompt alone."""
        if not is_first_iteration and kwargs.get("use_cache", True):
            kwargs.pop("vision_features", None)
        return super().prepare_inputs_for_generation(*args, is_first_iteration=is_first_iteration, **kwargs)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save as transformers does, but under the very names that the module has in memory.

        Its default writes CLIP's parts under the names of an older release: a file that could not be streamed back
        into a module by name.
        """
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)


def _check_pairs(
    input_ids: Tensor | None, inputs_embeds: Tensor | None, pixel_values: Tensor | None, vision_features: Tensor | None
) -> None:
    """Raise ValueError for none or both of the text inputs, and for both of the image inputs."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("expected either input_ids or inputs_embeds.")
    if pixel_values is not None and vision_features is not None:
        raise ValueError("expected either pixel_values or vision_features, found both.")


def tensor_shapes(config: PointsConfig) -> dict[str, tuple[int, ...]]:
    """Give the tensors that a checkpoint of this configuration holds, and their shapes, without a weight in memory."""
    with torch.device("meta"):
        model = PointsForConditionalGeneration(config)
    tied = model.all_tied_weights_keys
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}
