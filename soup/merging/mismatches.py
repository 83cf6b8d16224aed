"""In what one checkpoint of a pool does not fit another, from headers and the files beside the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from soup.checkpoints.config_differences import config_differences
from soup.checkpoints.dtypes import Dtype, TensorSpec
from soup.checkpoints.problem import Problem
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.tensor_names import SHOWN, abbreviate, other_names, unwrapping, wrapped
from soup.checkpoints.tied import EMBEDDINGS, OUTPUT, is_tied
from soup.merging.ingredient import Ingredient
from soup.support.options import option_name
from soup.support.text import pluralize

__all__ = ["harmless_in_config", "mismatches", "without_options"]


def mismatches(
    first: Ingredient, other: Ingredient, *, is_base: bool, mixed: bool, drop: Sequence[str]
) -> Iterator[Problem]:
    """Yield each thing in which `other` does not fit `first`.

    Args:
        first: What the other is held against.
        other: The other.
        is_base: Whether the other is the base, which is replaced and not left out.
        mixed: Whether other floating dtypes are no problem.
        drop: Patterns of the tensors to leave out.
    """
    ours, theirs = ({spec.name: spec for spec in part.tensors(drop)} for part in (first, other))
    way_out = (
        f"{option_name('base')} takes another base" if is_base else f"{option_name('exclude')} leaves {other.name} out"
    )
    yield from _names(first, other, ours, theirs, way_out)
    pairs = [(ours[name], theirs[name]) for name in ours if name in theirs]
    yield from _specs(first, other, pairs, mixed, way_out)
    yield from _config(first, other, way_out)


def _names(
    first: Ingredient,
    other: Ingredient,
    ours: Mapping[str, TensorSpec],
    theirs: Mapping[str, TensorSpec],
    way_out: str,
) -> Iterator[Problem]:
    missing = [name for name in ours if name not in theirs]
    extra = [name for name in theirs if name not in ours]
    if missing and extra and (pairs := other_names(ours, theirs)):
        yield _under_other_names(first, other, pairs)
        return
    cure = f"{way_out}, {option_name('drop')} leaves the tensors out"
    names = [*missing, *extra]
    if len(names) == 1 and names[0].endswith(OUTPUT) and is_tied(first.checkpoint) and is_tied(other.checkpoint):
        cure = f"It is a copy of the embeddings, to which it is tied: {option_name('drop')} {names[0]} leaves it out"
    if missing:
        text = f"{pluralize(len(missing), 'tensor')} missing that {first.name} has: {abbreviate(missing)}"
        yield Problem("names", text, other.name, missing, "", first.name, "present", "missing", cure)
    if extra:
        text = f"{pluralize(len(extra), 'tensor')} that {first.name} has not: {abbreviate(extra)}"
        yield Problem("names", text, other.name, extra, "", first.name, "missing", "present", cure)


def _under_other_names(first: Ingredient, other: Ingredient, pairs: Mapping[tuple[str, str], int]) -> Problem:
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
    expected, found = (", ".join(sorted({pair[side] for pair in pairs})) for side in (0, 1))
    text = f"the same names behind another prefix: {', '.join(lines)}"
    return Problem("names", text, other.name, (), "", first.name, expected, found, cure)


def _specs(
    first: Ingredient, other: Ingredient, pairs: Sequence[tuple[TensorSpec, TensorSpec]], mixed: bool, way_out: str
) -> Iterator[Problem]:
    """Yield each tensor of another shape or dtype; one problem for all where the same dtypes differ in many."""
    who = first.name, other.name
    recast: dict[tuple[Dtype, Dtype], list[tuple[TensorSpec, TensorSpec]]] = {}
    for ours, theirs in pairs:
        both_float = ours.dtype.kind == theirs.dtype.kind == "float"
        if ours.shape != theirs.shape:
            cure = f"{way_out}, {option_name('drop')} leaves the tensor out"
            if ours.name.endswith((EMBEDDINGS, OUTPUT)) and ours.shape[1:] == theirs.shape[1:]:
                count = max(ours.shape[0], theirs.shape[0])
                cure = (
                    f"The smaller vocabulary grows by model.resize_token_embeddings({count}), and save_pretrained(OUT)"
                )
            yield Problem.differing("shape", who, ours, theirs, keys=(ours.name,), cure=cure)
        elif ours.dtype != theirs.dtype and not (mixed and both_float):
            recast.setdefault((ours.dtype, theirs.dtype), []).append((ours, theirs))
    for (left, right), tensors in recast.items():
        is_float = left.kind == right.kind == "float"
        cure = f"{option_name('dtype')} merges mixed floating dtypes" if is_float else ""
        names = [ours.name for ours, _ in tensors]
        if len(tensors) > SHOWN:
            note = f" in {len(names)} tensors: {abbreviate(names)}"
            yield Problem.differing("dtype", who, left.name, right.name, note, keys=names, cure=cure)
            continue
        for ours, theirs in tensors:
            yield Problem.differing("dtype", who, ours, theirs, keys=(ours.name,), cure=cure)


def _config(first: Ingredient, other: Ingredient, way_out: str) -> Iterator[Problem]:
    who = first.name, other.name
    left, right = first.checkpoint.config, other.checkpoint.config
    cure = f"Correct the file where it is wrong; {way_out}"
    for key in ("model_type", "architectures"):
        ours, theirs = left.get(key), right.get(key)
        if ours is not None and theirs is not None and ours != theirs:
            yield Problem.differing("config", who, ours, theirs, keys=(key,), file="config.json", cure=cure)
    for value in config_differences(left, right):
        if value.arithmetic and value.path != "model_type":
            note = "; it changes what the model computes"
            yield Problem.differing(
                "config", who, value.left, value.right, note, keys=(value.path,), file="config.json", cure=cure
            )


def harmless_in_config(lead: Checkpoint, other: Checkpoint) -> Iterator[str]:
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


def without_options(problem: Problem) -> Problem:
    """Return a problem without a cure by options that say what of a pool is merged, for commands without them."""
    options = (option_name(name) for name in ("base", "exclude", "drop", "dtype"))
    return replace(problem, cure="") if any(option in problem.cure for option in options) else problem
