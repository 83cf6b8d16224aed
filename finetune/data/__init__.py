"""From files to batches: sources, formats, what is wrong with them, mixtures, batches."""

from finetune.data.batches import IGNORED, Album, Collator, Conversations, Sample, read_samples

__all__ = ["IGNORED", "Album", "Collator", "Conversations", "Sample", "read_samples"]
