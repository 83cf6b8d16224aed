"""What is fine-tuned from what, on which data. Read in this order: `data_sets`, `settings`, `pool_file`.

`fields` has the kinds of values that they share.
"""

from __future__ import annotations

from finetune.config.data_sets import JSON_SUFFIXES, ROW_SUFFIXES, Columns, DataSet
from finetune.config.fields import Name, PathText
from finetune.config.pool_file import (
    KEYS_ELSEWHERE,
    LAST_MINUTES,
    NEW_KEYS,
    POOL_KEYS,
    FinetuneConfig,
    Slurm,
    Stage,
    slurm_minutes,
)
from finetune.config.settings import (
    HOW_MUCH,
    NEW_SETTINGS,
    RENAMED_SETTINGS,
    SETS,
    SHARE,
    VALIDATING,
    WATCHING,
    Adapt,
    Lora,
    Mixture,
    TrainSettings,
)

__all__ = [
    "HOW_MUCH",
    "JSON_SUFFIXES",
    "KEYS_ELSEWHERE",
    "LAST_MINUTES",
    "NEW_KEYS",
    "NEW_SETTINGS",
    "POOL_KEYS",
    "RENAMED_SETTINGS",
    "ROW_SUFFIXES",
    "SETS",
    "SHARE",
    "VALIDATING",
    "WATCHING",
    "Adapt",
    "Columns",
    "DataSet",
    "FinetuneConfig",
    "Lora",
    "Mixture",
    "Name",
    "PathText",
    "Slurm",
    "Stage",
    "TrainSettings",
    "slurm_minutes",
]
