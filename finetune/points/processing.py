"""Pictures and words into tensors: CATTY tiles of every image, image tokens in the text, one batch.

    V   side of a tile      T   tiles of all images of a batch, one after another

Pillow does the resizing, so that no torchvision is needed.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, ImageInput, make_flat_list_of_images
from transformers.processing_utils import ImagesKwargs, ProcessorMixin

from finetune.points.catty import catty_boxes, within_ratio

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


class PointsImagesKwargs(ImagesKwargs, total=False):
    """What may be said of images in one call, in place of the processor's own settings."""

    tile: int
    max_tiles: int
    do_tile: bool
    single_thumbnail: bool


class PointsImageProcessor(BaseImageProcessor):
    """Cuts images into CATTY tiles, the thumbnail last, and normalises them.

    `tile` is the side of a tile, `max_tiles` the most of them (without the thumbnail). Without `do_tile` an image
    becomes its thumbnail alone. Without `single_thumbnail` an image of one tile gets no thumbnail: it would be the
    tile again (POINTS adds it all the same).
    """

    model_input_names: ClassVar = ["pixel_values"]
    valid_kwargs = PointsImagesKwargs

    def __init__(
        self,
        tile: int = 336,
        max_tiles: int = 8,
        do_tile: bool = True,
        single_thumbnail: bool = True,
        image_mean: Sequence[float] = OPENAI_CLIP_MEAN,
        image_std: Sequence[float] = OPENAI_CLIP_STD,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tile = tile
        self.max_tiles = max_tiles
        self.do_tile = do_tile
        self.single_thumbnail = single_thumbnail
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    def preprocess(
        self,
        images: ImageInput,
        *,
        tile: int | None = None,
        max_tiles: int | None = None,
        do_tile: bool | None = None,
        single_thumbnail: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """The tiles of all images `pixel_values` [T, 3, V, V], float32, and of how many each consists, `num_tiles`.

        An unknown keyword is an error: a setting swallowed in silence would change what the model sees.
        """
        tile = tile or self.tile
        settings = {
            "max_tiles": max_tiles or self.max_tiles,
            "do_tile": self.do_tile if do_tile is None else do_tile,
            "single_thumbnail": self.single_thumbnail if single_thumbnail is None else single_thumbnail,
        }
        cut = [cut_tiles(as_picture(image), tile, **settings) for image in make_flat_list_of_images(images)]
        pixels = self._normalised([picture for tiles in cut for picture in tiles], tile)
        data = {"pixel_values": pixels, "num_tiles": [len(tiles) for tiles in cut]}
        return BatchFeature(data, tensor_type=return_tensors)

    def _normalised(self, pictures: list[Image.Image], tile: int) -> torch.Tensor:
        """0 to 255 into about -2 to 2, per channel [T, 3, V, V]."""
        pixels_TVV3 = np.stack([np.asarray(picture) for picture in pictures]).astype(np.float32) / np.float32(255)
        pixels_TVV3 = (pixels_TVV3 - np.float32(self.image_mean)) / np.float32(self.image_std)
        return torch.from_numpy(np.ascontiguousarray(pixels_TVV3.transpose(0, 3, 1, 2)))


def as_picture(image: Any) -> Image.Image:
    """A Pillow image in RGB, from Pillow's own or an array [height, width, 3] of bytes."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def cut_tiles(
    picture: Image.Image, tile: int, *, max_tiles: int, do_tile: bool, single_thumbnail: bool
) -> list[Image.Image]:
    """The CATTY tiles, row by row, and then the thumbnail: the whole picture squashed into one tile."""
    if not do_tile:
        return [_resized(picture, (tile, tile))]
    picture = _resized(picture, within_ratio(*picture.size, max_tiles=max_tiles))
    size, boxes = catty_boxes(*picture.size, tile=tile, max_tiles=max_tiles)
    picture = _resized(picture, size)
    tiles = [picture.crop(box) for box in boxes]
    if len(tiles) > 1 or single_thumbnail:
        tiles.append(_resized(picture, (tile, tile)))
    return tiles


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, resample=Image.Resampling.BILINEAR)


class PointsProcessor(ProcessorMixin):
    """Images and text into one batch: each `<|image_pad|>` of the text becomes as many as its image has tokens.

    `tokens_per_tile` is what the model makes of a tile (144 for tiles of 336).
    """

    def __init__(
        self,
        image_processor: PointsImageProcessor | None = None,
        tokenizer: Any = None,
        tokens_per_tile: int = 144,
        chat_template: str | None = None,
    ):
        self.tokens_per_tile = tokens_per_tile
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @property
    def unused_input_names(self) -> list[str]:
        """What the image processor tells the text side, and the model does not take."""
        return ["num_tiles"]

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The image tokens of one image: `tokens_per_tile` for each of its tiles."""
        return self.image_token * (self.tokens_per_tile * int(image_inputs["num_tiles"][image_idx]))

    def _merge_kwargs(self, *args: Any, **kwargs: Any) -> dict[str, dict[str, Any]]:
        """As transformers does; a keyword that it would ignore is an error."""
        merged = super()._merge_kwargs(*args, **kwargs)
        known = {"text_kwargs", "images_kwargs", "tokenizer_init_kwargs", "common_kwargs", *merged}
        known |= {name for part in merged.values() if isinstance(part, dict) for name in part}
        unknown = sorted(set(kwargs) - known)
        if unknown:
            raise TypeError(f"PointsProcessor got unknown keywords: {', '.join(unknown)}.")
        return merged
