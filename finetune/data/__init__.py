"""From files to batches: files of rows, formats, what is wrong with them, mixtures, packing, batches."""

from finetune.data.batches import Album, Collator
from finetune.data.corpus import Corpus
from finetune.data.pixels import as_numbers
from finetune.data.rows import Picture, Sample, texts_of
from finetune.data.tokens import IGNORED, Tokens
from finetune.data.training_rows import TrainingRows

__all__ = [
    "IGNORED",
    "Album",
    "Collator",
    "Corpus",
    "Picture",
    "Sample",
    "Tokens",
    "TrainingRows",
    "as_numbers",
    "texts_of",
]
