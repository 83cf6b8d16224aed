"""Check a pool: does it belong together, and what should its user know besides?"""

from __future__ import annotations

import html
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from soup.board.board import shown
from soup.checkpoints.adapted import is_adapted
from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.dtypes import named_dtype
from soup.checkpoints.problem import Problem
from soup.errors import OutputError, PoolError, RecipeError
from soup.evaluation.progress import Progress
from soup.evaluation.run_directory import RunDirectory
from soup.merging.block_arithmetic import Blend
from soup.merging.block_loop import Options, scan_blocks
from soup.merging.ingredient import Ingredient, is_dropped
from soup.merging.methods.linear import Linear
from soup.merging.options import MergeOptions
from soup.merging.plan import plan_merge
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe
from soup.merging.shares import shares_of
from soup.merging.template import RecipeTemplate
from soup.report.delta_pass import read_deltas
from soup.report.pool_distances import PoolDistances
from soup.support.atomic_files import write_atomic
from soup.support.options import option_name, refuse_wrong_type
from soup.support.pictures import Picture, draw
from soup.support.text import bullet_list, pluralize

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["PoolReport", "check"]


@dataclass(frozen=True, repr=False)
class PoolReport:
    """What speaks against souping a pool, and what else is worth knowing.

    Args:
        ingredients: Their names, those that can't be opened among them.
        problems: Every reason why they can't be souped, each with its sentence as `str`; empty when they can.
        warnings: Remarks that stop nothing.
        distances: How far they are from their base and from each other; None where their tensors do not match.
    """

    ingredients: tuple[str, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    distances: PoolDistances | None = None

    @property
    def ok(self) -> bool:
        """Whether the ingredients belong together."""
        return not self.problems

    def __repr__(self) -> str:
        return f"<PoolReport of {pluralize(len(self.ingredients), 'ingredient')}: {self.counts}>"

    @property
    def misfits(self) -> tuple[str, ...]:
        """The names of the ingredients that can be souped, and that distances speak against."""
        return self.distances.misfits if self.distances else ()

    @property
    def counts(self) -> str:
        """How many problems, warnings and misfits there are, in words."""
        misfits = f", {pluralize(len(self.misfits), 'misfit')}" if self.misfits else ""
        return f"{pluralize(len(self.problems), 'problem')}, {pluralize(len(self.warnings), 'warning')}{misfits}"

    @property
    def summary(self) -> str:
        """Whether the pool belongs together, in one line."""
        names = ", ".join(self.ingredients)
        if self.problems:
            text = f"{names} do not belong together"
        elif self.misfits:
            text = f"{names} can be merged; look at {', '.join(self.misfits)} first"
        else:
            text = f"{names} {'belong together' if len(self.ingredients) > 1 else 'is all there is'}"
        return f"{self.counts}: {text}."

    def to_pandas(self) -> DataFrame:
        """Return a row for each ingredient: how far it moved and where, the nearest other one, the verdict."""
        import pandas

        rows = [
            {
                "ingredient": row.name,
                "distance": row.norm,
                **row.by_component,
                "moved": row.moved,
                "nearest": row.nearest and row.nearest[0],
                "cosine": row.nearest and row.nearest[1],
                "verdict": row.verdict,
            }
            for row in (self.distances.ingredients if self.distances else ())
        ]
        return pandas.DataFrame(rows or [{"ingredient": name} for name in self.ingredients])

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        remarks = "".join(f"<li>{html.escape(str(remark))}</li>" for remark in (*self.problems, *self.warnings))
        table = self.to_pandas().to_html(index=False, float_format="%.4f")
        return f"<p>{self.counts}</p><ul>{remarks}</ul>{table}"

    def plot(self, path: str | Path | None = None) -> Picture | None:
        """Draw cosines and distances of all pairs, and a map of the pool around its base.

        Args:
            path: A png, svg or pdf file; an earlier one is replaced. Without one, a picture for a notebook is returned.

        Raises:
            OutputError: another suffix, no matplotlib, or no distances, for tensors that do not match.
        """
        from soup.report.pool_picture import draw_pool

        distances = self.distances
        where = path or "plot"
        if distances is None:
            raise OutputError(f"{where}: no distances were taken that could be drawn: tensors or dtypes do not match.")
        if distances.distances is None:
            raise OutputError(
                f"{where}: every element of the {distances.reference} is 0, and no distance is a share of that: there "
                f"is nothing to draw. Leave {option_name('plot')} out, or pass the models' base."
            )
        return draw(lambda target: draw_pool(distances, target), path)

    def keep(self, run_dir: str | Path) -> None:
        """Keep it in a run's directory, for the run's report.

        Raises:
            OutputError: the directory was made for something else.
        """
        write_atomic(RunDirectory.choose(run_dir, ()).pool_check, json.dumps(self.as_json(), indent=2))

    def as_json(self) -> dict[str, object]:
        """Return the document that `soup check --json` prints."""
        return {
            "schema": 1,
            "ingredients": list(self.ingredients),
            "problems": [problem.as_json() for problem in self.problems],
            "warnings": list(self.warnings),
            "misfits": list(self.misfits),
            "distances": self.distances.as_json() if self.distances else None,
        }


def check(
    pool: str | Path | Sequence[str | Path],
    base: str | Path | None = None,
    exclude: Sequence[str] = (),
    *,
    merge: MergeOptions | None = None,
    progress: Progress | None = None,
) -> PoolReport:
    """Find everything that speaks against souping a pool, and measure its distances; all weights are read once.

    A checkpoint that can't be opened is one of the problems, and the others are held against each other all the same.

    Args:
        pool: A directory whose subdirectories are the ingredients, or checkpoints one by one (directories, Hub ids).
        base: The model that the ingredients were tuned from.
        exclude: Names of ingredients to leave out.
        merge: The dtype, the dropped tensors, the tokenizer, and whether NaN and infinity are allowed, as for a merge.
        progress: Who hears warnings and bytes; by default a board shows them, and `Progress()` is nobody.

    Raises:
        SoupError: none can be opened, or there is no such dtype.
    """
    path = (str, Path, type(None))
    refuse_wrong_type(
        {"pool": pool, "base": base, "merge": merge},
        {"pool": (str, Path, Sequence), "base": path, "merge": (MergeOptions, type(None))},
        RecipeError,
    )
    with shown(progress) as progress:
        return _check(pool, base, exclude, merge or MergeOptions(), progress)


def _check(
    pool: str | Path | Sequence[str | Path],
    base: str | Path | None,
    exclude: Sequence[str],
    options: MergeOptions,
    progress: Progress,
) -> PoolReport:
    if options.dtype is not None:
        named_dtype(options.dtype)
    opened, failed = Pool.open_readable(pool, base, exclude)
    if not opened.ingredients:
        lines = [f"No ingredient can be opened:\n{bullet_list(map(str, failed.values()))}", *opened.skipped]
        raise PoolError("\n".join(lines))
    problems = [Problem("unreadable", str(error), _printable(name)) for name, error in failed.items()]
    with opened:
        opened.take_tokenizer(options.tokenizer)
        mismatches = opened.problems(options.dtype, options.drop)
        problems += mismatches or _plan_problems(opened, options)
        measurable = not mismatches and not any(p.checkpoint.quantised for p in opened.all)
        read = (_measure if options.dtype is None else _read_twice) if measurable else _read_through
        digests, rejections, distances = read(opened, options, progress)
        problems += rejections
        sources = [part.source(digest) for part, digest in zip(opened, digests, strict=True)]
        warnings = [*opened.warnings(options.drop), *Recipe.uniform(sources).repeated]
    for warning in warnings:
        progress.on_warning(warning)
    return PoolReport(_names(opened, failed), tuple(problems), tuple(warnings), distances)


def _names(pool: Pool, failed: Iterable[str]) -> tuple[str, ...]:
    """Return the ingredients' names, with those of the ones that can't be opened."""
    lost = [_printable(name) for name in failed if name != "base"]
    return tuple(sorted([*pool.names, *lost])) if lost else pool.names


def _printable(name: str) -> str:
    """Write the bytes of a directory's name that are no UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _plan_problems(pool: Pool, options: MergeOptions) -> list[Problem]:
    """List what a merge of the whole pool would refuse before it reads weights, such as a pattern that drops all."""
    recipe = RecipeTemplate(options=options).recipe(pool, shares_of(pool, list(pool)))
    try:
        plan_merge(recipe, pool)
    except RecipeError as error:
        return [Problem("recipe", str(error))]
    return []


Reading = tuple[list[str], list[Problem], PoolDistances | None]
"""The digest of each ingredient's weights, why tensors can't be merged, and the distances if they were taken."""


def _measure(pool: Pool, options: MergeOptions, progress: Progress) -> Reading:
    """Read all ingredients and the base side by side, once."""
    deltas = read_deltas(pool, options, progress)
    digests = {name: digest.content for name, digest in zip(pool.names, deltas.scan.digests, strict=False)}
    adapters = {part.name for part in pool if is_adapted(part.checkpoint)}
    reference = "base" if pool.base else "mean"
    distances = PoolDistances.of(deltas.sums, reference, digests, deltas.elements, adapters)
    rejections = [_of_base(deltas.scan.rejections[name], adapters) for name in sorted(deltas.scan.rejections)]
    return list(digests.values()), list(filter(None, rejections)), distances


def _read_twice(pool: Pool, options: MergeOptions, progress: Progress) -> Reading:
    """Read for what a cast to another dtype makes of each ingredient, then for the distances of what is stored."""
    digests, rejections, _ = _read_through(pool, options, progress)
    return digests, rejections, _measure(pool, options, progress)[2]


def _of_base(problem: Problem, adapters: Collection[str]) -> Problem | None:
    """Leave the base out of those that a problem is about, or its adapters where there are any: what it has, they have.

    None where the base is the only one, and nothing reads it: not every method does.
    """
    names = problem.ingredient.split(", ")
    theirs = adapters if "base" in names and adapters else {"base"}
    others = [name for name in names if name not in theirs]
    return replace(problem, ingredient=", ".join(others)) if others else None


def _read_through(pool: Pool, options: MergeOptions, progress: Progress) -> Reading:
    """Read one ingredient after another, for what is wrong in each."""
    parts = [*pool, *([pool.base] if pool.base and pool.has_adapters else [])]  # whose tensors adapters' soups hold
    progress.on_phase("reading the pool", sum(part.checkpoint.bytes for part in parts))
    digests: list[str] = []
    rejections: list[Problem] = []
    for part in parts:
        digest, rejected = _read_ingredient(part, options, progress)
        digests.append(digest)
        rejections += rejected
    return digests[: len(pool)], rejections, None


def _read_ingredient(ingredient: Ingredient, options: MergeOptions, progress: Progress) -> tuple[str, list[Problem]]:
    """Merge an ingredient with itself alone, into nothing: what stops that stops every soup with it.

    Of an adapter this is what it changes; the rest is the base's.
    """
    checkpoint = ingredient.checkpoint
    if checkpoint.quantised:  # its numbers are not numbers one by one
        return digest_checkpoint(checkpoint, progress.on_bytes).content, []
    dtype = named_dtype(options.dtype) if options.dtype else None
    blend = Blend(Linear(), (checkpoint,), (ingredient.name,), (1.0,), dtype, options.allow_nonfinite)
    loop = Options(progress=progress.on_bytes)
    names = checkpoint.changes if is_adapted(checkpoint) else checkpoint.tensors
    specs = [checkpoint.tensors[name] for name in names]
    scan = scan_blocks(blend, specs, lambda *block: None, loop, hashing=not is_adapted(checkpoint))
    digest = digest_checkpoint(checkpoint) if is_adapted(checkpoint) else scan.digests[0]
    checkpoint.refuse_changed()
    return digest.content, [
        scan.rejections[name] for name in sorted(scan.rejections) if not is_dropped(name, options.drop)
    ]
