"""Pictures into tensors: the tiles of every image, normalised.

Pillow or torch does the resizing, so that no torchvision is needed. An item is an image, or a `Video`: a picture for
each of its frames. In the names of tensors:

    V   side of a tile      T   tiles of all images of a batch, one after another
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, make_flat_list_of_images
from transformers.processing_utils import ImagesKwargs

from finetune.media.images import as_rgb, open_picture, upright
from finetune.points.named_tilings import named_tiling, settings_of
from finetune.points.tile_pixels import RESIZERS, cut_tiles, normalised
from finetune.points.tiling import Single, Tiling
from finetune.points.token_layout import TileLayout, Tiles, layout_of
from finetune.points.video import UniformFrames, Video
from soup.errors import FinetuneError
from soup.support.text import bullet_list, did_you_mean

__all__ = ["PointsImageProcessor", "PointsImagesKwargs", "as_picture", "flat"]


# mypy does not look into transformers, and so does not see that this is a TypedDict, which may be `total` or not.
class PointsImagesKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """What may be set for images in one call, in place of the processor's own settings."""

    tile: int
    tiling: str | dict[str, Any]
    max_tiles: int
    do_tile: bool
    single_thumbnail: bool
    frames: int
    resizer: str


# What transformers itself writes into, or passes on from, a saved processor.
BOOKKEEPING = {"auto_map", "feature_extractor_type", "image_processor_type", "processor_class"}


class PointsImageProcessor(BaseImageProcessor):
    """Cuts images into tiles and normalises them.

    `tile` is the side of a tile; `tiling` the name of a tiling, or a mapping of its `name` and parameters (see
    `finetune.points.tiling`): {"name": "anyres", "min_tiles": 1}. `max_tiles` and `single_thumbnail` are the
    parameters of that name, for short, and win over the mapping's. Without `do_tile` an image becomes one squashed
    tile. Of a `Video` at most `frames` frames are taken, uniformly sampled, and each becomes one squashed tile.
    `resizer` is pillow, or torch: four times as quick, some values off by 1 of 255 (see `finetune.points.tile_pixels`).

    Raises:
        FinetuneError: an unknown tiling or setting, or values that don't go together.
    """

    model_input_names: ClassVar = ["pixel_values"]
    valid_kwargs = PointsImagesKwargs

    def __init__(
        self,
        tile: int = 336,
        max_tiles: int | None = None,
        do_tile: bool = True,
        single_thumbnail: bool | None = None,
        image_mean: Sequence[float] = OPENAI_CLIP_MEAN,
        image_std: Sequence[float] = OPENAI_CLIP_STD,
        tiling: str | Mapping[str, Any] = "catty",
        frames: int = 24,
        resizer: str = "pillow",
        **kwargs: Any,
    ):
        faults = [name for name in kwargs if name not in BOOKKEEPING and not name.startswith("_")]
        if faults:
            known = [name for name in PointsImagesKwargs.__annotations__ if name not in ImagesKwargs.__annotations__]
            known += ["image_mean", "image_std"]
            rows = [f"{name!r}.{did_you_mean(name, known)}" for name in faults]
            raise FinetuneError(f"PointsImageProcessor: unknown settings:\n{bullet_list(rows)}")
        super().__init__(**kwargs)
        self.tile = tile
        self.do_tile = do_tile
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.frames = UniformFrames(frames).frames
        self.resizer = _known_resizer(resizer)
        self.tiling = settings_of(_with(named_tiling(tiling), max_tiles, single_thumbnail))
        named_tiling(self.tiling).plan(tile, tile, tile)  # raises at once what can't work

    @property
    def max_tiles(self) -> int | None:
        """The most tiles of an image, without the thumbnail; None for a tiling without that limit."""
        return getattr(named_tiling(self.tiling), "max_tiles", None)

    @property
    def single_thumbnail(self) -> bool | None:
        """Whether an image of one tile gets a thumbnail all the same; None for a tiling without thumbnails."""
        return getattr(named_tiling(self.tiling), "single_thumbnail", None)

    def fetch_images(self, images: Any) -> Any:
        """Open what is named by a path or base64; a URL is refused. Lists keep their form."""
        if isinstance(images, Video):
            return Video(tuple(self.fetch_images(frame) for frame in images.frames))
        if isinstance(images, list | tuple):
            return [self.fetch_images(image) for image in images]
        return open_picture(images) if isinstance(images, str) else super().fetch_images(images)

    def preprocess(
        self,
        images: Any,
        *,
        tile: int | None = None,
        tiling: str | Mapping[str, Any] | None = None,
        max_tiles: int | None = None,
        do_tile: bool | None = None,
        single_thumbnail: bool | None = None,
        frames: int | None = None,
        resizer: str | None = None,
        do_normalize: bool = True,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Make the tiles of all images, `pixel_values` [T, 3, V, V], float32, and how many each has, `num_tiles`.

        Where a tiling drops margins, `layouts` tells which tokens each image becomes (fields of `TileLayout`).
        Without `do_normalize` the tiles are bytes, a quarter of the size: `normalised` makes the same float32 of them
        elsewhere. An unknown keyword is an error: a setting that is ignored would change what the model is given.
        """
        tile = tile or self.tile
        stills = _with(named_tiling(tiling or self.tiling), max_tiles, single_thumbnail)
        if not (self.do_tile if do_tile is None else do_tile):
            stills = Single()
        video = UniformFrames(self.frames if frames is None else frames)
        resizer = _known_resizer(resizer or self.resizer)
        cut = [_cut(image, stills, video, tile, resizer) for image in flat(images)]
        if not cut:
            raise FinetuneError("no images to make tiles of: expected one at least.")
        pixels_T3VV = torch.cat([tiles for tiles, _ in cut]) if len(cut) > 1 else cut[0][0]
        data = {
            "pixel_values": self.normalised(pixels_T3VV) if do_normalize else pixels_T3VV,
            "num_tiles": [len(tiles) for tiles, _ in cut],
        }
        if any(isinstance(layout, TileLayout) for _, layout in cut):
            data["layouts"] = [layout if isinstance(layout, TileLayout) else (layout, 0, 0, 0, 0) for _, layout in cut]
        return BatchFeature(data, tensor_type=return_tensors)

    def normalised(self, pixels_T3VV: Tensor) -> Tensor:
        """Normalise bytes of tiles as the encoders take them: about -2 to 2, per channel [T, 3, V, V], float32."""
        return normalised(pixels_T3VV, self.image_mean, self.image_std)


def flat(images: Any) -> list[Any]:
    """Give the items of a prompt or a batch, one after another; a `Video` is one item."""
    if isinstance(images, Video):
        return [images]
    if isinstance(images, list | tuple):
        return [item for part in images for item in flat(part)]
    return list(make_flat_list_of_images(images))


def as_picture(image: Any) -> Image.Image:
    """Make an upright Pillow image in RGB, from Pillow's own or an array [height, width, 3] of bytes."""
    return as_rgb(upright(image)) if isinstance(image, Image.Image) else as_rgb(Image.fromarray(np.asarray(image)))


def _with(tiling: Tiling, max_tiles: int | None, single_thumbnail: bool | None) -> Tiling:
    """Return the tiling with the two settings that have a name of their own."""
    settings = {"max_tiles": max_tiles, "single_thumbnail": single_thumbnail}
    changes = {name: value for name, value in settings.items() if value is not None}
    missing = [name for name in changes if not hasattr(tiling, name)]
    if missing:
        raise FinetuneError(f"tiling {tiling.name} has no {' and no '.join(missing)}; leave it out.")
    return dataclasses.replace(tiling, **changes) if changes else tiling


def _known_resizer(name: str) -> str:
    if name not in RESIZERS:
        raise FinetuneError(f"resizer: there is none named {name!r}.{did_you_mean(str(name), RESIZERS)}")
    return name


def _cut(image: Any, stills: Tiling, video: UniformFrames, tile: int, resizer: str) -> tuple[Tensor, Tiles]:
    """Return the tiles of one item, bytes [T, 3, V, V], and how they become tokens."""
    if isinstance(image, Video):
        frames = torch.cat([_cut(frame, video, video, tile, resizer)[0] for frame in video.chosen(image)])
        return frames, len(frames)
    picture = as_picture(image)
    width, height = picture.size
    plan = stills.plan(width, height, tile)
    return cut_tiles(picture, plan, tile, resizer), layout_of(plan)
