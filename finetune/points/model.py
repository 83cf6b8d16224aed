"""A POINTS model, in the order that tensors flow: encode, shuffle, project, merge, place, answer.

Shapes ride on names:

    B   rows of a batch              T   tiles of all its images, one after another
    S   tokens of a row              V   side of a tile, in pixels
    G   patches along a tile's side  C   width of a vision encoder
    N   image tokens of a tile       D   width of the language model
    K   merged patches a token, times C: what the projector reads
    E   the two encoders: general, OCR

Source: POINTS, arXiv 2409.04828, section 3.1 and Figure 2.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, GenerationMixin, PreTrainedModel, Qwen2ForCausalLM
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from finetune.points.config import PointsConfig

__all__ = ["PointsForConditionalGeneration", "PointsOutput", "pixel_shuffle"]


@dataclass
class PointsOutput(ModelOutput):
    """What a forward pass gives: loss [], logits [B, S, vocabulary], the cache, the language model's inner states."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def pixel_shuffle(x_TGGC: Tensor, factor: int) -> Tensor:
    """Joins each square of factor x factor patches into one, row by row [T, G, G, C] -> [T, N, K].

    Source: arXiv 1609.05158, equation 4, read backwards.
    """
    T, G, _, C = x_TGGC.shape
    n = G // factor
    x = x_TGGC.reshape(T, n, factor, n, factor, C).transpose(2, 3)
    return x.reshape(T, n * n, factor * factor * C)


class PointsForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Two vision encoders, one shared projector, one language model.

    The names `general_vit`, `ocr_vit`, `vision_projector` and `llm` are those of the published model.
    """

    config_class = PointsConfig
    base_model_prefix = ""
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules: ClassVar = ["CLIPEncoderLayer", "Qwen2DecoderLayer"]
    _skip_keys_device_placement: ClassVar = ["past_key_values"]
    _tied_weights_keys: ClassVar = {"llm.lm_head.weight": "llm.model.embed_tokens.weight"}

    def __init__(self, config: PointsConfig):
        super().__init__(config)
        width = config.text_config.hidden_size
        self.general_vit = CLIPVisionModel(config.general_config)
        self.ocr_vit = CLIPVisionModel(config.ocr_config)
        self.vision_projector = nn.Sequential(
            nn.Linear(config.shuffled_size, width), nn.GELU(), nn.Linear(width, width)
        )
        self.llm = Qwen2ForCausalLM(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embeddings."""
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the language model's token embeddings."""
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        return self.llm.get_output_embeddings()

    def encode(self, pixels_T3VV: Tensor) -> Tensor:
        """What both encoders see in each tile [T, 3, V, V] -> [T, E, N, K], before anything that is tuned."""
        both = [self._patches(vit, pixels_T3VV) for vit in (self.general_vit, self.ocr_vit)]
        return torch.stack([pixel_shuffle(x_TGGC, self.config.shuffle) for x_TGGC in both], dim=1)

    def _patches(self, vit: CLIPVisionModel, pixels_T3VV: Tensor) -> Tensor:
        """`hidden_states[vision_feature_layer]` without the class token [T, G, G, C]; later layers are never run."""
        x = vit.pre_layrnorm(vit.embeddings(pixels_T3VV))
        for layer in vit.encoder.layers[: len(vit.encoder.layers) + 1 + self.config.vision_feature_layer]:
            x = layer(x, None)
        return x[:, 1:].unflatten(1, (self.config.grid, self.config.grid))

    def project(self, features_TENK: Tensor) -> Tensor:
        """Features in the language model's width, each encoder's by its share [T, E, N, K] -> [T, N, D]."""
        general, ocr = self.config.merge_weights
        x_TEND = self.vision_projector(features_TENK)
        return general * x_TEND[:, 0] + ocr * x_TEND[:, 1]

    def place(self, input_ids_BS: Tensor, features_TENK: Tensor | None) -> Tensor:
        """Embedded tokens [B, S, D], image features in the places of the image tokens, in order.

        Raises:
            ValueError: not as many places as features.
        """
        x_BSD = self.get_input_embeddings()(input_ids_BS)
        if features_TENK is None:
            return x_BSD
        images_TND = self.project(features_TENK).to(x_BSD.dtype)
        place_BS = input_ids_BS == self.config.image_token_id
        places, features = int(place_BS.sum()), images_TND.shape[0] * images_TND.shape[1]
        if places != features:
            raise ValueError(
                f"expected {features} image tokens (id {self.config.image_token_id}) for {images_TND.shape[0]} tiles "
                f"of {images_TND.shape[1]} features each, found {places}: was the prompt truncated?"
            )
        return x_BSD.masked_scatter(place_BS.unsqueeze(-1), images_TND)

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
        **kwargs: Any,
    ) -> PointsOutput:
        """Logits [B, S, vocabulary], and the mean loss over `labels` that are not -100.

        Args:
            input_ids: tokens [B, S].
            pixel_values: tiles [T, 3, V, V] of all images, in the order of the image tokens.
            attention_mask: 0 for padding [B, S].
            position_ids: places of the tokens [B, S].
            past_key_values: the cache of earlier tokens.
            inputs_embeds: embedded tokens [B, S, D], in place of `input_ids`.
            vision_features: what `encode` gave [T, E, N, K], in place of `pixel_values`: frozen encoders need to be
                asked only once per image.
            labels: the tokens to learn, -100 elsewhere [B, S].
            kwargs: what the language model takes besides (`use_cache`, `logits_to_keep`, ...).

        Raises:
            ValueError: not exactly one of `input_ids` and `inputs_embeds`, or both kinds of image.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("expected either input_ids or inputs_embeds.")
        if pixel_values is not None and vision_features is not None:
            raise ValueError("expected either pixel_values or vision_features, found both.")
        if pixel_values is not None:
            vision_features = self.encode(pixel_values)
        if inputs_embeds is None:
            inputs_embeds = self.place(input_ids, vision_features)
        if labels is not None:
            kwargs.setdefault("use_cache", False)
        kwargs.pop("return_dict", None)
        answered = self.llm(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            **kwargs,
        )
        return PointsOutput(
            loss=answered.loss,
            logits=answered.logits,
            past_key_values=answered.past_key_values,
            hidden_states=answered.hidden_states,
            attentions=answered.attentions,
        )

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """As transformers does, but under the very names that the module has in memory.

        Its default writes CLIP's parts under the names of an older release: a file that could not be streamed back
        into a module by name.
        """
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)
