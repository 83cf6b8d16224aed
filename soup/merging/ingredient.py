"""One checkpoint of a pool, and how it is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.hub import fetch_checkpoint, is_hub_id
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.training_record import TrainingRecord, read_training_record
from soup.errors import CheckpointError, SoupError
from soup.merging.recipe import CheckpointSource
from soup.support.text import bullet_list

__all__ = ["Ingredient", "combine_errors", "is_dropped", "open_all", "open_each", "open_ingredient"]


@dataclass(frozen=True, eq=False)
class Ingredient:
    """One fine-tuned checkpoint of a pool, with a short name. `location` is its directory, or its pinned Hub id."""

    name: str
    checkpoint: Checkpoint
    location: str

    def source(self, digest: str | None = None) -> CheckpointSource:
        """Make the entry by which a recipe names it."""
        return CheckpointSource(name=self.name, path=self.location, digest=digest)

    @property
    def training(self) -> TrainingRecord:
        """What is written beside it of the run that it is a snapshot of."""
        return read_training_record(self.checkpoint.path)

    def tensors(self, drop: Sequence[str]) -> list[TensorSpec]:
        """List the tensors that are not left out by these patterns."""
        return [spec for name, spec in self.checkpoint.tensors.items() if not is_dropped(name, drop)]

    def __repr__(self) -> str:
        return f"<{self.name}>"


def is_dropped(name: str, drop: Sequence[str]) -> bool:
    """Whether a tensor's name matches one of the patterns (`*` and `?` as in a shell)."""
    return any(fnmatchcase(name, pattern) for pattern in drop)


def open_ingredient(name: str, location: str) -> Ingredient:
    """Open one checkpoint.

    Args:
        name: The short name that it gets.
        location: A directory or a Hub id; a directory of that name comes first.

    Raises:
        CheckpointError: It is not there, or damaged.
    """
    if is_hub_id(location) and not Path(location).exists():
        folder, pinned = fetch_checkpoint(location)
        return Ingredient(name, Checkpoint(folder), pinned)
    path = str(Path(location).absolute())
    if any("\ud800" <= sign <= "\udfff" for sign in path):  # how Python shows a byte that is no text
        raise CheckpointError(f"{path!a}: its name is not UTF-8, so that no recipe or journal can hold it. Rename it.")
    return Ingredient(name, Checkpoint(location), path)


def open_each(locations: Iterable[tuple[str, str]]) -> tuple[list[Ingredient], dict[str, SoupError]]:
    """Open checkpoints by (name, location); returns those that can be opened, and the others' errors by name."""
    ingredients, errors = [], {}
    for name, location in locations:
        try:
            ingredients.append(open_ingredient(name, location))
        except SoupError as error:
            errors[name] = error
    return ingredients, errors


def open_all(locations: Iterable[tuple[str, str]]) -> list[Ingredient]:
    """Open checkpoints by (name, location).

    Raises:
        CheckpointError: Some can't be opened; all are listed.
    """
    ingredients, errors = open_each(locations)
    if errors:
        raise combine_errors(list(errors.values()))
    return ingredients


def combine_errors(errors: Sequence[SoupError]) -> SoupError:
    """Make one error of several, of the class of the first."""
    if len(errors) == 1:
        return errors[0]
    return type(errors[0])(f"{len(errors)} checkpoints can't be opened:\n{bullet_list(map(str, errors))}")
