"""The POINTS family: importing this package makes transformers' Auto classes know its checkpoints.

Read in the order that tensors flow: `tiling` (which tiles; `catty` and others, by name in `named_tilings`),
`tile_pixels`, `images` and `processing` (pictures and texts into tensors), `encoders` (features of a tile),
`connectors` (its image tokens), `model` (tensors into an answer); `config` shapes them, `presets` are sizes by name,
`tiny` the one that learns on a CPU. Weights come from `assemble` (`pretrained_parts` and a fresh connector) and
`convert` (what was `published`), by `slice_writer` from file to file.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from finetune.points.config import PointsConfig
from finetune.points.model import PointsForConditionalGeneration
from finetune.points.processing import PointsImageProcessor, PointsProcessor

__all__ = ["PointsConfig", "PointsForConditionalGeneration", "PointsImageProcessor", "PointsProcessor"]

AutoConfig.register("points", PointsConfig, exist_ok=True)
AutoModelForImageTextToText.register(PointsConfig, PointsForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(PointsConfig, slow_image_processor_class=PointsImageProcessor, exist_ok=True)
AutoProcessor.register(PointsConfig, PointsProcessor, exist_ok=True)
