"""Pictures and words into one batch: image tokens in the text, as many as the images' tiles need.

An item of a prompt is an image, or a `Video`: its frames together stand where one `<|image_pad|>` is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from finetune.points.images import PointsImageProcessor, PointsImagesKwargs, flat
from finetune.points.named_tilings import named_tiling, settings_of
from finetune.points.token_layout import MARKS, Tiles, as_tiles, grids_of, token_order, written
from soup.errors import FinetuneError
from soup.support.text import bullet_list

__all__ = ["CHAT_TEMPLATE", "IMAGE_TOKEN", "PointsImageProcessor", "PointsImagesKwargs", "PointsProcessor"]

IMAGE_TOKEN = "<|image_pad|>"

# Qwen2's form of a conversation; an image part is one image token, which the processor then multiplies.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "<|im_start|>{{ message['role'] + '\\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}" + IMAGE_TOKEN + "{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


class PointsProcessor(ProcessorMixin):
    """Images and text into one batch: each `<|image_pad|>` of the text becomes as many as its image has tokens.

    `tokens_per_tile` is what the model makes of a tile (144 for tiles of 336). A video is an item of `images`:
    `Video(frames)`, in a conversation {"type": "image", "image": Video(frames)}. With `marks` tokens tell where a grid
    of image tokens begins and ends, and where each of its rows does.

    Raises:
        FinetuneError: a tokenizer without these marks, or a margin of the tiling that is no whole number of tokens.
    """

    marks: bool = False  # stored where it is set, as it was not there at first

    def __init__(
        self,
        image_processor: PointsImageProcessor | None = None,
        tokenizer: Any = None,
        tokens_per_tile: int = 144,
        chat_template: str | None = None,
        marks: bool = False,
    ):
        self.tokens_per_tile = tokens_per_tile
        if marks:
            self.marks = True
            _check_marks(tokenizer)
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)
        if image_processor is not None:
            _check_margin(image_processor, self.side)

    @property
    def unused_input_names(self) -> list[str]:
        """The image processor's outputs that are for the text side, not for the model."""
        return ["num_tiles", "layouts"]

    def with_tiling(self, tiling: str) -> PointsProcessor:
        """Give a processor that differs in how it cuts images alone.

        Raises:
            FinetuneError: an unknown tiling, or one that doesn't go with tiles or tokens.
        """
        images = copy.deepcopy(self.image_processor)
        images.tiling = settings_of(named_tiling(tiling))
        return PointsProcessor(images, self.tokenizer, self.tokens_per_tile, self.chat_template, self.marks)

    @property
    def side(self) -> int:
        """Image tokens along a tile's side."""
        return math.isqrt(self.tokens_per_tile)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """Give the image tokens of one image, by its tiles."""
        if "layouts" in image_inputs:
            return self.image_text(as_tiles(image_inputs["layouts"][image_idx]))
        return self.image_text(int(image_inputs["num_tiles"][image_idx]))

    def image_text(self, tiles: Tiles) -> str:
        """Give the image tokens of an image: `tokens_per_tile` for each tile, but for margins that are dropped."""
        if isinstance(tiles, int) and not self.marks:
            return self.image_token * (self.tokens_per_tile * tiles)
        return written(grids_of(tiles, self.side, self.image_processor.tile), self.image_token, marks=self.marks)

    def kept_tokens(self, images: Sequence[Tiles]) -> Tensor | None:
        """Give the numbers of the image tokens of a batch that the text has, in its order; None where it has all.

        Args:
            images: the tiles of each, in order.
        """
        if all(isinstance(tiles, int) for tiles in images):
            return None
        orders = [token_order(tiles, self.side, self.image_processor.tile) for tiles in images]
        counts = [tiles if isinstance(tiles, int) else tiles.tiles for tiles in images]
        begins = np.cumsum([0, *counts[:-1]]) * self.tokens_per_tile
        return torch.from_numpy(np.concatenate([order + begin for order, begin in zip(orders, begins, strict=True)]))

    def validate_inputs(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> None:
        """Validate as transformers does, with videos among the images; what it would ignore is an error.

        Raises:
            ValueError: not as many images as `<|image_pad|>` in the text.
            FinetuneError: something given as `videos` or `audio`.
        """
        if videos is not None:
            raise FinetuneError(
                "videos: a video is one of the images here; give images=[Video(frames)], in a conversation "
                '{"type": "image", "image": Video(frames)}, with Video from finetune.points.video.'
            )
        if audio is not None:
            raise FinetuneError("audio: this model hears nothing; leave it out.")
        stills = None if images is None else [np.zeros((1, 1, 3), np.uint8) for _ in flat(images)]
        super().validate_inputs(images=stills, text=text, **kwargs)

    def _process_images(self, images: Any, **kwargs: Any) -> tuple[BatchFeature, list[str]]:
        if not flat(images):  # a batch of rows without images, in the form of one with images
            return BatchFeature(), []
        processed = self.image_processor(images, **kwargs)
        if "layouts" in processed:
            processed["kept_tokens"] = self.kept_tokens([as_tiles(fields) for fields in processed["layouts"]])
        return processed, [self.replace_image_token(processed, i) for i in range(len(processed["num_tiles"]))]

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """Write a prompt as transformers does; texts that contain `<|image_pad|>` are an error.

        In the prompt they could not be told from an image's marker, and the model would take a text about an image for
        one. `sanitize_control_tokens=True` has transformers spell such words out instead.

        Raises:
            FinetuneError: messages with the image token in their text, all of them listed.
        """
        if not kwargs.get("sanitize_control_tokens"):
            _check_words(conversation)
        return super().apply_chat_template(conversation, *args, **kwargs)

    def _merge_kwargs(self, *args: Any, **kwargs: Any) -> dict[str, dict[str, Any]]:
        """Merge as transformers does; a keyword that it would ignore is an error."""
        merged = super()._merge_kwargs(*args, **kwargs)
        known = {"text_kwargs", "images_kwargs", "tokenizer_init_kwargs", "common_kwargs", *merged}
        known |= {name for part in merged.values() if isinstance(part, dict) for name in part}
        unknown = sorted(set(kwargs) - known)
        if unknown:
            raise TypeError(f"PointsProcessor got unknown keywords: {', '.join(unknown)}.")
        return merged


def _check_marks(tokenizer: Any) -> None:
    if absent := [mark for mark in MARKS if mark not in tokenizer.get_vocab()]:
        raise FinetuneError(f"marks: the tokenizer lacks {', '.join(absent)}; add them as special tokens.")


def _check_margin(images: PointsImageProcessor, side: int) -> None:
    margin = named_tiling(images.tiling).plan(images.tile, images.tile, images.tile).margin
    if margin and margin * side % images.tile:
        raise FinetuneError(
            f"tiling: a margin of {margin} pixels can't be dropped, as a token is {images.tile / side:g} pixels a "
            "side: give a margin of whole tokens (patches times the connector's shuffle)."
        )


def _check_words(conversation: Any) -> None:
    """Raise FinetuneError where the texts of a conversation, or of several, hold the image token."""
    several = bool(conversation) and isinstance(conversation[0], list | tuple)
    faults = [
        f"{f'conversation {i + 1}, ' if several else ''}message {k + 1} ({message['role']})"
        for i, messages in enumerate(conversation if several else [conversation])
        for k, message in enumerate(messages)
        if any(IMAGE_TOKEN in words for words in _words(message.get("content")))
    ]
    if faults:
        raise FinetuneError(
            f"{IMAGE_TOKEN} stands for an image, and can't be part of a text; take it out, and give an image as "
            f'{{"type": "image"}}:\n{bullet_list(faults)}'
        )


def _words(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content or () if isinstance(part.get("text"), str)]
