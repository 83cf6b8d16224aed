"""A recipe as others may see it: what came from the Hub by its id, all else by name, and no folder of this machine."""

from __future__ import annotations

from pathlib import PurePath
from typing import TypeVar

from soup.checkpoints.hub import is_hub_id
from soup.merging.recipe import CheckpointSource, Recipe
from soup.support.text import public_text

__all__ = ["public_name", "published"]

S = TypeVar("S", bound=CheckpointSource)


def published(recipe: Recipe) -> Recipe:
    """Return the recipe without paths of this machine; its digest stays what it is.

    A checkpoint that is not from the Hub is expected beside the recipe, under its name.
    """
    names = _names([*recipe.ingredients, *filter(None, [recipe.base, recipe.tokenizer])])

    def renamed(source: S) -> S:
        name = names[source.path]
        return source.model_copy(update={"name": name, "path": source.path if is_hub_id(source.path) else name})

    changes = {
        "ingredients": tuple(map(renamed, recipe.ingredients)),
        "base": recipe.base and renamed(recipe.base),
        "tokenizer": recipe.tokenizer and renamed(recipe.tokenizer),
        "method": recipe.method_name,
        "strategy": recipe.strategy and public_name(recipe.strategy),
        "objective": {key: _public(value) for key, value in recipe.objective.items()},
    }
    return recipe.model_copy(update=changes)


def public_name(text: str) -> str:
    """Return the name of a benchmark or strategy without the folder of its file: `python:mine.py:score`."""
    starts = ("/", "~/", "./", "../")
    parts = [PurePath(part).name if part.startswith(starts) and part[:2] != "//" else part for part in text.split(":")]
    return public_text(":".join(parts))


def _names(sources: list[CheckpointSource]) -> dict[str, str]:
    """Name each path by the last part of its name; a number tells those apart that folders told apart."""
    names: dict[str, str] = {}
    for source in sources:
        name = plain = source.name if is_hub_id(source.path) else PurePath(source.name).name
        count = 1
        while name in names.values() and source.path not in names:
            count += 1
            name = f"{plain}-{count}"
        names.setdefault(source.path, name)
    return names


def _public(value: object) -> object:
    """Return a value of the objective, in which benchmarks' names are."""
    if isinstance(value, dict):
        return {public_name(str(key)): item for key, item in value.items()}
    return [public_name(str(item)) for item in value] if isinstance(value, list) else value
