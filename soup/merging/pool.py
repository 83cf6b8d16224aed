"""The pool: the ingredients that may go into a soup, and the base if given. Its check lists EVERY mismatch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType

from soup.checkpoints.dtypes import Dtype, TensorSpec
from soup.checkpoints.hub import fetch_checkpoint, is_hub_id
from soup.checkpoints.reader import Checkpoint, looks_like_checkpoint
from soup.checkpoints.side_files import side_differences, tokenizer_differences
from soup.errors import CheckpointError, PoolError, SoupError
from soup.merging.recipe import Source
from soup.support.text import bullet_list

__all__ = ["Ingredient", "Pool", "is_dropped", "open_all", "open_ingredient"]

_SHOWN = 8
"""So many tensors are named in a line about many."""


@dataclass(frozen=True, eq=False)
class Ingredient:
    """One fine-tuned checkpoint of a pool, with a short name. `place` is its directory or its pinned Hub id."""

    name: str
    checkpoint: Checkpoint
    place: str

    def source(self, digest: str | None = None) -> Source:
        """How a recipe names it."""
        return Source(name=self.name, path=self.place, digest=digest)

    def __repr__(self) -> str:
        return f"<{self.name}>"


@dataclass(frozen=True, eq=False)
class Pool(Sequence[Ingredient]):
    """Ingredients in order, and the base they were tuned from if it is known. Leaving it (`with`) closes the files."""

    ingredients: tuple[Ingredient, ...]
    base: Ingredient | None = None
    skipped: tuple[str, ...] = field(default=())

    @classmethod
    def open(
        cls,
        places: str | Path | Sequence[str | Path],
        base: str | Path | None = None,
        exclude: Sequence[str] = (),
    ) -> Pool:
        """Open a pool: one directory of checkpoints, or checkpoints one by one (directories or Hub ids).

        Raises:
            PoolError: no ingredient, or an excluded name that is not there.
            CheckpointError: ingredients that can't be opened; all are listed.
        """
        pool, failed = cls.open_what_opens(places, base, exclude)
        if failed:
            raise _together(list(failed.values()))
        return pool

    @classmethod
    def open_what_opens(
        cls,
        places: str | Path | Sequence[str | Path],
        base: str | Path | None = None,
        exclude: Sequence[str] = (),
    ) -> tuple[Pool, dict[str, SoupError]]:
        """The pool without the checkpoints that can't be opened, and why those can't, by name.

        Raises:
            PoolError: no ingredient, or an excluded name that is not there.
        """
        given = [places] if isinstance(places, str | Path) else list(places)
        folder = _folder(given)
        skipped: tuple[str, ...] = ()
        if folder is not None:
            entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
            given = [entry for entry in entries if looks_like_checkpoint(entry) and not _same_place(entry, base)]
            skipped = tuple(entry.name for entry in entries if not looks_like_checkpoint(entry))
        names = _short_names([str(place) for place in given])
        kept = _without(exclude, dict(zip(names, map(str, given), strict=True)), folder)
        opened, failed = _open_each(kept.items())
        bases, failed_too = _open_each([("base", str(base))] if base is not None else [])
        return cls(tuple(opened), bases[0] if bases else None, skipped), failed | failed_too

    def __len__(self) -> int:
        return len(self.ingredients)

    def __iter__(self) -> Iterator[Ingredient]:
        return iter(self.ingredients)

    def __getitem__(self, index):  # type: ignore[no-untyped-def] # Sequence's two overloads, and a name as well
        if isinstance(index, str):
            return {ingredient.name: ingredient for ingredient in self}[index]
        return self.ingredients[index]

    @property
    def names(self) -> tuple[str, ...]:
        """The ingredients' short names, in order."""
        return tuple(ingredient.name for ingredient in self)

    def problems(self, dtype: str | None = None, drop: Sequence[str] = ()) -> list[str]:
        """Every reason why these ingredients can't be souped, with names; empty when they can.

        `dtype` is the dtype asked for (mixed ones are then fine), `drop` the patterns of tensors to leave out.
        """
        found = [
            f"{ingredient.name}: quantised: {ingredient.checkpoint.quantised}; averaging packed numbers means nothing. "
            "Soup the unquantised checkpoints and quantise the result"
            for ingredient in self._all()
            if ingredient.checkpoint.quantised
        ]
        first, *others = self._all()
        for other in others:
            found += _mismatches(first, other, mixed=dtype is not None or other is self.base, drop=drop)
        return found

    def warnings(self, drop: Sequence[str] = ()) -> list[str]:
        """What a user should know although it stops nothing; patterns of `drop` that match no tensor are among it."""
        found = [warning for ingredient in self._all() for warning in ingredient.checkpoint.warnings]
        found += [f"{name}: skipped, not a checkpoint" for name in self.skipped]
        lead = self.base or self.ingredients[0]
        for other in self.ingredients:
            if other is not lead:
                lines = side_differences(lead.checkpoint, other.checkpoint)
                found += [f"{other.name}: {line} (held against {lead.name}'s)" for line in lines]
        vain = [pattern for pattern in drop if not any(is_dropped(name, [pattern]) for name in lead.checkpoint.tensors)]
        return found + [f"--drop {pattern}: no tensor has such a name" for pattern in vain]

    def check(self, dtype: str | None = None, drop: Sequence[str] = ()) -> None:
        """Raise what `problems` finds.

        Raises:
            PoolError: the ingredients do not belong together; every mismatch is listed.
        """
        found = self.problems(dtype, drop)
        if found:
            raise PoolError(f"The ingredients do not belong together:\n{bullet_list(found, most=100)}")

    def close(self) -> None:
        """Close all files."""
        for ingredient in self._all():
            ingredient.checkpoint.close()

    def _all(self) -> list[Ingredient]:
        return [*self.ingredients, *([self.base] if self.base else [])]

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_dropped(name: str, drop: Sequence[str]) -> bool:
    """Whether a tensor's name matches one of the patterns (`*` and `?` as in a shell)."""
    return any(fnmatchcase(name, pattern) for pattern in drop)


def _folder(given: list[str | Path]) -> Path | None:
    """The one directory whose subdirectories are the pool; None when checkpoints are given one by one."""
    if len(given) != 1 or (is_hub_id(str(given[0])) and not Path(given[0]).exists()):
        return None
    folder = Path(given[0])
    if not folder.is_dir():
        raise PoolError(
            f"{folder}: no such directory. --pool takes a directory of checkpoints, or checkpoints one by one."
        )
    return None if looks_like_checkpoint(folder) else folder


def _same_place(entry: Path, base: str | Path | None) -> bool:
    """Whether an entry of the pool's folder is the base, which is no ingredient then."""
    return base is not None and Path(base).exists() and entry.samefile(base)


def _short_names(places: Sequence[str]) -> list[str]:
    """The last part of each place; with as many parts before it as tell them all apart."""
    if not places:
        return []
    parts = [
        re.split(r"[/\\]+", (place if is_hub_id(place) else str(Path(place).absolute())).rstrip("/\\"))
        for place in places
    ]
    for length in range(1, max((len(words) for words in parts), default=0) + 1):
        names = ["/".join(words[-length:]) for words in parts]
        if len(set(names)) == len(names):
            return names
    twice = sorted({place for place in places if places.count(place) > 1})
    raise PoolError(f"The same checkpoint is given twice:\n{bullet_list(twice)}")


def _without(exclude: Sequence[str], places: Mapping[str, str], folder: Path | None) -> dict[str, str]:
    """The ingredients' places by name, less the excluded ones."""
    here = ", ".join(places)
    unknown = [name for name in exclude if name not in places]
    if unknown:
        raise PoolError(f"{folder or 'pool'}: --exclude {', '.join(unknown)}: no such ingredient. Here: {here}")
    kept = {name: place for name, place in places.items() if name not in exclude}
    if places and not kept:
        raise PoolError(f"{folder or 'pool'}: --exclude leaves no ingredient. Here: {here}")
    if not kept:
        raise PoolError(
            f"{folder or 'The pool'}: no ingredient. A pool is a directory whose subdirectories are checkpoints, "
            "or --pool repeated, each a checkpoint's directory or Hub id."
        )
    return kept


def open_all(wanted: Iterable[tuple[str, str]]) -> list[Ingredient]:
    """Open checkpoints by (name, place).

    Raises:
        CheckpointError: some can't be opened; all are listed.
    """
    opened, failed = _open_each(wanted)
    if failed:
        raise _together(list(failed.values()))
    return opened


def _open_each(wanted: Iterable[tuple[str, str]]) -> tuple[list[Ingredient], dict[str, SoupError]]:
    opened, failed = [], {}
    for name, place in wanted:
        try:
            opened.append(open_ingredient(name, place))
        except SoupError as error:
            failed[name] = error
    return opened, failed


def _together(failed: Sequence[SoupError]) -> SoupError:
    if len(failed) == 1:
        return failed[0]
    return type(failed[0])(f"{len(failed)} checkpoints can't be opened:\n{bullet_list(map(str, failed))}")


def open_ingredient(name: str, place: str) -> Ingredient:
    """Open one checkpoint: a directory, or a Hub id.

    Raises:
        CheckpointError: it is not to be had, or damaged.
    """
    if is_hub_id(place) and not Path(place).exists():
        folder, pinned = fetch_checkpoint(place)
        return Ingredient(name, Checkpoint(folder), pinned)
    path = str(Path(place).absolute())
    if any("\ud800" <= sign <= "\udfff" for sign in path):  # how Python shows a byte that is no text
        raise CheckpointError(f"{path!a}: its name is not UTF-8, so that no recipe or journal can hold it. Rename it.")
    return Ingredient(name, Checkpoint(place), path)


def _mismatches(first: Ingredient, other: Ingredient, *, mixed: bool, drop: Sequence[str]) -> Iterator[str]:
    ours, theirs = (
        {name: spec for name, spec in part.checkpoint.tensors.items() if not is_dropped(name, drop)}
        for part in (first, other)
    )
    missing = [name for name in ours if name not in theirs]
    extra = [name for name in theirs if name not in ours]
    if missing:
        yield f"{other.name}: {len(missing)} tensors missing that {first.name} has: {_some(missing)}"
    if extra:
        yield f"{other.name}: {len(extra)} tensors that {first.name} has not: {_some(extra)}"
    yield from _unlike(first, other, [(ours[name], theirs[name]) for name in ours if name in theirs], mixed)
    for key in ("model_type", "architectures"):
        left, right = first.checkpoint.config.get(key), other.checkpoint.config.get(key)
        if left is not None and right is not None and left != right:
            yield f"{other.name}: config.json: {key}: expected {left} as in {first.name}, found {right}"
    for line in tokenizer_differences(first.checkpoint, other.checkpoint):
        yield f"{other.name}: the tokenizer is not {first.name}'s: {line}"


def _unlike(
    first: Ingredient, other: Ingredient, pairs: Sequence[tuple[TensorSpec, TensorSpec]], mixed: bool
) -> Iterator[str]:
    """Tensors of another shape or dtype, one line each; one line for all where the same dtypes differ in many."""
    recast: dict[tuple[Dtype, Dtype], list[tuple[TensorSpec, TensorSpec]]] = {}
    for ours, theirs in pairs:
        both_float = ours.dtype.kind == theirs.dtype.kind == "float"
        if ours.shape != theirs.shape:
            yield f"{other.name}: {ours.name}: expected {ours}, found {theirs} (expected as in {first.name})"
        elif ours.dtype != theirs.dtype and not (mixed and both_float):
            recast.setdefault((ours.dtype, theirs.dtype), []).append((ours, theirs))
    for (left, right), found in recast.items():
        hint = "; --dtype merges mixed floating dtypes" if left.kind == right.kind == "float" else ""
        if len(found) > _SHOWN:
            what = f"expected {left.name} as in {first.name}, found {right.name}{hint}"
            yield f"{other.name}: {len(found)} tensors: {what}: {_some([ours.name for ours, _ in found])}"
            continue
        for ours, theirs in found:
            yield f"{other.name}: {ours.name}: expected {ours}, found {theirs}{hint} (expected as in {first.name})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f", ... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
