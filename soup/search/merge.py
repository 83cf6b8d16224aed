"""Make a recipe's soup again: open what it names, plan, and write; `write_soup` in `soup/merging/merge.py` does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soup.board.board import shown
from soup.checkpoints.destination import refuse_destination
from soup.errors import RecipeError
from soup.evaluation.progress import Progress
from soup.merging.merge import open_pool, refuse_inputs_as_output, with_adapters_base, write_soup
from soup.merging.options import MergeOptions, WriteOptions
from soup.merging.plan import MergePlan, plan_merge
from soup.merging.recipe import Recipe
from soup.merging.soup_files import earlier_soup
from soup.support.options import refuse_wrong_type

__all__ = ["merge", "plan_recipe"]


def merge(
    recipe: Recipe | Path | str,
    out: Path | str,
    *,
    merge: MergeOptions | None = None,
    write: WriteOptions | None = None,
    progress: Progress | None = None,
) -> Recipe:
    """Write a recipe's soup to `out` as an ordinary checkpoint, out of core, and return the sealed recipe.

    The digests that the recipe names are verified by the very pass that merges; those that it lacks are filled in.

    Args:
        recipe: The recipe, or the path of its YAML file.
        out: The directory to write; it must not exist, or be empty, or be an earlier soup that may be overwritten.
        merge: `allow_nonfinite`, `threads`, `trust_code`; method, dtype and dropped tensors are the recipe's to say.
        write: Whether an earlier soup is overwritten, and how large files may be.
        progress: Who hears warnings and bytes; by default a board shows them, and `Progress()` is nobody.

    Raises:
        CheckpointError, PoolError, RecipeError: see `open_pool`, `plan_merge`; or an ingredient is not the one named.
        OutputError: the destination exists, is being written by another run, or the disk is too small.
    """
    with shown(progress) as progress, _planned(recipe, out, merge, write) as (plan, warnings):
        for text in warnings:
            progress.on_warning(text)
        progress.on_phase("merging", plan.read_bytes)
        return write_soup(plan, Path(out), on_bytes=progress.on_bytes, on_remark=progress.on_warning)


def plan_recipe(
    recipe: Recipe | Path | str, out: Path | str, merge: MergeOptions | None = None, write: WriteOptions | None = None
) -> dict[str, object]:
    """Return what `merge` would do with the same arguments, after the same checks and before any weight is read.

    Raises:
        SoupError: as `merge`.
    """
    with _planned(recipe, out, merge, write) as (plan, warnings):
        if not earlier_soup(Path(out)):  # a soup may be this very one: that shows when the weights are read
            refuse_destination(Path(out), overwrite=plan.write.overwrite)
        return {"schema": 1, **plan.as_json(Path(out)), "warnings": warnings}


@contextmanager
def _planned(
    recipe: Recipe | Path | str, out: Path | str, merge: MergeOptions | None, write: WriteOptions | None
) -> Iterator[tuple[MergePlan, list[str]]]:
    """Open what a recipe names, for the time of a `with`; return the plan of its merge, and what speaks against it."""
    refuse_wrong_type(
        {"recipe": recipe, "out": out, "merge": merge, "write": write},
        {
            "recipe": (Recipe, Path, str),
            "out": (Path, str),
            "merge": (MergeOptions, type(None)),
            "write": (WriteOptions, type(None)),
        },
        RecipeError,
    )
    beside = None if isinstance(recipe, Recipe) else Path(recipe).parent
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    options = merge or MergeOptions()
    options.refuse_what_a_recipe_says()
    recipe.refuse_untrusted_code(trusted=options.trust_code)
    recipe = with_adapters_base(recipe, beside)
    with open_pool(recipe) as pool:
        refuse_inputs_as_output(pool, Path(out))
        plan = plan_merge(recipe, pool, options, write)
        yield plan, [*pool.warnings(recipe.drop), *plan.idle_parameters]
