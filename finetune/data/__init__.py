"""From files to batches: files of rows, formats, what is wrong with them, mixtures, packing, batches."""

from __future__ import annotations

from finetune.data.batches import Collator, FeatureCache
from finetune.data.corpus import Corpus
from finetune.data.held_out import HeldOutRows
from finetune.data.pixels import normalise_tiles
from finetune.data.rows import Picture, Sample, texts_of
from finetune.data.tokens import IGNORED, RowTokenizer
from finetune.data.training_rows import TrainingRows

__all__ = [
    "IGNORED",
    "Collator",
    "Corpus",
    "FeatureCache",
    "HeldOutRows",
    "Picture",
    "RowTokenizer",
    "Sample",
    "TrainingRows",
    "normalise_tiles",
    "texts_of",
]
