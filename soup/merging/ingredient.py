"""One checkpoint of a pool, and how it is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from soup.checkpoints.adapted import AdaptedCheckpoint, output_layer, untied
from soup.checkpoints.adapter import Adapter
from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.hub import fetch_checkpoint, is_hub_id
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.training_record import TrainingRecord, read_training_record
from soup.checkpoints.weight_files import is_adapter
from soup.errors import CheckpointError, SoupError
from soup.merging.recipe import CheckpointSource
from soup.support.options import option_name
from soup.support.text import bullet_list

__all__ = [
    "Ingredient",
    "combine_errors",
    "is_dropped",
    "open_alone",
    "open_each",
    "open_ingredient",
    "untied_together",
]


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


def open_ingredient(name: str, location: str, base: Checkpoint | None = None) -> Ingredient:
    """Open one checkpoint.

    Args:
        name: The short name that it gets.
        location: A directory or a Hub id; a directory of that name comes first.
        base: What an adapter is put on.

    Raises:
        CheckpointError: It is not there, or damaged, or an adapter without a base.
    """
    folder, pinned = _locate(location)
    return Ingredient(name, _open(folder, base), pinned)


def _locate(location: str) -> tuple[Path, str]:
    """Find a checkpoint's directory; returns how a recipe names it, too."""
    if is_hub_id(location) and not Path(location).exists():
        return fetch_checkpoint(location)
    path = str(Path(location).absolute())
    if any("\ud800" <= sign <= "\udfff" for sign in path):  # how Python shows a byte that is no text
        raise CheckpointError(f"{path!a}: its name is not UTF-8, so that no recipe or journal can hold it. Rename it.")
    return Path(location), path


def untied_together(parts: Sequence[Ingredient]) -> list[Ingredient]:
    """Return parts of a pool as they are merged: where an adapter unties the output layer, it is untied in all."""
    if not any(output_layer(part.checkpoint) for part in parts):
        return list(parts)
    return [replace(part, checkpoint=untied(part.checkpoint)) for part in parts]


def open_alone(location: str) -> Checkpoint:
    """Open a checkpoint to look at it: of an adapter its factors, without a base.

    Raises:
        CheckpointError: It is not there, or damaged.
    """
    folder, _ = _locate(location)
    return Adapter(folder) if is_adapter(folder) else Checkpoint(folder)


def _open(folder: Path, base: Checkpoint | None) -> Checkpoint:
    if not is_adapter(folder):
        return Checkpoint(folder)
    if base is None:
        Adapter(folder)  # what speaks against itself comes first: no base would help
        raise CheckpointError(
            f"{folder}: an adapter whose base is not known, or can't be opened: pass {option_name('base')} (or name it "
            "as base in the recipe)."
        )
    return AdaptedCheckpoint(folder, base)


def open_each(
    locations: Iterable[tuple[str, str]], base: Checkpoint | None = None
) -> tuple[list[Ingredient], dict[str, SoupError]]:
    """Open checkpoints by (name, location); returns those that can be opened, and the others' errors by name."""
    ingredients, errors = [], {}
    for name, location in locations:
        try:
            ingredients.append(open_ingredient(name, location, base))
        except SoupError as error:
            errors[name] = error
    return ingredients, errors


def combine_errors(errors: Sequence[SoupError], remarks: Sequence[str] = ()) -> SoupError:
    """Make one error of several, of the class of the first; remarks follow it."""
    if len(errors) == 1 and not remarks:
        return errors[0]
    text = str(errors[0])
    if len(errors) > 1:
        text = f"{len(errors)} checkpoints can't be opened:\n{bullet_list(map(str, errors))}"
    return type(errors[0])("\n".join([text, *remarks]))
