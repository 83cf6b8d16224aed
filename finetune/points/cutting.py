"""Pixels by plan: every tiling's tiles are cut here, and turned into what the encoders see.

Pillow does the resizing, bilinear. In the names of tensors:

    V   side of a tile      T   tiles of an image, or of all images of a batch
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from finetune.points.tiling import Plan, Size, Thumbnail, centred

__all__ = ["cut_tiles", "normalised", "stacked"]


def cut_tiles(picture: Image.Image, plan: Plan, tile: int) -> list[Image.Image]:
    """The tiles of an RGB picture, the thumbnail among them, in the order in which the language model reads them."""
    resized = picture
    for size in plan.sizes:
        resized = _resized(resized, size)
    canvas = resized if plan.canvas in (None, resized.size) else _laid_on(plan.canvas, resized, plan.corner)
    tiles = [canvas if box == (0, 0, *canvas.size) else canvas.crop(box) for box in plan.boxes]
    if plan.thumbnail is None:
        return tiles
    whole = _thumbnail(resized if plan.thumbnail.of_resized else picture, plan.thumbnail, tile)
    return [whole, *tiles] if plan.thumbnail.first else [*tiles, whole]


def stacked(tiles: Sequence[Image.Image], tile: int) -> Tensor:
    """Pictures of one size as bytes [T, 3, V, V]."""
    pixels_T3VV = np.empty((len(tiles), 3, tile, tile), dtype=np.uint8)
    for pixels_3VV, picture in zip(pixels_T3VV, tiles, strict=True):
        for pixels_VV, band in zip(pixels_3VV, picture.split(), strict=True):
            pixels_VV[:] = np.asarray(band)
    return torch.from_numpy(pixels_T3VV)


def normalised(pixels_T3VV: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Bytes into about -2 to 2, per channel: (value / 255 - mean) / std in float32 [T, 3, V, V].

    Plane by plane, so that all three steps find it in the cache: 5 to 6 times as fast as whole arrays, and the same
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


def _thumbnail(picture: Image.Image, thumbnail: Thumbnail, tile: int) -> Image.Image:
    room = (tile, tile)
    resized = _resized(picture, thumbnail.size)
    return resized if resized.size == room else _laid_on(room, resized, centred(resized.size, room))


def _laid_on(room: Size, picture: Image.Image, corner: tuple[int, int]) -> Image.Image:
    canvas = Image.new("RGB", room)
    canvas.paste(picture, corner)
    return canvas


def _resized(picture: Image.Image, size: Size) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, resample=Image.Resampling.BILINEAR)
