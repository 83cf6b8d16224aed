"""What a data set is called, where it lies, and how its rows are read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from finetune.config.fields import PathText, StrictModel, as_list
from finetune.coordinates.conventions import named_convention

__all__ = [
    "JSON_SUFFIXES",
    "ROW_SUFFIXES",
    "Columns",
    "DataSet",
    "DataSets",
]


JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
ROW_SUFFIXES = (*JSON_SUFFIXES, ".parquet", ".arrow")  # of files that hold rows
NEW_OF_DATA_SETS = ("coordinates", "coordinates_as", "columns", "shots")  # of a data set, and not there at first


def _convention(name: str) -> str:
    named_convention(name)
    return name


ConventionName = Annotated[str, AfterValidator(_convention)]


class Columns(StrictModel):
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


class DataSet(StrictModel):
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


def _as_data_sets(value: object) -> list[object]:
    return [{"path": item} if isinstance(item, str) else item for item in as_list(value)]


DataSets = Annotated[list[DataSet], BeforeValidator(_as_data_sets), Field(min_length=1)]
