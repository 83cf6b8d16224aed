"""Open a recipe's inputs, and write its soup: loop over blocks, close. Read `write_soup` first.

Planning is in `soup/merging/plan.py`, reading in `soup/checkpoints/reader.py`, the arithmetic in
`soup/merging/block_arithmetic.py`, writing in `soup/checkpoints/writer.py`, what stands beside the weights in
`soup/merging/soup_files.py`. Nothing here knows an architecture: every tensor of the inputs is merged, copied, or
dropped by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from soup.checkpoints.destination import remove_replaced
from soup.checkpoints.digest import LeafDigests, digest_files
from soup.checkpoints.held_files import HeldFiles
from soup.checkpoints.writer import CheckpointWriter
from soup.errors import OutputError
from soup.merging.adapter_bases import base_of_adapters
from soup.merging.adapter_output import write_adapter
from soup.merging.block_loop import Options, for_each_block
from soup.merging.ingredient import combine_errors, open_each
from soup.merging.method_building import wrap_method_errors
from soup.merging.plan import MergePlan
from soup.merging.pool import Pool
from soup.merging.recipe import CheckpointSource, Recipe
from soup.merging.soup_files import NO_DIGEST, add_side_files, earlier_soup, header_metadata, is_kept
from soup.support.open_files import real_path
from soup.support.options import option_name
from soup.support.text import bullet_list

__all__ = ["open_pool", "refuse_inputs_as_output", "with_adapters_base", "write_soup"]


def write_soup(
    plan: MergePlan,
    out: Path,
    *,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    scores_note: str = "",
    on_bytes: Callable[[int], None] | None = None,
    on_remark: Callable[[str], None] = lambda text: None,
) -> Recipe:
    """Do what a plan says, and return the sealed recipe. A soup that stands at `out` already is left as it is.

    Args:
        plan: What is merged; its pool is open.
        out: The directory to write.
        scores: For the model card: by benchmark, then by the part of the questions.
        scores_note: What the card says of them besides.
        on_bytes: Called with the number of input bytes done since its last call.
        on_remark: Called with what the soup's user should know.

    Raises:
        PoolError, RecipeError: a tensor can't be merged, the method failed, or an ingredient is not the one named.
        CheckpointError: weights changed while they were merged.
        OutputError: the destination exists, is being written by another run, or the disk is too small.
    """
    if plan.adapter:
        return write_adapter(plan, plan.adapter, out, scores, scores_note, on_bytes, on_remark)
    if not plan.write.overwrite and (finished := _finished_soup(plan, out, on_bytes)):
        remove_replaced(out)
        return finished
    result = _result_digests(plan)
    with CheckpointWriter(out, plan.files, header_metadata(NO_DIGEST), overwrite=plan.write.overwrite) as writer:
        known = plan.missing_digests(on_bytes)
        blend = plan.prepared(on_bytes, known)
        for text in blend.method.remarks(blend.constants):
            on_remark(text)
        with wrap_method_errors(plan.recipe.method):
            loop = Options(plan.options.block_elements, plan.options.threads, on_bytes)
            digests = for_each_block(blend, plan.reads, writer.write, loop, hashing=True, known=known, result=result)
            contents = [digest.content for digest in digests]
            del digests, known  # of each tensor
        plan.refuse_changed()
        sealed = _sealed(plan, contents, result)
        if plan.recipe.result_digest not in (None, sealed.result_digest):
            on_remark(
                f"{out}: its weights are not those that the recipe was sealed with: expected "
                f"{plan.recipe.result_digest}, found {sealed.result_digest}. Another version of soup or of a library "
                "rounded otherwise, and scores of then are those of other weights."
            )
        add_side_files(writer, plan, sealed, out, scores, scores_note)
        writer.commit(header_metadata(sealed.digest))
    return sealed


def with_adapters_base(recipe: Recipe, beside: Path | None = None) -> Recipe:
    """Return the recipe with the base that its adapters name, where it names none.

    Args:
        recipe: The recipe.
        beside: The folder of its file.

    Raises:
        PoolError: They name several bases.
    """
    if recipe.base or (path := base_of_adapters([share.path for share in recipe.ingredients], beside)) is None:
        return recipe
    return recipe.model_copy(update={"base": CheckpointSource(name="base", path=path)})


def open_pool(recipe: Recipe) -> Pool:
    """Return the recipe's ingredients and base, opened and held against each other.

    Raises:
        CheckpointError: some are not there, or damaged; all are listed.
        PoolError: they do not belong together; every mismatch is listed.
    """
    sources = [(share.name, share.path) for share in recipe.ingredients]
    bases, errors = open_each([("base", recipe.base.path)] if recipe.base else [])
    base = bases[0] if bases else None
    lender = recipe.tokenizer
    if lender and lender.path not in {recipe.base and recipe.base.path, *(path for _, path in sources)}:
        sources.append((lender.name, lender.path))
    parts, more_errors = open_each(sources, base.checkpoint if base else None)
    if errors or more_errors:
        raise combine_errors([*errors.values(), *more_errors.values()])
    tokenizer = next((part for part in [*parts, *bases] if lender and part.location == lender.path), None)
    pool = Pool.of(parts[: len(recipe.ingredients)], base, tokenizer=tokenizer)
    pool.check(recipe.dtype, recipe.drop)
    return pool


def _finished_soup(plan: MergePlan, out: Path, on_bytes: Callable[[int], None] | None) -> Recipe | None:
    """Give the sealed recipe if `out` already holds this soup, so that nothing is left to do.

    Nothing but the content is trusted: the soup is made again, block by block, and held against what is there.

    Raises:
        OutputError: It is this soup by its recipe, and holds other bytes.
    """
    earlier = earlier_soup(out)
    if earlier is None or earlier.side_digest is None or not all(share.digest for share in earlier.ingredients):
        return None
    held = HeldFiles(out, plan.files, header_metadata(earlier.digest))
    if not held.are_complete():
        return None
    known = plan.missing_digests(on_bytes)
    blend = plan.prepared(on_bytes, known)
    result = _result_digests(plan)
    with held, wrap_method_errors(plan.recipe.method):
        loop = Options(plan.options.block_elements, plan.options.threads, on_bytes)
        digests = for_each_block(blend, plan.reads, held.compare, loop, hashing=True, known=known, result=result)
    plan.refuse_changed()
    sealed = _sealed(plan, [digest.content for digest in digests], result)
    if earlier.digest != sealed.digest:
        return None
    different = sorted(held.different)
    different += [name for name, path in plan.side_files.items() if not is_kept(plan, out, name, path)]
    if different:
        why = "not as it was made: it was edited, or a disk failed"
        if earlier.result_digest not in (None, sealed.result_digest):
            why = "as another version of soup or of a library rounded it"
        raise OutputError(
            f"{out}: holds this soup, but {why}. What differs:\n"
            f"{bullet_list(different)}\nPass {option_name('overwrite')} to make it again, or choose another "
            f"{option_name('out')}."
        )
    return sealed


def _result_digests(plan: MergePlan) -> LeafDigests:
    return LeafDigests({spec.name: spec for spec in plan.writes})


def _sealed(plan: MergePlan, contents: Sequence[str], result: LeafDigests) -> Recipe:
    """Return the recipe with the digests of what was read, and of what was made."""
    sealed = plan.recipe.sealed(contents, digest_files(plan.side_files))
    return sealed.model_copy(update={"result_digest": result.close().content})


def refuse_inputs_as_output(pool: Pool, out: Path, folder: Path | None = None) -> None:
    """Refuse a destination in or around one of the inputs, or who lends the tokenizer, or in the folder of the pool.

    Args:
        pool: The inputs.
        out: The destination.
        folder: The directory whose subdirectories the ingredients are; None where they were named one by one.

    Raises:
        OutputError: says which.
    """
    if folder is not None and real_path(out).parent == real_path(folder):
        raise OutputError(
            f"{out}: lies in the pool, where the next run would take it for an ingredient. Choose another "
            f"{option_name('out')}."
        )
    for part in [*pool.all, *([pool.tokenizer] if pool.tokenizer else [])]:
        inside, outside = real_path(part.checkpoint.path), real_path(out)
        if inside.is_relative_to(outside) or outside.is_relative_to(inside):
            raise OutputError(
                f"{out}: is or contains {inside}, of which the soup is made, or lies in it. Choose another "
                f"{option_name('out')}."
            )
