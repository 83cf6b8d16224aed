"""What is fine-tuned from what, on which data: the YAML file that `soup finetune` reads.

    start: base/                 # the checkpoint (directory, Hub id, preset) that every job starts from; or how to
                                 #   train one first, by its own settings: {start: tiny, data: data/base, out: base}
    data: data/base              # the base set D: a data set, or a list of them
    added:                       # one ingredient for each added data set, tuned on D + d_i
      number: data/number        #   a directory, a file, a Hub id,
      word: {path: data/word.jsonl, images: pictures, weight: 0.5, category: text}    # or with its options
    include_base: true           # D alone is an ingredient, too
    sweep: {lr: [1e-5, 2e-5]}    # every ingredient once for each: the soup over learning rates
    out: ckpts                   # ckpts/number, ckpts/word, ckpts/base; number-lr1e-05 with a sweep
    root: .                      # where these paths start, itself relative to the file; files that `evaluate` and
                                 #   `parallel` name start where the command is typed, as on a command line

    lr: 2.0e-5                   # and the other fields of `TrainSettings`
    steps: 150
    freeze: [general_vit, ocr_vit]

`FinetuneConfig` holds these keys; `finetune/config_file.py` reads the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from finetune.config.data_sets import DataSet, DataSets
from finetune.config.fields import Name, PathText, StrictModel, check_path
from finetune.config.settings import NEW_SETTINGS, TrainSettings
from soup.support.text import did_you_mean

__all__ = [
    "KEYS_ELSEWHERE",
    "LAST_MINUTES",
    "NEW_KEYS",
    "POOL_KEYS",
    "FinetuneConfig",
    "Slurm",
    "Stage",
    "slurm_minutes",
]


MOST_JOBS = 10_000
LAST_MINUTES = 2  # of a job's time in SLURM are for its checkpoint
POOL_KEYS = "start, data, added and lr"  # for who gave another file
NEW_KEYS = {"also": "include_base", "vary": "sweep", "on": "executor"} | NEW_SETTINGS  # by their old names
KEYS_ELSEWHERE = {  # of transformers' Trainer and of LLaMA-Factory, and our word
    "model_name_or_path": "start",
    "dataset": "data",
    "output_dir": "out",
    "learning_rate": "lr",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "per_device_train_batch_size": "micro_batch",
    "batch_size": "global_batch_size",
    "cutoff_len": "max_length",
    "model_max_length": "max_length",
    "save_steps": "checkpoint_every",
    "eval_steps": "validate_every",
    "report_to": "log_to",
    "dataloader_num_workers": "workers",
    "deepspeed": "parallel",
}


def _executor(text: str) -> str:
    if not re.fullmatch(r"local|slurm|ray(:.+)?", text):
        raise ValueError("expected local, slurm, ray or ray:ADDRESS")
    return text


def _time_limit(limit: object) -> str:
    if slurm_minutes(str(limit)) <= LAST_MINUTES:
        raise ValueError(f"a job is asked to stop {LAST_MINUTES} minutes before its time is over: expected more")
    return str(limit)


def slurm_minutes(time_limit: str) -> int:
    """Give SLURM's time limit in minutes: `MM`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`.

    Raises:
        ValueError: none of these.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time_limit.strip())
    days, *parts = (int(part or 0) for part in match.groups()) if match else (0, 0, 0, 0)
    # Without days one number is minutes, two are minutes and seconds.
    long = match is not None and (match[1] is not None or match[4] is not None)
    hours, some, seconds = parts if long else (0, *parts[:2])
    minutes = days * 1440 + hours * 60 + some + (seconds > 0)
    if not minutes:
        raise ValueError("no time limit of SLURM, such as 24:00:00 or 2-12:00:00")
    return minutes


class Stage(StrictModel):
    """A model that is trained first, for the others to start from; settings that it leaves out are theirs.

    It freezes what it names itself, and nothing else. Other keys are those of `TrainSettings`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    start: PathText = "tiny"
    data: DataSets
    out: PathText = "base"


class Slurm(StrictModel):
    """What SLURM is asked for; `extra` holds any other parameter of sbatch by its long name."""

    partition: str | None = None
    account: str | None = None
    time: Annotated[str, BeforeValidator(_time_limit)] = "24:00:00"
    cpus_per_gpu: int = Field(default=8, gt=0)
    memory: str | None = None
    max_requeues: int = Field(default=3, ge=0)
    at_once: int | None = Field(default=None, gt=0)
    extra: dict[str, str | int] = {}


class FinetuneConfig(TrainSettings):
    """A start, the base set, and one ingredient for each added data set, for D alone, for each that varies."""

    start: Annotated[str | Stage, AfterValidator(lambda start: check_path(start) if isinstance(start, str) else start)]
    data: DataSets
    added: dict[Name, DataSets] = {}
    include_base: bool = False
    sweep: dict[str, Annotated[list[object], Field(min_length=1)]] = {}
    out: PathText = "ckpts"
    root: PathText = "."
    executor: Annotated[str, AfterValidator(_executor)] = "local"
    gpus_per_job: int = Field(1, ge=0)
    jobs_at_once: int | None = Field(None, gt=0)
    slurm: Slurm = Slurm()

    @model_validator(mode="after")
    def _goes_together(self) -> FinetuneConfig:
        wrong = []
        if not self.added and not self.include_base:
            wrong.append("nothing to train: expected `added` data sets, or `include_base: true` for the base set alone")
        if "start" in self.added:
            wrong.append("an added data set is called start, as the job that trains the start is")
        if "base" in self.added and self.include_base:
            wrong.append("an added data set is called base, as the base set alone is with `include_base: true`")
        wrong += [
            f"sweep.{name}: is called {NEW_KEYS[name]} now"
            if name in NEW_KEYS
            else f"sweep.{name}: no setting.{did_you_mean(name, TrainSettings.model_fields)}"
            for name in self.sweep
            if name not in TrainSettings.model_fields
        ]
        count = (len(self.added) + self.include_base) * math.prod(map(len, self.sweep.values()))
        if count > MOST_JOBS:
            wrong.append(f"sweep: {count:,} models to train, more than {MOST_JOBS:,}")
        lora = (self.start.model_extra or {}).get("lora") if isinstance(self.start, Stage) else None
        if isinstance(lora, dict) and lora.get("keep_adapter"):
            wrong.append("start.lora.keep_adapter: the others start from a whole model, not from an adapter")
        categories = {data_set.category for data_set in self._data_sets()}
        wrong += [
            f"mixture.categories.{name}: no data set has this category.{did_you_mean(name, categories)}"
            for name in sorted(self._mixed_categories() - categories)
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _data_sets(self) -> list[DataSet]:
        """All that the file names."""
        of_start = self.start.data if isinstance(self.start, Stage) else []
        return [*self.data, *of_start, *(data_set for sets in self.added.values() for data_set in sets)]

    def _mixed_categories(self) -> set[str]:
        """Those that any mixture names: of the whole, of the start, of the sweep."""
        stage = (self.start.model_extra or {}) if isinstance(self.start, Stage) else {}
        mixtures = [mix for mix in (stage.get("mixture"), *self.sweep.get("mixture", [])) if isinstance(mix, dict)]
        named = [mix["categories"] for mix in mixtures if isinstance(mix.get("categories"), dict)]
        return {str(name) for categories in (self.mixture.categories, *named) for name in categories}

    def settings(self, changed: Mapping[str, object] | None = None) -> TrainSettings:
        """Give how an ingredient is trained.

        Args:
            changed: settings that are others, by name.

        Raises:
            pydantic.ValidationError: a changed value is wrong.
        """
        ours = {name: getattr(self, name) for name in TrainSettings.model_fields}
        return TrainSettings.model_validate({**ours, **(changed or {})})

    def stage_settings(self) -> TrainSettings:
        """Give how the start is trained: by its own settings, and by these where it has none.

        Raises:
            TypeError: the start is a checkpoint.
        """
        if not isinstance(self.start, Stage):
            raise TypeError(f"start: expected a stage that is trained, found {self.start!r}")
        changed: dict[str, object] = self.start.model_extra or {}
        length = {"steps": None, "epochs": None} if {"steps", "epochs"} & changed.keys() else {}
        parts: dict[str, object] = {
            "freeze": [],
            "train": {},
            "lora": None,
            "lr_overrides": {},
            "cache_features": False,
        }
        return self.settings({**parts, **length, **changed})
