"""How one model is trained: `TrainSettings`, and the settings within it.

Source of the stages: POINTS, arXiv 2409.04828, sections 3.4 and 4.1 (warm-up over 3 % of the steps, then cosine); of
the mixture: MM1.5, arXiv 2409.20566, sections 3.2 and 3.3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from finetune.config.data_sets import DataSet, DataSets
from finetune.config.fields import StrictModel, Words, as_list

__all__ = [
    "HOW_MUCH",
    "NEW_SETTINGS",
    "RENAMED_SETTINGS",
    "SETS",
    "SHARE",
    "VALIDATING",
    "WATCHING",
    "Adapt",
    "Lora",
    "Mixture",
    "TrainSettings",
]


HOW_MUCH = re.compile(r"all|none|last ([1-9]\d*)")  # of a part is trained
# Names of settings, and those they had at first: digests, files on disk and folders of ingredients keep the old ones.
RENAMED_SETTINGS = {
    "lr_overrides": "lr_of",
    "warmup_ratio": "warmup",
    "attn_implementation": "attention",
    "global_batch_size": "batch",
}
NEW_SETTINGS = {old: new for new, old in RENAMED_SETTINGS.items()}
WATCHING = ("evaluate", "evaluate_every")  # settings that only look at a model: they are in no digest
VALIDATING = ("validation", "validate_every", "keep_best", "early_stopping")  # in digests where they are set


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:  # a count too large, nested too deep
        raise ValueError(f"not a regular expression ({error})") from error
    return text


def _amount(text: str) -> str:
    if not HOW_MUCH.fullmatch(text.strip()):
        raise ValueError("expected all, none, or `last 3` for its last three layers")
    return text.strip()


def _size(text: str) -> str:
    if not re.fullmatch(r"\s*\d+(\.\d+)?\s*[KMGT]B\s*", text, re.IGNORECASE):
        raise ValueError("expected a size such as 5GB or 500MB")
    return text


def _kind_of_validation(value: object) -> str:
    return SHARE if isinstance(value, int | float) else SETS


SHARE, SETS = "share", "data sets"  # two ways to say what is held out
Validation = Annotated[
    Annotated[float, Field(gt=0, le=0.5), Tag(SHARE)] | Annotated[DataSets, Tag(SETS)],
    Discriminator(_kind_of_validation),
]


class Adapt(StrictModel):
    """Shares of categories that follow the model; `finetune/data/adaptive_order.py` has the rule and its source.

    Every `every` steps each category's loss is taken on a share `held_out` of its rows, and its share of the batches
    grows by exp(rate * max(loss - reference, 0)).
    """

    every: int = Field(gt=0)
    held_out: float = Field(0.01, gt=0, le=0.5)
    rule: Literal["excess_loss"] = "excess_loss"
    rate: float = Field(1.0, gt=0)
    reference: dict[str, float] = {}


class Mixture(StrictModel):
    """How much of which rows a batch holds, beyond the data sets' own weights.

    `categories`: rows of a category, relative to those of `general` (MM1.5: science 0.1, math 0.5, code 0.2).
    `groups`: shares of rows with one image, several, or none, summing to 1 (MM1.5: 0.8, 0.1, 0.1).
    `adapt`: the categories' shares change in training, by the model's losses on them.
    """

    categories: dict[str, Annotated[float, Field(ge=0)]] = {}
    groups: dict[Literal["single_image", "several_images", "text_only"], Annotated[float, Field(ge=0)]] = {}
    adapt: Adapt | None = None

    @model_validator(mode="after")
    def _sums(self) -> Mixture:
        if self.groups and abs(sum(self.groups.values()) - 1) > 1e-6:
            raise ValueError(f"groups: expected shares that sum to 1, found {sum(self.groups.values()):g}")
        if self.groups and self.adapt:
            raise ValueError(
                "groups and adapt exclude each other: shares of categories that change move those of groups"
            )
        return self


class Lora(StrictModel):
    """Low-rank adapters (arXiv 2106.09685, section 4.1), merged into the weights when the job is done.

    `target`: a regular expression over module names; by default the language model's linear layers, never the
    encoders'. `save`: modules that are trained in full beside the adapters; `vision_projector` is what lies between the
    encoders and the language model, whatever the family calls it. `keep_adapter`: the ingredient is a PEFT adapter on
    the start, and no whole model. `rslora`: B A is scaled by alpha / sqrt(rank) (arXiv 2312.03732). `dora`: the length
    of each row of a weight is trained apart from its direction (arXiv 2402.09353).
    """

    rank: int = Field(16, gt=0)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target: Annotated[str, AfterValidator(_pattern)] | None = None
    save: Words = ["vision_projector"]
    keep_adapter: bool = False
    rslora: bool = False
    dora: bool = False

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def as_stored(self) -> dict[str, object]:
        """Give what digests have: what is switched off is as absent as it was before there were such switches."""
        switches = ("keep_adapter", "rslora", "dora")
        return self.model_dump(exclude={name for name in switches if not getattr(self, name)})


class TrainSettings(StrictModel):
    """How one model is trained; every stage has its own.

    lr                  the learning rate
    lr_overrides        other learning rates of components: {vision_projector: 2e-5}
    steps | epochs      how long: one of the two
    global_batch_size   rows a step, over all devices
    micro_batch         rows that a device takes at once (the rest is accumulated)
    warmup_ratio        share of the steps in which the learning rate rises
    freeze, train       components that stay; components of which a part is trained: {general_vit: last 3}
    lora                adapters instead of full weights
    packing             several rows in one sequence of `max_length` tokens, each blind to the others
    max_length          tokens of a row; longer rows are bad rows
    tiling              how images are cut in training, such as anyres:max_tiles=9; the ingredient keeps its start's
    on_bad_row          error: nothing is trained before all rows are good; skip: they are left out, and logged
    cache_features      frozen encoders encode each picture once, and the features are kept in memory
    precision           of the arithmetic: by default bfloat16 on a GPU and float32 elsewhere
    dtype               of the weights that are written
    attn_implementation eager, sdpa or flash_attention_2; by default what transformers chooses
    parallel            several GPUs: ddp, fsdp, zero2, zero3, or the path of an accelerate configuration
    checkpoint_every    steps between two checkpoints to resume from
    keep_every          every so many steps the model as it is then is an ingredient, too (POINTS1.5)
    validation          a share of each data set's rows that is not learnt, such as 0.02, or data sets of their own
    validate_every      every so many steps, and after the last, the loss on them is taken, into state and curves
    keep_best           the ingredient is the model that had the lowest of these losses, not the last one
    early_stopping      training ends when so many of these losses, one after another, were no lower than the best
    evaluate            benchmarks, as `soup eval --eval` names them: paths start where the command is typed
    evaluate_every      every so many steps the model as it is then is scored on them, into its state and its curves
    log_to              tensorboard, trackio, wandb
    workers             processes that decode pictures; 0: the training process itself
    """

    lr: float = Field(gt=0)
    lr_overrides: dict[str, Annotated[float, Field(gt=0)]] = {}
    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    global_batch_size: int = Field(64, gt=0)
    micro_batch: int | None = Field(None, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    adam_betas: tuple[float, float] = (0.9, 0.98)
    seed: int = 0
    freeze: Words = []
    train: dict[str, Annotated[str, AfterValidator(_amount)]] = {}
    lora: Lora | None = None
    packing: bool = False
    max_length: int = Field(4096, gt=0)
    tiling: str | None = None
    on_bad_row: Literal["error", "skip"] = "error"
    mixture: Mixture = Mixture()
    cache_features: bool = False
    precision: Literal["float32", "bfloat16"] | None = None
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    gradient_checkpointing: bool = False
    parallel: str = "ddp"
    checkpoint_every: int | None = Field(None, gt=0)
    keep_every: int | None = Field(None, gt=0)
    validation: Validation | None = None
    validate_every: int | None = Field(None, gt=0)
    keep_best: bool = False
    early_stopping: int | None = Field(None, gt=0)
    evaluate: Words = []
    evaluate_every: int | None = Field(None, gt=0)
    log_to: Annotated[list[Literal["tensorboard", "trackio", "wandb"]], BeforeValidator(as_list)] = ["tensorboard"]
    workers: int = Field(0, ge=0)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    max_shard_size: Annotated[str, AfterValidator(_size)] = "5GB"

    @model_validator(mode="after")
    def _check_length(self) -> TrainSettings:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"expected one of steps and epochs, found {self.steps} and {self.epochs}")
        if self.micro_batch is not None and (rows := self.global_batch_size) % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} does not divide global_batch_size {rows}")
        if bool(self.evaluate) != bool(self.evaluate_every):
            raise ValueError("evaluate and evaluate_every go together: which benchmarks, and every how many steps")
        if (self.validation is None) != (self.validate_every is None):
            raise ValueError("validation and validate_every go together: which rows, and every how many steps")
        if self.packing and self.mixture.adapt:
            raise ValueError("packing and mixture.adapt exclude each other: packs are laid before the shares are known")
        if self.validation is None and (self.keep_best or self.early_stopping):
            raise ValueError("keep_best and early_stopping need validation: by its loss a model is the best")
        return self

    def as_stored(self) -> dict[str, object]:
        """Give the settings as digests and files on disk have them: under the names that settings had at first."""
        stored = {RENAMED_SETTINGS.get(name, name): value for name, value in self.model_dump().items()}
        if self.lora:
            stored["lora"] = self.lora.as_stored()
        if self.mixture.adapt is None:
            stored["mixture"] = self.mixture.model_dump(exclude={"adapt"})
        absent = [] if self.evaluate else list(WATCHING)
        absent += [] if self.validation is not None else list(VALIDATING)
        absent += [] if self.tiling else ["tiling"]
        return {name: value for name, value in stored.items() if name not in absent}

    def earlier_models(self, steps: int) -> int:
        """Count the models of earlier steps that a run of so many steps keeps as ingredients (`keep_every`)."""
        return (steps - 1) // self.keep_every if self.keep_every else 0

    @property
    def validation_share(self) -> float:
        """The share of each data set that is held out; 0 where other data sets are, or none."""
        return self.validation if isinstance(self.validation, float) else 0.0

    @property
    def validation_sets(self) -> list[DataSet]:
        """The data sets that are looked at on the way, and not learnt."""
        return self.validation if isinstance(self.validation, list) else []

    @property
    def watching(self) -> set[str]:
        """The names of the settings that only look at the model, and make no other one of it."""
        chooses = self.keep_best or self.early_stopping
        return {*WATCHING, *(() if chooses else ("validate_every",) if self.validation_share else VALIDATING)}

    @classmethod
    def from_stored(cls, document: Mapping[str, object]) -> TrainSettings:
        """Read settings that `as_stored` gave.

        Raises:
            pydantic.ValidationError: keys or values that are wrong.
        """
        return cls.model_validate({NEW_SETTINGS.get(name, name): value for name, value in document.items()})
