"""A recipe's YAML file: its fields, and the paths in it, which are relative to the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from soup.checkpoints.hub import is_hub_id
from soup.errors import RecipeError
from soup.merging.mergekit_recipe import from_mergekit, is_mergekit
from soup.support.text import is_possible_path
from soup.support.yaml_text import plain_values, read_yaml

__all__ = ["absolute", "read_fields", "relative", "yaml_text"]

NEXT_LINE = "\x85"


def read_fields(path: Path) -> dict[str, object]:
    """Read the fields of a recipe, or of mergekit's configuration; a user's method has the path that is found.

    Raises:
        RecipeError: unreadable, no YAML, or no mapping.
    """
    if not is_possible_path(str(path)) or not path.exists():
        raise RecipeError(f"{path}: no recipe can be read there (no such file).")
    if path.is_dir():
        raise RecipeError(f"{path}: no recipe can be read there. A soup's recipe is {path / 'recipe.yaml'}.")
    fields = read_yaml(path, RecipeError)
    if not isinstance(fields, dict):
        raise RecipeError(f"{path}: expected a recipe (a mapping), found {type(fields).__name__}.")
    if is_mergekit(fields):
        fields = from_mergekit(fields, path)
    return fields | _method_beside(path.parent, fields.get("method"))


def yaml_text(fields: Mapping[str, object]) -> str:
    """Format fields as YAML."""
    text = yaml.safe_dump(plain_values(fields), sort_keys=False, allow_unicode=True, width=120)
    if NEXT_LINE in text:  # which YAML reads as a line's end, and yaml writes as it is
        text = yaml.safe_dump(plain_values(fields), sort_keys=False, width=120)
    return text


def absolute(location: str, directory: Path) -> str:
    """Return the full path of what a file in `directory` calls so; a Hub id stays, unless there is such a folder."""
    local = Path(os.path.normpath(directory.absolute() / location))
    return location if is_hub_id(location) and not local.exists() else str(local)


def relative(location: str, directory: Path) -> str:
    """Return what a file in `directory` calls a full path; a Hub id stays."""
    if not Path(location).is_absolute():
        return location  # a Hub id
    try:
        return Path(os.path.relpath(location, directory.absolute())).as_posix()
    except ValueError:  # another drive
        return location


def _method_beside(directory: Path, method: object) -> dict[str, str]:
    """Find a user's method file by its path relative to the recipe; empty where there is none."""
    file, _, name = str(method).rpartition(":")
    path = directory.absolute() / file
    return {"method": f"{path}:{name}"} if file.endswith(".py") and is_possible_path(file) and path.is_file() else {}
