"""What is fine-tuned from what, on which data: the YAML file that `soup finetune` reads.

    base:                        # a checkpoint directory or Hub id, or how to train one:
      start: tiny                #   a fresh tiny POINTS; or the checkpoint to go on from
      data: data/base
      out: base
      lr: 1.5e-3
      steps: 800                 #   batch, seed, dtype, ... are those below, where not said here; nothing is frozen
    added:                       # one ingredient per added data set, D + d_i
      number: data/number
      word: data/word
    also: [data/base]            # data that every ingredient is tuned on besides its own: D
    freeze: [general_vit, ocr_vit]
    lr: 1.0e-3
    steps: 150
    batch: 64
    seed: 0
    out: ckpts                   # ckpts/number, ckpts/word
    root: .                      # where all paths start, itself relative to the file

A data set is a directory with `data.json` (LLaVA's conversations) and the images that
it names.

Source of the two stages: POINTS, arXiv 2409.04828, sections 3.4 and 4.1 (warm-up over 3 % of the steps, then cosine).
"""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from soup.errors import FinetuneError, did_you_mean, listing

__all__ = ["BaseStage", "FinetuneConfig", "Settings", "read_config"]

Paths = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Name = Annotated[str, Field(pattern=r"^[\w][\w.-]*$")]


class Settings(BaseModel):
    """How one model is trained; every stage has its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(gt=0)
    steps: int = Field(gt=0)
    batch: int = Field(64, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    seed: int = 0
    freeze: list[str] = []
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    max_shard_size: str = "5GB"


class BaseStage(Settings):
    """How the base is trained, where there is none yet."""

    start: str = "tiny"
    data: Paths
    out: str = "base"


class FinetuneConfig(Settings):
    """The base, and one ingredient for each added data set."""

    base: str | BaseStage
    added: dict[Name, Paths] = Field(min_length=1)
    also: Paths = []
    out: str = "ckpts"
    root: str = "."

    def base_settings(self) -> Settings:
        """How the base is trained: by its own settings, and these where it has none. It freezes what it names alone.

        Raises:
            AttributeError: the base is a checkpoint.
        """
        own = {name: getattr(self.base, name) for name in Settings.model_fields if name in self.base.model_fields_set}
        return Settings(**{**self.settings().model_dump(), "freeze": [], **own})

    def settings(self) -> Settings:
        """How every ingredient is trained."""
        return Settings(**{name: getattr(self, name) for name in Settings.model_fields})


def read_config(path: Path) -> FinetuneConfig:
    """The configuration in a YAML file.

    Raises:
        FinetuneError: no such file, not YAML, or keys and values that are wrong; all of them are listed.
    """
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FinetuneError(f"{path}: can't be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise FinetuneError(f"{path}: not valid YAML.\n{error}") from error
    if not isinstance(found, dict):
        raise FinetuneError(f"{path}: expected keys such as base, added, lr and steps, found {type(found).__name__}.")
    try:
        return FinetuneConfig.model_validate(found)
    except ValidationError as error:
        raise FinetuneError(f"{path}: {error.error_count()} wrong.\n{listing(_wrong(error))}") from error


def _wrong(error: ValidationError) -> list[str]:
    """One line for each wrong key or value."""
    lines = []
    for problem in error.errors():
        # `base` may be a name or a mapping: pydantic reports on both readings, of which only the mapping tells much.
        place = [str(part) for part in problem["loc"] if part != "BaseStage"]
        if place == ["base", "str"]:
            continue
        if problem["type"] == "extra_forbidden":
            known = BaseStage.model_fields if place[0] == "base" else FinetuneConfig.model_fields
            lines.append(f"{'.'.join(place)}: unknown key.{did_you_mean(place[-1], known)}")
        else:
            lines.append(f"{'.'.join(place)}: {problem['msg']}, found {problem['input']!r}.")
    return lines
