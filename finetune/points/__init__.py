"""The POINTS family: importing this room makes transformers' Auto classes know its checkpoints.

Read in the order that tensors flow: `tiling` (which tiles; `catty` and others), `cutting` (their pixels), `images` and
`processing` (pictures and words into tensors), `encoders` (what is seen in a tile), `connectors` (image tokens of it),
`model` (tensors into an answer); `config` shapes them, `presets` are sizes by name, `tiny` the one that learns on a
CPU. Weights come from `assemble` (pretrained `parts` and a fresh connector), `convert` (what was `published`), both of
which `restack` tensors from file to file.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from finetune.points.config import PointsConfig
from finetune.points.model import PointsForConditionalGeneration
from finetune.points.processing import PointsImageProcessor, PointsProcessor

__all__ = ["PointsConfig", "PointsForConditionalGeneration", "PointsImageProcessor", "PointsProcessor"]

AutoConfig.register("points", PointsConfig, exist_ok=True)
AutoModelForImageTextToText.register(PointsConfig, PointsForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(PointsConfig, slow_image_processor_class=PointsImageProcessor, exist_ok=True)
AutoProcessor.register(PointsConfig, PointsProcessor, exist_ok=True)
