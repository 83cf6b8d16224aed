"""Tiles as bytes until they are where the model is: a quarter of what would be moved between processes and to the GPU.

T   tiles of a batch, one after another      V   side of a tile
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["normalise_tiles"]


class Normalisation(Protocol):
    """An image processor, as far as it says how pixels are normalised."""

    image_mean: Sequence[float]
    image_std: Sequence[float]


def normalise_tiles(batch: dict[str, Tensor], image_processor: Normalisation) -> dict[str, Tensor]:
    """Normalise a batch's tiles, where they are bytes, on their device.

    Values are (byte / 255 - mean) / std in float32: the very bits that the image processor gives.

    Args:
        batch: with `pixel_values` [T, 3, V, V], bytes or float32, or without images.
        image_processor: the model's.
    """
    pixels_T3VV = batch.get("pixel_values")
    if pixels_T3VV is None or pixels_T3VV.dtype != torch.uint8:
        return batch
    return {**batch, "pixel_values": _normalised(pixels_T3VV, image_processor.image_mean, image_processor.image_std)}


def _normalised(pixels_T3VV: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    # All three as tensors: a division by a number may be done as a multiplication, with other last bits.
    white, mean_3VV, std_3VV = (
        torch.tensor(values, dtype=torch.float32, device=pixels_T3VV.device).reshape(-1, 1, 1)
        for values in ([255.0], mean, std)
    )
    return pixels_T3VV.to(torch.float32).div_(white).sub_(mean_3VV).div_(std_3VV)
