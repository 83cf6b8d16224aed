"""Ingredients that are soups of others of their pool: an earlier result that was put among the fine-tunes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from soup.errors import RecipeError
from soup.merging.recipe import Recipe
from soup.support.options import option_name

__all__ = ["soups_of_others"]


def soups_of_others(folders: Mapping[str, Path]) -> Iterator[str]:
    """Yield a remark for each ingredient whose recipe says that it is made of others: those would count twice.

    Args:
        folders: The ingredients' directories by name.
    """
    for name, folder in folders.items():
        parts = _made_of(folder / "recipe.yaml")
        if len(parts) > 1 and {*parts} <= folders.keys() - {name}:
            yield (
                f"{name}: is a soup of {', '.join(parts)}, by its recipe.yaml, which are ingredients, too. "
                f"{option_name('exclude')} {name} leaves it out"
            )


def _made_of(file: Path) -> tuple[str, ...]:
    try:
        return Recipe.read(file).names if file.is_file() else ()
    except RecipeError:
        return ()
