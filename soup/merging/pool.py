"""The pool: the ingredients that may go into a soup, and the base if there is one. Its check lists EVERY mismatch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import overload

from soup.checkpoints.adapted import is_adapted, output_layer
from soup.checkpoints.origin import different_starts
from soup.checkpoints.problem import Problem
from soup.checkpoints.side_files import absent_code, keeps_lead_template, lent_kinds, side_differences
from soup.checkpoints.tensor_names import abbreviate, unmergeable, unwrapping, wrapped
from soup.checkpoints.tokenizer_differences import has_tokenizer, tokenizer_differences
from soup.checkpoints.weight_files import is_adapter
from soup.errors import CheckpointError, PoolError, SoupError
from soup.merging.adapter_bases import base_of_adapters
from soup.merging.ingredient import Ingredient, combine_errors, is_dropped, open_each, untied_together
from soup.merging.integer_tensors import differing_counters, differing_integers
from soup.merging.mismatches import harmless_in_config, mismatches, without_options
from soup.merging.pool_folders import list_locations, list_pool
from soup.merging.pool_names import name_locations
from soup.merging.pool_soups import soups_of_others
from soup.support.options import option_name, refuse_wrong_type
from soup.support.text import bullet_list, did_you_mean, pluralize

__all__ = ["Locations", "Pool"]

Locations = str | Path | Sequence[str | Path]


class Pool(Sequence[Ingredient]):
    """Ingredients in order, and the base they were tuned from if it is known. Leaving it (`with`) closes the files.

    Args:
        locations: One directory whose subdirectories are checkpoints, or checkpoints (directories or Hub ids).
        base: The checkpoint that the ingredients were tuned from, and that adapters are put on; in the pool's directory
            it is no ingredient. None: the one that adapters name, if there are any.
        exclude: Names of ingredients to leave out, or patterns of such (`run-*`).

    `tokenizer` is the ingredient whose tokenizer every soup takes, where one was chosen; see `take_tokenizer`.
    `skipped` says which entries of a pool's directory are no ingredients and why, and which checkpoints lie deeper.

    Raises:
        PoolError: No ingredient, an excluded name that is not there, or arguments of a wrong type.
        CheckpointError: Ingredients that can't be opened; all are listed.
    """

    ingredients: tuple[Ingredient, ...]
    base: Ingredient | None
    tokenizer: Ingredient | None
    skipped: tuple[str, ...]

    def __init__(self, locations: Locations, /, base: str | Path | None = None, exclude: Sequence[str] = ()) -> None:
        pool, errors = self.open_readable(locations, base, exclude)
        if errors:
            raise combine_errors(list(errors.values()), pool.skipped)
        self.ingredients, self.base, self.skipped = pool.ingredients, pool.base, pool.skipped
        self.tokenizer = None

    @classmethod
    def of(
        cls,
        ingredients: Iterable[Ingredient],
        base: Ingredient | None = None,
        skipped: Sequence[str] = (),
        tokenizer: Ingredient | None = None,
    ) -> Pool:
        """Make a pool of ingredients that are open already.

        Args:
            ingredients: In their order.
            base: What they were tuned from.
            skipped: Remarks on what is no ingredient.
            tokenizer: The ingredient, or the base, whose tokenizer every soup takes.
        """
        pool = cls.__new__(cls)
        pool.ingredients, pool.base, pool.skipped = tuple(ingredients), base, tuple(skipped)
        pool.tokenizer = tokenizer
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

        Args:
            locations: As for `Pool`, and so are the others.
            base: The base.
            exclude: Names to leave out.

        Returns:
            The pool, and the errors of those that were left out, by name.

        Raises:
            PoolError: No ingredient, or an excluded name that is not there.
        """
        refuse_wrong_type(
            {"base": base, "exclude": exclude},
            {"base": (str, Path, type(None)), "exclude": (list, tuple)},
            PoolError,
        )
        if wrong := [name for name in exclude if not isinstance(name, str)]:
            raise PoolError(f"exclude: expected names of ingredients, found {wrong[0]!r:.80}.")
        paths = list_locations(locations)
        listing = list_pool(paths, base)
        if base is None and (base := base_of_adapters(listing.locations)) is not None:
            listing = list_pool(paths, base)
        remarks = (*listing.skipped, *([listing.deeper] if listing.deeper else []))
        kept = name_locations(listing, exclude)
        bases, base_errors = open_each([("base", str(base))] if base is not None else [])
        if base_errors and is_adapter(Path(str(base))):
            merged = f"merge it into its own first (soup average --pool {base} -o out/)"
            base_errors = {"base": CheckpointError(f"{base}: an adapter is the base of no other: {merged}.")}
        ingredients, errors = open_each(kept.items(), bases[0].checkpoint if bases else None)
        return cls.of(ingredients, bases[0] if bases else None, remarks), base_errors | errors

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

    @property
    def has_adapters(self) -> bool:
        """Whether an ingredient is an adapter, so that the base is read."""
        return any(is_adapted(part.checkpoint) for part in self)

    def take_tokenizer(self, name: str | None) -> None:
        """Choose whose tokenizer and chat template go into every soup, whether or not the others' are the same.

        Args:
            name: An ingredient, or `base`; None: those of the base or the first ingredient, which must be all the same.

        Raises:
            PoolError: No such ingredient, or it has no tokenizer.
        """
        parts = {part.name: part for part in self.all}
        if name is None:
            self.tokenizer = None
            return
        if name not in parts:
            raise PoolError(f"{option_name('tokenizer')} {name}: no such ingredient.{did_you_mean(name, parts)}")
        if not has_tokenizer(parts[name].checkpoint):
            raise PoolError(f"{option_name('tokenizer')} {name}: {parts[name].location} has no tokenizer.")
        self.tokenizer = parts[name]

    def problems(self, dtype: str | None = None, drop: Sequence[str] = ()) -> list[Problem]:
        """List every reason why these ingredients can't be souped; empty when they can.

        Args:
            dtype: The dtype of the soup; mixed floating dtypes are then no problem.
            drop: Patterns of the tensors to leave out.
        """
        problems: list[Problem] = []
        for part in self.all:
            problems += [*_quantised(part), *unmergeable(part.tensors(drop), part.name)]
        # Packed tensors have other names, shapes and dtypes: there is nothing more to say of them.
        ordinary = [part for part in self.all if not part.checkpoint.quantised]
        first, *others = untied_together(ordinary) or self.all[:1]
        for part, other in zip(ordinary[1:], others, strict=True):
            is_base = part is self.base
            problems += mismatches(first, other, is_base=is_base, mixed=dtype is not None or is_base, drop=drop)
            if self.tokenizer is None:
                problems += _other_tokenizer(first, other)
        problems += _kept_templates([self.base] if self.base else self.ingredients, self.tokenizer)
        if parts := {part.name: part.checkpoint for part in ordinary if part is not self.base}:
            problems += differing_integers(parts, first.tensors(drop))
        return problems

    def warnings(self, drop: Sequence[str] = ()) -> list[str]:
        """List what a user should know although it stops nothing, such as patterns of `drop` that match no tensor."""
        lead = self.base or self.ingredients[0]
        texts = [warning for part in self.all for warning in part.checkpoint.warnings]
        texts += [*self.skipped, *_untied_outputs(self), *_stale_quantisations(self.all)]
        texts += soups_of_others({part.name: part.checkpoint.path for part in self})
        if starts := different_starts({part.name: part.checkpoint for part in self}):
            texts.append(starts)
        texts += [*_side_file_remarks(self, lead), *_prefix_remarks(lead, drop)]
        for other in self.ingredients:
            if other is not lead:
                lines = [
                    *harmless_in_config(lead.checkpoint, other.checkpoint),
                    *side_differences(lead.checkpoint, other.checkpoint),
                ]
                texts += [f"{other.name}: {line} (held against {lead.name}'s)" for line in lines]
        if counters := differing_counters([part.checkpoint for part in self], self.ingredients[0].tensors(drop)):
            texts.append(
                f"ingredients differ in {pluralize(len(counters), 'counter')}; a soup has its first ingredient's: "
                f"{abbreviate(counters)}"
            )
        names = lead.checkpoint.tensors
        unused = [pattern for pattern in drop if not any(is_dropped(name, [pattern]) for name in names)]
        return texts + [f"{option_name('drop')} {pattern}: no tensor has such a name" for pattern in unused]

    def check(self, dtype: str | None = None, drop: Sequence[str] = (), *, as_they_are: bool = False) -> None:
        """Refuse a pool that has `problems`.

        Args:
            dtype: As for `problems`.
            drop: As for `problems`.
            as_they_are: Whether the user can leave nothing out and ask for no dtype, and is not told to.

        Raises:
            PoolError: The ingredients do not belong together; every mismatch is listed.
        """
        reasons = self.problems(dtype, drop)
        if as_they_are:
            reasons = [without_options(reason) for reason in reasons]
        if reasons:
            raise PoolError(f"The ingredients do not belong together:\n{bullet_list(map(str, reasons), most=100)}")

    def close(self) -> None:
        """Close all files."""
        for ingredient in self.all:
            ingredient.checkpoint.close()

    @property
    def all(self) -> list[Ingredient]:
        """The ingredients in order, and then the base if there is one."""
        return [*self.ingredients, *([self.base] if self.base else [])]

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _quantised(part: Ingredient) -> Iterator[Problem]:
    if why := part.checkpoint.quantised:
        text = f"quantised: {why}; averaging packed numbers means nothing"
        yield Problem("quantised", text, part.name, cure="Soup the unquantised checkpoints and quantise the result")


def _untied_outputs(parts: Iterable[Ingredient]) -> Iterator[str]:
    for part in parts:
        if name := output_layer(part.checkpoint):
            yield (
                f"{part.name}: trains embeddings and output layer apart, which its base ties: a soup with it has "
                f"{name} of its own, and tie_word_embeddings: false in config.json"
            )


def _stale_quantisations(parts: Iterable[Ingredient]) -> Iterator[str]:
    for part in parts:
        if part.checkpoint.quantisation is not None and not part.checkpoint.quantised:
            yield (
                f"{part.name}: config.json has a {part.checkpoint.quantisation}, but its weights are ordinary "
                "numbers: the key is stale, and a soup's config.json is without it"
            )


def _other_tokenizer(first: Ingredient, other: Ingredient) -> Iterator[Problem]:
    cure = f"Where that changes no token that is used, {option_name('tokenizer')} says whose tokenizer the soup takes"
    for line in tokenizer_differences(first.checkpoint, other.checkpoint):
        text = f"the tokenizer is not {first.name}'s: {line}"
        yield Problem("tokenizer", text, other.name, against=first.name, cure=cure)


def _kept_templates(leads: Iterable[Ingredient], tokenizer: Ingredient | None) -> Iterator[Problem]:
    """Yield the leads whose own chat template transformers would use beside the tokenizer that was chosen."""
    file = "processor_config.json"
    for lead in leads:
        if tokenizer and keeps_lead_template(lead.checkpoint, tokenizer.checkpoint):
            text = f"{file} has a chat_template, which transformers would use beside the tokenizer of {tokenizer.name}"
            cure = f"Remove that key from {lead.checkpoint.path / file}"
            yield Problem("tokenizer", text, lead.name, ["chat_template"], file, against=tokenizer.name, cure=cure)


def _side_file_remarks(pool: Pool, lead: Ingredient) -> Iterator[str]:
    """Yield what the soup leaves behind of the lead's files, and what it takes from others."""
    surprising = lead.checkpoint.side_files.surprising
    if surprising:
        yield f"{lead.name}: left out of the soup: {abbreviate(surprising)}"
    name_of = {part.checkpoint: part.name for part in pool.all}
    others = [part.checkpoint for part in pool]
    if pool.tokenizer:
        yield f"a soup takes tokenizer and chat template of {pool.tokenizer.name}, whatever the others have"
    for kind, source in lent_kinds(lead.checkpoint, *others).items():
        if not (pool.tokenizer and kind != "processor"):
            yield f"{lead.name}: has no {kind}: the soup takes {name_of[source]}'s"
    tokenizer = pool.tokenizer.checkpoint if pool.tokenizer else None
    if absent := absent_code(lead.checkpoint, *others, tokenizer=tokenizer):
        yield (
            f"{lead.name}: auto_map names {abbreviate(absent)}, not here nor in an ingredient: the soup loads only "
            "where transformers has a class of its own for it. Copy the code beside its weights"
        )
    if (lead.checkpoint.path / "config.json").exists() and not any(map(has_tokenizer, name_of)):
        yield f"{lead.name}: no tokenizer here nor in an ingredient: the soup has none. Copy one beside its weights"


def _prefix_remarks(lead: Ingredient, drop: Sequence[str]) -> Iterator[str]:
    prefixed = wrapped(lead.checkpoint.tensors)
    if prefixed and not any(unmergeable(lead.tensors(drop))):
        yield (
            f"{len(prefixed)} tensors of {lead.name} have a wrapper's prefix, which no loader knows; a soup has "
            f"them too: {abbreviate(prefixed)}. {unwrapping(lead.checkpoint.path, prefixed)}"
        )
