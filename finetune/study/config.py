"""What `soup study` reads: how a pool is made and evaluated, which soups are cooked, what they are compared with.

    root: work                        # where everything goes, relative to the file; each seed has work/seed-<n>
    seeds: [0, 1, 2]                  # everything is done once for each
    prepare: python -m finetune.toy {place}/toy --seed {seed}      # a command, or several, that make the data
    environment: {LMUData: "{place}/toy/LMUData"}                  # variables that the harness reads
    finetune:                         # the keys of a `soup finetune` configuration, or the path of one
      data: "{place}/toy/base"        # {place} is the seed's folder; what is relative starts beside this file
    eval: opencompass
    split: 0.5                        # half of the questions choose, the other half reports
    strategies: [average, maximum, greedy]
    pools:                            # the pool once more, trained otherwise: what is other in `finetune`, by a name;
      adapters: {lora: {rank: 16, keep_adapter: true}, lr: 2.0e-3}    # its soups are rows such as `adapters: greedy`
    compare: [learning_rates, individual_select, all_data]
    learning_rates: [2.5e-4, 5.0e-4, 1.0e-3]
    judge: {url: "http://127.0.0.1:8000/v1", model: some-judge}
    workers: 2
    shots: 2                          # and `model`, `engine`, `engine_args`, `batch_size`: as `soup eval` has them

Source of the comparisons: POINTS, arXiv 2409.04828, Table 4 and section 3.4; `all_data` is the baseline that it leaves
out: one model on all of the data, trained as long as one ingredient, and as long as all of them together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from finetune.config import POOL_KEYS, Name, PathText
from finetune.config.fields import StrictModel, Words
from finetune.config_file import parse_config
from finetune.yaml_file import read_mapping
from soup.errors import FinetuneError
from soup.support.text import bullet_list, did_you_mean

__all__ = ["Comparison", "LLMJudgeConfig", "StudyConfig", "filled", "read_study", "way_back"]

Comparison = Literal["learning_rates", "individual_select", "all_data"]
STUDY_KEYS = "finetune, eval and split"


class LLMJudgeConfig(StrictModel):
    """An endpoint that grades free-form answers; its key is in the environment variable `key_env`."""

    url: str
    model: str
    key_env: str = "OPENAI_API_KEY"


class StudyConfig(StrictModel):
    """A whole study; `finetune` holds the keys of a `soup finetune` configuration, seed and root apart."""

    root: PathText = "."
    seeds: list[int] = Field([0], min_length=1)
    prepare: Words = []
    environment: dict[str, str] = {}
    finetune: dict[str, object]
    eval: Words
    split: float | None = Field(None, gt=0, lt=1)
    strategies: Words = ["average", "maximum", "greedy"]
    pools: dict[Name, dict[str, object]] = {}
    compare: list[Comparison] = []
    learning_rates: list[Annotated[float, Field(gt=0)]] = []
    judge: LLMJudgeConfig | None = None
    model: str = "auto"
    engine: str = "transformers"
    engine_args: dict[str, object] = {}
    batch_size: int | Literal["auto"] = "auto"
    workers: int = Field(0, ge=0)
    shots: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _goes_together(self) -> StudyConfig:
        wrong = []
        if len(set(self.seeds)) < len(self.seeds):
            wrong.append(f"seeds: one is named twice in {self.seeds}")
        if ("learning_rates" in self.compare) != bool(self.learning_rates):
            wrong.append("learning_rates: expected some where `compare` names them, and nowhere else")
        mine = ("seed", "root", "out", "sweep", "include_base")
        wrong += [f"finetune.{key}: is the study's to set" for key in mine if key in self.finetune]
        fixed = (*mine, "start", "added")
        pools = self.pools.items()
        wrong += [
            f"pools.{name}.{key}: is the same for all pools" for name, keys in pools for key in fixed if key in keys
        ]
        if not self.finetune.get("added"):
            wrong.append("finetune.added: expected the data sets that the ingredients are tuned on")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def ingredients(self) -> list[str]:
        """The names of each pool's ingredients."""
        added = self.finetune["added"]
        return list(added) if isinstance(added, Mapping) else []

    def pool_size(self, home: Path, changed: Mapping[str, object] | None = None) -> int | None:
        """Count the ingredients of a pool, models of earlier steps too; None where the steps follow from the rows.

        Args:
            home: the folder of the study's file.
            changed: keys that are others.
        """
        path = self.seed_folder(home, self.seeds[0]) / "finetune.yaml"
        config = parse_config(self.pool(home, self.seeds[0], changed), path)
        if config.keep_every and config.steps is None:
            return None
        return len(self.ingredients) * (1 + config.earlier_models(config.steps or 1))

    def seed_folder(self, home: Path, seed: int) -> Path:
        """Give the folder of a seed; `home` is the folder of the study's file."""
        return home / self.root / f"seed-{seed}"

    def pool(self, home: Path, seed: int, changed: Mapping[str, object] | None = None) -> dict[str, object]:
        """Give the keys of a seed's `soup finetune` configuration, for a file in the seed's folder.

        Args:
            home: the folder of the study's file.
            seed: one of the study's.
            changed: keys that are others.

        Raises:
            FinetuneError: keys or values that are wrong; all of them are listed.
        """
        folder = self.seed_folder(home, seed)
        near = os.path.relpath(folder, home)
        keys: dict[str, object] = {key: filled(value, near, seed) for key, value in self.finetune.items()}
        keys |= {"seed": seed, "root": way_back(folder, home), "out": f"{near}/ckpts", **(changed or {})}
        if isinstance(start := keys.get("start"), dict):
            keys["start"] = {**start, "out": f"{near}/{start.get('out', 'base')}"}
        parse_config(keys, folder / "finetune.yaml")
        return keys


def way_back(folder: Path, home: Path) -> str:
    """Give the way from a folder up to `home`; `..` of a linked folder leads to where the disk has it."""
    return os.path.relpath(home.resolve(), folder.resolve())


def filled(value: object, folder: str, seed: int) -> object:
    """Give a value with {place} (the seed's folder) and {seed} filled in, in all of its strings."""
    if isinstance(value, str):
        return value.replace("{place}", folder).replace("{seed}", str(seed))
    if isinstance(value, list):
        return [filled(item, folder, seed) for item in value]
    return {key: filled(item, folder, seed) for key, item in value.items()} if isinstance(value, dict) else value


def read_study(path: Path) -> StudyConfig:
    """Read a study; every configuration that it implies is checked as well.

    Raises:
        FinetuneError: no such file, not YAML, or keys and values that are wrong; all of them are listed.
    """
    keys = read_mapping(path, STUDY_KEYS)
    if isinstance(pool_file := keys.get("finetune"), str):
        pool = read_mapping(path.parent / pool_file, POOL_KEYS)
        keys["finetune"] = {key: value for key, value in pool.items() if key not in ("root", "out")}
    try:
        study = StudyConfig.model_validate(keys)
    except ValidationError as error:
        raise FinetuneError(f"{path}: {error.error_count()} wrong.\n{bullet_list(_wrong(error))}") from error
    for changed in ({}, *study.pools.values()):
        study.pool(path.parent, study.seeds[0], changed)
    return study


def _wrong(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{name}: unknown key.{did_you_mean(name, StudyConfig.model_fields)}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            value = "" if problem["type"] in ("value_error", "missing") else f", found {problem['input']!r}"
            lines += [f"{name}: {message}{value}"] if name else message.split("; ")
    return lines
