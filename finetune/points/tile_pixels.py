"""Pixels by plan: every tiling's tiles are cut here, and turned into what the encoders see.

Resizing is bilinear over all pixels that a new one covers. By Pillow, or by torch in a quarter of the time: its weights
have 16 bits where Pillow's have 32, so values may differ by 1 of 255: 0.3 % of them where an image is shrunk, up to a
fifth where it is enlarged. torch gave the same bits with AVX512, AVX2 and neither. In the names of arrays:

    H, W   an image      V   side of a tile      T   tiles of an image, or of all images of a batch
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from finetune.points.tiling import Size, TilePlan, centred

__all__ = ["RESIZERS", "cut_tiles", "normalised"]

Array = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Resizer:
    """How an RGB picture is taken up, resized to width and height, and given back as bytes [3, H, W]."""

    take: Callable[[Image.Image], Any]
    resize: Callable[[Any, Size], Any]
    give: Callable[[Any], Array]


def _torch_resize(pixels_13HW: Tensor, size: Size) -> Tensor:
    return F.interpolate(pixels_13HW, size[::-1], mode="bilinear", antialias=True)


RESIZERS = {
    "pillow": Resizer(
        take=lambda picture: picture,
        resize=lambda picture, size: picture.resize(size, resample=Image.Resampling.BILINEAR),
        give=lambda picture: np.asarray(picture).transpose(2, 0, 1),
    ),
    "torch": Resizer(
        # a view of channels last, for which torch has its quick way
        take=lambda picture: torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None],
        resize=_torch_resize,
        give=lambda pixels_13HW: pixels_13HW[0].numpy(),
    ),
}


def cut_tiles(picture: Image.Image, plan: TilePlan, tile: int, resizer: str = "pillow") -> Tensor:
    """The tiles of an RGB picture, the thumbnail among them, as the language model reads them: bytes [T, 3, V, V]."""
    by = RESIZERS[resizer]
    image, size = by.take(picture), picture.size
    resized, new_size = image, size
    for wanted in plan.sizes:
        resized, new_size = _resized(by, resized, new_size, wanted), wanted
    canvas_3HW = _laid_on(plan.canvas or new_size, by.give(resized), plan.corner)
    tiles = [canvas_3HW[:, top:bottom, left:right] for left, top, right, bottom in plan.boxes]
    if plan.thumbnail is not None:
        source = (resized, new_size) if plan.thumbnail.of_resized else (image, size)
        whole = _thumbnail(by, *source, plan.thumbnail.size, tile)
        tiles = [whole, *tiles] if plan.thumbnail.first else [*tiles, whole]
    # told where to go: by itself, numpy would keep Pillow's order of bytes
    return torch.from_numpy(np.stack(tiles, out=np.empty((len(tiles), 3, tile, tile), dtype=np.uint8)))


def normalised(pixels_T3VV: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Bytes into about -2 to 2, per channel: (value / 255 - mean) / std in float32 [T, 3, V, V].

    Plane by plane, so that all three steps find it in the cache: several times as fast as whole arrays, and the same
    bits.
    """
    bytes_T3VV = pixels_T3VV.numpy()
    values_T3VV = np.empty(bytes_T3VV.shape, dtype=np.float32)
    for bytes_3VV, values_3VV in zip(bytes_T3VV, values_T3VV, strict=True):
        for channel, (bytes_VV, values_VV) in enumerate(zip(bytes_3VV, values_3VV, strict=True)):
            np.divide(bytes_VV, np.float32(255), out=values_VV)
            values_VV -= np.float32(mean[channel])
            values_VV /= np.float32(std[channel])
    return torch.from_numpy(values_T3VV)


def _resized(by: Resizer, image: Any, size: Size, wanted: Size) -> Any:
    return image if size == wanted else by.resize(image, wanted)


def _thumbnail(by: Resizer, image: Any, size: Size, wanted: Size, tile: int) -> Array:
    room = (tile, tile)
    return _laid_on(room, by.give(_resized(by, image, size, wanted)), centred(wanted, room))


def _laid_on(room: Size, pixels_3HW: Array, corner: tuple[int, int]) -> Array:
    """The picture on black; itself if it fills the room."""
    _, height, width = pixels_3HW.shape
    if (width, height) == room:
        return pixels_3HW
    canvas_3HW = np.zeros((3, room[1], room[0]), dtype=np.uint8)
    left, top = corner
    canvas_3HW[:, top : top + height, left : left + width] = pixels_3HW
    return canvas_3HW
