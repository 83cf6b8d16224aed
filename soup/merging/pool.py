"""The pool: the ingredients that may go into a soup, and the base if there is one. Its check lists EVERY mismatch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import overload

from soup.checkpoints.config_differences import config_differences
from soup.checkpoints.dtypes import Dtype, TensorSpec
from soup.checkpoints.hub import fetch_checkpoint, is_hub_id
from soup.checkpoints.origin import different_starts
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.side_files import has_tokenizer, lent_kinds, side_differences, tokenizer_differences
from soup.checkpoints.tensor_names import SHOWN, abbreviate, other_names, unmergeable, unwrapping, wrapped
from soup.errors import CheckpointError, PoolError, SoupError
from soup.merging.integer_tensors import differing_counters, differing_integers
from soup.merging.pool_folders import PoolListing, list_pool
from soup.merging.recipe import CheckpointSource
from soup.support.options import option_name, refuse_wrong_type
from soup.support.text import bullet_list

__all__ = ["Ingredient", "Pool", "is_dropped", "open_all", "open_ingredient"]

Locations = str | Path | Sequence[str | Path]


@dataclass(frozen=True, eq=False)
class Ingredient:
    """One fine-tuned checkpoint of a pool, with a short name. `location` is its directory, or its pinned Hub id."""

    name: str
    checkpoint: Checkpoint
    location: str

    def source(self, digest: str | None = None) -> CheckpointSource:
        """Make the entry by which a recipe names it."""
        return CheckpointSource(name=self.name, path=self.location, digest=digest)

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Pool(Sequence[Ingredient]):
    """Ingredients in order, and the base they were tuned from if it is known. Leaving it (`with`) closes the files.

    Args:
        locations: One directory whose subdirectories are checkpoints, or checkpoints (directories or Hub ids).
        base: The checkpoint that the ingredients were tuned from; in the pool's directory it is no ingredient.
        exclude: Names of ingredients to leave out.

    `skipped` says which entries of a pool's directory are no ingredients and why, and which checkpoints lie deeper.

    Raises:
        PoolError: No ingredient, an excluded name that is not there, or arguments of a wrong type.
        CheckpointError: Ingredients that can't be opened; all are listed.
    """

    ingredients: tuple[Ingredient, ...]
    base: Ingredient | None
    skipped: tuple[str, ...]

    def __init__(self, locations: Locations, /, base: str | Path | None = None, exclude: Sequence[str] = ()) -> None:
        pool, errors = self.open_readable(locations, base, exclude)
        if errors:
            raise _combine(list(errors.values()))
        self.ingredients, self.base, self.skipped = pool.ingredients, pool.base, pool.skipped

    @classmethod
    def of(cls, ingredients: Iterable[Ingredient], base: Ingredient | None = None, skipped: Sequence[str] = ()) -> Pool:
        """Make a pool of ingredients that are open already."""
        pool = cls.__new__(cls)
        pool.ingredients, pool.base, pool.skipped = tuple(ingredients), base, tuple(skipped)
        return pool

    @classmethod
    def open_readable(
        cls,
        locations: Locations,
        /,
        base: str | Path | None = None,
        exclude: Sequence[str] = (),
    ) -> tuple[Pool, dict[str, SoupError]]:
        """Open a pool, but leave out the checkpoints that can't be opened.

        Returns:
            The pool, and the errors of those that were left out, by name.

        Raises:
            PoolError: No ingredient, or an excluded name that is not there.
        """
        refuse_wrong_type(
            {"pool": locations, "base": base, "exclude": exclude},
            {"pool": (str, Path, Sequence), "base": (str, Path, type(None)), "exclude": (list, tuple)},
            PoolError,
        )
        paths = [locations] if isinstance(locations, str | Path) else list(locations)
        listing = list_pool(paths, base)
        remarks = (*listing.skipped, *([listing.deeper] if listing.deeper else []))
        names = _short_names(listing.locations)
        kept = _without(exclude, dict(zip(names, listing.locations, strict=True)), listing)
        ingredients, errors = _open_each(kept.items())
        bases, base_errors = _open_each([("base", str(base))] if base is not None else [])
        return cls.of(ingredients, bases[0] if bases else None, remarks), errors | base_errors

    def __len__(self) -> int:
        return len(self.ingredients)

    def __iter__(self) -> Iterator[Ingredient]:
        return iter(self.ingredients)

    @overload
    def __getitem__(self, index: int | str) -> Ingredient: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Ingredient, ...]: ...
    def __getitem__(self, index: int | str | slice) -> Ingredient | tuple[Ingredient, ...]:
        if isinstance(index, str):
            return {ingredient.name: ingredient for ingredient in self}[index]
        return self.ingredients[index]

    @property
    def names(self) -> tuple[str, ...]:
        """The ingredients' short names, in order."""
        return tuple(ingredient.name for ingredient in self)

    def problems(self, dtype: str | None = None, drop: Sequence[str] = ()) -> list[str]:
        """List every reason why these ingredients can't be souped; empty when they can.

        Args:
            dtype: The dtype of the soup; mixed floating dtypes are then no problem.
            drop: Patterns of the tensors to leave out.
        """
        reasons = [
            f"{ingredient.name}: quantised: {ingredient.checkpoint.quantised}; averaging packed numbers means nothing. "
            "Soup the unquantised checkpoints and quantise the result"
            for ingredient in self._all()
            if ingredient.checkpoint.quantised
        ]
        for ingredient in self._all():
            reasons += [f"{ingredient.name}: {reason}" for reason in unmergeable(_kept(ingredient, drop))]
        first, *others = self._all()
        for other in others:
            reasons += _mismatches(first, other, mixed=dtype is not None or other is self.base, drop=drop)
        if not any(part.checkpoint.quantised for part in self):
            parts = {part.name: part.checkpoint for part in self}
            reasons += differing_integers(parts, _kept(self.ingredients[0], drop))
        return reasons

    def warnings(self, drop: Sequence[str] = ()) -> list[str]:
        """List what a user should know although it stops nothing, such as patterns of `drop` that match no tensor."""
        texts = [warning for ingredient in self._all() for warning in ingredient.checkpoint.warnings]
        texts += self.skipped
        texts += [
            f"{part.name}: config.json has a quantization_config ({part.checkpoint.quantisation}), but its weights are "
            "ordinary numbers: the key is stale, and a soup's config.json is without it"
            for part in self._all()
            if part.checkpoint.quantisation is not None and not part.checkpoint.quantised
        ]
        if starts := different_starts({part.name: part.checkpoint for part in self}):
            texts.append(starts)
        lead = self.base or self.ingredients[0]
        texts += _side_file_remarks(lead, self.ingredients)
        prefixed = wrapped(lead.checkpoint.tensors)
        if prefixed and not any(unmergeable(_kept(lead, drop))):
            texts.append(
                f"{len(prefixed)} tensors of {lead.name} have a wrapper's prefix, which no loader knows; a soup has "
                f"them too: {abbreviate(prefixed)}. {unwrapping(lead.checkpoint.path, prefixed)}"
            )
        for other in self.ingredients:
            if other is not lead:
                lines = [
                    *_harmless_in_config(lead.checkpoint, other.checkpoint),
                    *side_differences(lead.checkpoint, other.checkpoint),
                ]
                texts += [f"{other.name}: {line} (held against {lead.name}'s)" for line in lines]
        parts = [part.checkpoint for part in self]
        if counters := differing_counters(parts, _kept(self.ingredients[0], drop)):
            texts.append(
                f"{len(counters)} counters differ; a soup has those of its first ingredient: {abbreviate(counters)}"
            )
        names = lead.checkpoint.tensors
        unused = [pattern for pattern in drop if not any(is_dropped(name, [pattern]) for name in names)]
        return texts + [f"{option_name('drop')} {pattern}: no tensor has such a name" for pattern in unused]

    def check(self, dtype: str | None = None, drop: Sequence[str] = ()) -> None:
        """Refuse a pool that has `problems`.

        Raises:
            PoolError: The ingredients do not belong together; every mismatch is listed.
        """
        reasons = self.problems(dtype, drop)
        if reasons:
            raise PoolError(f"The ingredients do not belong together:\n{bullet_list(reasons, most=100)}")

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


def _side_file_remarks(lead: Ingredient, others: Sequence[Ingredient]) -> Iterator[str]:
    """Yield what the soup leaves behind of the lead's files, and what it takes from others since the lead lacks it."""
    surprising = lead.checkpoint.side_files.surprising
    if surprising:
        yield f"{lead.name}: left out of the soup: {abbreviate(surprising)}"
    name_of = {other.checkpoint: other.name for other in others}
    for kind, source in lent_kinds(lead.checkpoint, *name_of).items():
        yield f"{lead.name}: has no {kind}: the soup takes {name_of[source]}'s"
    if (lead.checkpoint.path / "config.json").exists() and not any(map(has_tokenizer, [lead.checkpoint, *name_of])):
        yield f"{lead.name}: no tokenizer here nor in an ingredient: the soup has none. Copy one beside its weights"


def is_dropped(name: str, drop: Sequence[str]) -> bool:
    """Whether a tensor's name matches one of the patterns (`*` and `?` as in a shell)."""
    return any(fnmatchcase(name, pattern) for pattern in drop)


def _short_names(locations: Sequence[str]) -> list[str]:
    """Shorten each location to its last part, with as many parts before it as tell them all apart."""
    if not locations:
        return []
    paths = [location if is_hub_id(location) else str(Path(location).absolute()) for location in locations]
    parts = [re.split(r"[/\\]+", path.rstrip("/\\")) for path in paths]
    for length in range(1, max((len(words) for words in parts), default=0) + 1):
        names = ["/".join(words[-length:]) for words in parts]
        if len(set(names)) == len(names):
            return names
    twice = sorted({location for location in locations if locations.count(location) > 1})
    raise PoolError(f"The same checkpoint is given twice:\n{bullet_list(twice)}")


def _without(exclude: Sequence[str], locations: Mapping[str, str], listing: PoolListing) -> dict[str, str]:
    """Leave the excluded names out of the ingredients' locations by name."""
    folder = listing.folder
    here = ", ".join(locations)
    unknown = [name for name in exclude if name not in locations]
    if unknown:
        raise PoolError(
            f"{folder or 'pool'}: {option_name('exclude')} {', '.join(unknown)}: no such ingredient. Here: {here}"
        )
    kept = {name: location for name, location in locations.items() if name not in exclude}
    if locations and not kept:
        raise PoolError(f"{folder or 'pool'}: {option_name('exclude')} leaves no ingredient. Here: {here}")
    if not kept:
        raise PoolError(
            f"{folder or 'The pool'}: no ingredient. A pool is a directory whose subdirectories are checkpoints, "
            f"or {option_name('pool')} repeated, each a checkpoint's directory or Hub id."
            + "".join(f"\n{line}" for line in listing.skipped if "can't be read" in line)
            + (f"\n{listing.deeper}" if listing.deeper else "")
        )
    return kept


def open_all(locations: Iterable[tuple[str, str]]) -> list[Ingredient]:
    """Open checkpoints by (name, location).

    Raises:
        CheckpointError: Some can't be opened; all are listed.
    """
    ingredients, errors = _open_each(locations)
    if errors:
        raise _combine(list(errors.values()))
    return ingredients


def _open_each(locations: Iterable[tuple[str, str]]) -> tuple[list[Ingredient], dict[str, SoupError]]:
    """Open checkpoints by (name, location); returns those that can be opened, and the others' errors by name."""
    ingredients, errors = [], {}
    for name, location in locations:
        try:
            ingredients.append(open_ingredient(name, location))
        except SoupError as error:
            errors[name] = error
    return ingredients, errors


def _combine(errors: Sequence[SoupError]) -> SoupError:
    """Make one error of several, of the class of the first."""
    if len(errors) == 1:
        return errors[0]
    return type(errors[0])(f"{len(errors)} checkpoints can't be opened:\n{bullet_list(map(str, errors))}")


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


def _kept(part: Ingredient, drop: Sequence[str]) -> list[TensorSpec]:
    """List the tensors that are not left out."""
    return [spec for name, spec in part.checkpoint.tensors.items() if not is_dropped(name, drop)]


def _mismatches(first: Ingredient, other: Ingredient, *, mixed: bool, drop: Sequence[str]) -> Iterator[str]:
    """Yield a line for each thing in which `other` does not fit `first`; `mixed` allows other floating dtypes."""
    ours, theirs = ({spec.name: spec for spec in _kept(part, drop)} for part in (first, other))
    missing = [name for name in ours if name not in theirs]
    extra = [name for name in theirs if name not in ours]
    if missing and extra and (pairs := other_names(ours, theirs)):
        yield _under_other_names(first, other, pairs)
        missing, extra = [], []
    if missing:
        yield f"{other.name}: {len(missing)} tensors missing that {first.name} has: {abbreviate(missing)}"
    if extra:
        yield f"{other.name}: {len(extra)} tensors that {first.name} has not: {abbreviate(extra)}"
    yield from _spec_mismatches(first, other, [(ours[name], theirs[name]) for name in ours if name in theirs], mixed)
    for key in ("model_type", "architectures"):
        left, right = first.checkpoint.config.get(key), other.checkpoint.config.get(key)
        if left is not None and right is not None and left != right:
            yield f"{other.name}: config.json: {key}: expected {left} as in {first.name}, found {right}"
    for value in config_differences(first.checkpoint.config, other.checkpoint.config):
        if value.arithmetic and value.path != "model_type":
            expected = f"expected {value.left} as in {first.name}, found {value.right}"
            yield f"{other.name}: config.json: {value.path}: {expected}; it changes what the model computes"
    for line in tokenizer_differences(first.checkpoint, other.checkpoint):
        yield f"{other.name}: the tokenizer is not {first.name}'s: {line}"


def _harmless_in_config(lead: Checkpoint, other: Checkpoint) -> Iterator[str]:
    """Yield what differs in `config.json` without a doubt about the arithmetic: values, and keys that only one has."""
    if not lead.config or not other.config:
        return
    keys = [key for key in config_differences(lead.config, other.config) if not key.arithmetic]
    yield from (
        f"config.json: {key.path}: {key.right}, not {key.left}" for key in keys if None not in (key.left, key.right)
    )
    if added := [f"{key.path} ({key.right})" for key in keys if key.left is None]:
        yield f"config.json has keys more: {abbreviate(added)}"
    if lacking := [f"{key.path} ({key.left})" for key in keys if key.right is None]:
        yield f"config.json lacks keys: {abbreviate(lacking)}"


def _under_other_names(first: Ingredient, other: Ingredient, pairs: Mapping[tuple[str, str], int]) -> str:
    """Say behind which prefixes `other` has the tensors of `first`, and how both get the same names."""
    lines = [
        f"{f'`{right}`' if right else 'no prefix'} where {first.name} has {f'`{left}`' if left else 'none'} ({count})"
        for (left, right), count in sorted(pairs.items())
    ]
    cures = [
        unwrapping(part.checkpoint.path, names)
        for part in (first, other)
        if (names := wrapped(part.checkpoint.tensors))
    ]
    cure = "; ".join(cures) or (
        "Save both with the same version of transformers: AutoModelForImageTextToText.from_pretrained("
        f"'{other.checkpoint.path}', dtype='auto').save_pretrained(OUT)"
    )
    return f"{other.name}: the same names behind another prefix: {', '.join(lines)}. {cure}"


def _spec_mismatches(
    first: Ingredient, other: Ingredient, pairs: Sequence[tuple[TensorSpec, TensorSpec]], mixed: bool
) -> Iterator[str]:
    """Yield a line for each tensor of another shape or dtype; one line for all where the same dtypes differ in many."""
    recast: dict[tuple[Dtype, Dtype], list[tuple[TensorSpec, TensorSpec]]] = {}
    for ours, theirs in pairs:
        both_float = ours.dtype.kind == theirs.dtype.kind == "float"
        if ours.shape != theirs.shape:
            yield f"{other.name}: {ours.name}: expected {ours}, found {theirs} (expected as in {first.name})"
        elif ours.dtype != theirs.dtype and not (mixed and both_float):
            recast.setdefault((ours.dtype, theirs.dtype), []).append((ours, theirs))
    for (left, right), tensors in recast.items():
        hint = f"; {option_name('dtype')} merges mixed floating dtypes" if left.kind == right.kind == "float" else ""
        if len(tensors) > SHOWN:
            names = abbreviate([ours.name for ours, _ in tensors])
            expected = f"expected {left.name} as in {first.name}, found {right.name}{hint}"
            yield f"{other.name}: {len(tensors)} tensors: {expected}: {names}"
            continue
        for ours, theirs in tensors:
            yield f"{other.name}: {ours.name}: expected {ours}, found {theirs}{hint} (expected as in {first.name})"
