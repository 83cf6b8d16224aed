"""Reads a configuration from its file, with every wrong key and value in one error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finetune.config import (
    KEYS_ELSEWHERE,
    NEW_KEYS,
    POOL_KEYS,
    SETS,
    SHARE,
    Adapt,
    Columns,
    DataSet,
    FinetuneConfig,
    Lora,
    Mixture,
    Slurm,
    Stage,
    TrainSettings,
)
from finetune.yaml_file import read_mapping
from soup.errors import FinetuneError
from soup.support.text import bullet_list, did_you_mean

__all__ = ["parse_config", "parse_data_set", "read_config", "wrong_values"]


NESTED: dict[str, type[BaseModel]] = {
    "mixture": Mixture,
    "lora": Lora,
    "slurm": Slurm,
    "data": DataSet,
    "added": DataSet,
    "validation": DataSet,
    "columns": Columns,
    "adapt": Adapt,
}


def read_config(path: Path) -> FinetuneConfig:
    """Read the configuration in a YAML file.

    Raises:
        FinetuneError: no such file, not YAML, or keys and values that are wrong; all of them are listed.
    """
    return parse_config(read_mapping(path, POOL_KEYS), path)


def parse_config(keys: Mapping[str, object], path: Path) -> FinetuneConfig:
    """Validate the keys of a configuration.

    Args:
        keys: as its file has them.
        path: the file, for errors.

    Raises:
        FinetuneError: keys and values that are wrong; all of them are listed.
    """
    try:
        config = FinetuneConfig.model_validate(keys)
        if isinstance(config.start, Stage):
            config.stage_settings()
    except ValidationError as error:
        # The stage's settings are validated by themselves: their locations are then those within `start`.
        inside = error.title == "TrainSettings"
        lines = wrong_values(error, inside)
        raise FinetuneError(f"{path}: {len(lines)} wrong.\n{bullet_list(lines)}") from error
    return config


def parse_data_set(options: Mapping[str, object]) -> DataSet:
    """Validate the options of one data set.

    Args:
        options: by the names that they have in a pool's file.

    Raises:
        FinetuneError: options that are wrong; all of them are listed.
    """
    try:
        return DataSet.model_validate(options)
    except ValidationError as error:
        raise FinetuneError(f"{options['path']}: {' '.join(wrong_values(error))}") from error


def wrong_values(error: ValidationError, inside_start: bool = False) -> list[str]:
    """Give a line for each wrong key or value.

    Args:
        error: pydantic's.
        inside_start: settings of the start were validated by themselves, without their place in the file.
    """
    lines: list[str] = []
    for problem in error.errors():
        # `start` may be a name or a mapping: pydantic reports on both readings, of which only the mapping is of use.
        location = [str(part) for part in problem["loc"] if part not in ("Stage", SETS, SHARE)]
        if problem["type"] == "invalid_key" and problem["input"] is True:
            location = ["on"]  # which YAML 1.1 reads as true
        if location == ["start", "str"]:
            continue
        known = FinetuneConfig.model_fields
        if inside_start:
            location, known = ["start", *location], {**TrainSettings.model_fields, **Stage.model_fields}
        lines += _lines(location, problem, known)
    return lines


def _lines(location: list[str], problem: ErrorDetails, known: Iterable[str]) -> list[str]:
    name = ".".join(part for part in location if part != "[key]")
    if len(location) == 1 or location[:-1] == ["start"]:
        if location[-1] in NEW_KEYS:
            return [f"{name}: is called {NEW_KEYS[location[-1]]} now."]
        if location[-1] in KEYS_ELSEWHERE:
            return [f"{name}: is called {KEYS_ELSEWHERE[location[-1]]} here."]
    if problem["type"] == "extra_forbidden":
        nested = next((NESTED[part] for part in reversed(location[:-1]) if part in NESTED), None)
        return [f"{name}: unknown key.{did_you_mean(location[-1], nested.model_fields if nested else known)}"]
    message = _mapping(problem) or problem["msg"].removeprefix("Value error, ").removesuffix(".")
    if not location:  # of several keys, which are named there
        return [f"{line}." for line in message.split("; ")]
    # The check of a whole mapping names what it found.
    complete = problem["type"] == "missing" or (isinstance(problem["input"], dict) and problem["type"] == "value_error")
    return [f"{name}: {message}" + ("." if complete else f", found {problem['input']!r}.")]


def _mapping(problem: ErrorDetails) -> str:
    """Return what was expected where a mapping was, in the words of YAML; pydantic's are Python's."""
    if problem["type"] == "dict_type":
        return "expected a mapping, as in {name: ...}"
    if problem["type"] != "model_type":
        return ""
    name = problem["ctx"]["class_name"]
    if name == Stage.__name__:
        return "expected a checkpoint, or a mapping, as in {start: ..., data: ..., out: ...}"
    if name == DataSet.__name__:
        return "expected a path, or a mapping, as in {path: ...}"
    fields = next((kind.model_fields for kind in NESTED.values() if kind.__name__ == name), {"name": None})
    return f"expected a mapping, as in {{{next(iter(fields))}: ...}}"
