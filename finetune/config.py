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
    root: .                      # where all paths start, itself relative to the file

    lr: 2.0e-5                   # and the other fields of `TrainSettings`
    steps: 150
    freeze: [general_vit, ocr_vit]

Source of the stages: POINTS, arXiv 2409.04828, sections 3.4 and 4.1 (warm-up over 3 % of the steps, then cosine); of
the mixture: MM1.5, arXiv 2409.20566, sections 3.2 and 3.3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from finetune.coordinates.conventions import named_convention
from soup.support.text import did_you_mean, is_possible_path

__all__ = [
    "HOW_MUCH",
    "LAST_MINUTES",
    "NEW_KEYS",
    "NEW_SETTINGS",
    "POOL_KEYS",
    "RENAMED_SETTINGS",
    "SETS",
    "SHARE",
    "Adapt",
    "Columns",
    "DataSet",
    "FinetuneConfig",
    "Lora",
    "Mixture",
    "Slurm",
    "Stage",
    "TrainSettings",
    "slurm_minutes",
]


HOW_MUCH = re.compile(r"all|none|last ([1-9]\d*)")  # of a part is trained
MOST_JOBS = 10_000
LAST_MINUTES = 2  # of a job's time in SLURM are for its checkpoint
POOL_KEYS = "start, data, added and lr"  # for who gave another file
# Names of settings, and those they had at first: digests, files on disk and folders of ingredients keep the old ones.
RENAMED_SETTINGS = {
    "lr_overrides": "lr_of",
    "warmup_ratio": "warmup",
    "attn_implementation": "attention",
    "global_batch_size": "batch",
}
WATCHING = ("evaluate", "evaluate_every")  # settings that only look at a model: they are in no digest
NEW_OF_DATA_SETS = (
    "coordinates",
    "coordinates_as",
    "columns",
    "shots",
)  # settings of a data set that were not there at first
VALIDATING = ("validation", "validate_every", "keep_best", "early_stopping")  # in digests where they are set
NEW_SETTINGS = {old: new for new, old in RENAMED_SETTINGS.items()}
NEW_KEYS = {"also": "include_base", "vary": "sweep", "on": "executor"} | NEW_SETTINGS  # by their old names


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _path(text: str) -> str:
    if not is_possible_path(text):
        raise ValueError("a path has at most 3,000 bytes, a name in it 255, and none is 0")
    return text


PathText = Annotated[str, AfterValidator(_path)]


def _convention(name: str) -> str:
    named_convention(name)
    return name


ConventionName = Annotated[str, AfterValidator(_convention)]


class Columns(_Strict):
    """What the columns of a data set are called that has other names for what `finetune/data/formats.py` knows.

    `question`, `input` (below it), `answer` and `history` (pairs before it) are those of rows without conversations.
    """

    question: str | None = None
    input: str | None = None
    answer: str | None = None
    history: str | None = None
    system: str | None = None
    messages: str | None = None
    conversations: str | None = None
    image: str | None = None
    images: str | None = None
    video: str | None = None
    videos: str | None = None


class DataSet(_Strict):
    """Where rows come from, and how often; `finetune/data/formats.py` shows each format.

    `path` is a file, a directory with `data.json`, or the Hub id of a data set (`name` and `split` of it). `images` is
    where relative image paths start, by default beside the file. `weight` is how often an epoch sees each row.
    `category` is its name in `mixture.categories`. `coordinates` declares how its texts write points and boxes (a name
    of `finetune/coordinates/conventions.py`), `coordinates_as` how the model learns to write them; by default the same.
    `columns` says what its columns are called. `shots` of its other rows, with their answers, stand before the question
    of each row (`finetune/data/examples.py`).
    """

    path: PathText
    images: PathText | None = None
    format: Literal["llava", "sharegpt", "openai", "alpaca", "swift", "flat"] | None = None
    name: str | None = None
    split: str = "train"
    weight: float = Field(1.0, gt=0)
    category: str = "general"
    frames: int = Field(24, gt=0)
    coordinates: ConventionName | None = None
    coordinates_as: ConventionName | None = None
    columns: Columns | None = None
    shots: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _goes_together(self) -> DataSet:
        if self.coordinates_as and not self.coordinates:
            raise ValueError("coordinates_as: say by `coordinates` how the data set itself writes points and boxes")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what was not there at first and is not set: digests of earlier jobs stay what they are."""
        stored: dict[str, object] = serialize(self)
        return {name: value for name, value in stored.items() if name not in NEW_OF_DATA_SETS or value is not None}


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _as_data_sets(value: object) -> list[object]:
    return [{"path": item} if isinstance(item, str) else item for item in _as_list(value)]


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text) or len(text.encode()) > 100:
        raise ValueError(
            "a name becomes a folder: expected letters, digits, ., _ and - (up to 100), with no . or - first"
        )
    return text


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


def _executor(text: str) -> str:
    if not re.fullmatch(r"local|slurm|ray(:.+)?", text):
        raise ValueError("expected local, slurm, ray or ray:ADDRESS")
    return text


def _size(text: str) -> str:
    if not re.fullmatch(r"\s*\d+(\.\d+)?\s*[KMGT]B\s*", text, re.IGNORECASE):
        raise ValueError("expected a size such as 5GB or 500MB")
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


DataSets = Annotated[list[DataSet], BeforeValidator(_as_data_sets), Field(min_length=1)]
Name = Annotated[str, AfterValidator(_name)]
Words = Annotated[list[str], BeforeValidator(_as_list)]


def _kind_of_validation(value: object) -> str:
    return SHARE if isinstance(value, int | float) else SETS


SHARE, SETS = "share", "data sets"  # two ways to say what is held out
Validation = Annotated[
    Annotated[float, Field(gt=0, le=0.5), Tag(SHARE)] | Annotated[DataSets, Tag(SETS)],
    Discriminator(_kind_of_validation),
]


class Adapt(_Strict):
    """Shares of categories that follow the model; `finetune/data/adaptive_order.py` has the rule and its source.

    Every `every` steps each category's loss is taken on a share `held_out` of its rows, and its share of the batches
    grows by exp(rate * max(loss - reference, 0)).
    """

    every: int = Field(gt=0)
    held_out: float = Field(0.01, gt=0, le=0.5)
    rule: Literal["excess_loss"] = "excess_loss"
    rate: float = Field(1.0, gt=0)
    reference: dict[str, float] = {}


class Mixture(_Strict):
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


class Lora(_Strict):
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


class TrainSettings(_Strict):
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
    evaluate            benchmarks, as `soup eval --eval` names them
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
    log_to: Annotated[list[Literal["tensorboard", "trackio", "wandb"]], BeforeValidator(_as_list)] = ["tensorboard"]
    workers: int = Field(0, ge=0)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    max_shard_size: Annotated[str, AfterValidator(_size)] = "5GB"

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
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


class Stage(_Strict):
    """A model that is trained first, for the others to start from; settings that it leaves out are theirs.

    It freezes what it names itself, and nothing else. Other keys are those of `TrainSettings`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    start: PathText = "tiny"
    data: DataSets
    out: PathText = "base"


class Slurm(_Strict):
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

    start: Annotated[str | Stage, AfterValidator(lambda start: _path(start) if isinstance(start, str) else start)]
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
