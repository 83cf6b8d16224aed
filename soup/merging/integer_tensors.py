"""Tensors of whole numbers in a pool: they can't be averaged, so that they must be equal, but for counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from soup.checkpoints.dtypes import TensorSpec
from soup.checkpoints.problem import Problem
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.tensor_names import is_counter
from soup.support.options import option_name

__all__ = ["differing_counters", "differing_integers", "not_averaged"]

_CHUNK_BYTES = 2**20


def differing_integers(parts: Mapping[str, Checkpoint], tensors: Sequence[TensorSpec]) -> Iterator[Problem]:
    """Yield a problem for each tensor that no merge takes because its numbers differ. They are few: all are read.

    Args:
        parts: The ingredients by name, the first of which the others are held against.
        tensors: The tensors that are not left out, as the first has them.
    """
    (name, first), *others = parts.items()
    for spec in tensors:
        if differing := [other for other, part in others if not is_counter(spec) and _differ(first, part, spec)]:
            yield not_averaged(spec, name, differing)


def differing_counters(parts: Sequence[Checkpoint], tensors: Sequence[TensorSpec]) -> list[str]:
    """List the counters that differ: a merge copies those of its first ingredient."""
    first, *others = parts
    return [spec.name for spec in tensors if is_counter(spec) and any(_differ(first, other, spec) for other in others)]


def not_averaged(spec: TensorSpec, first: str, differing: Sequence[str]) -> Problem:
    """Say why a tensor can't be merged that is not the same in these ingredients as in the first."""
    return Problem(
        "integers",
        f"{spec.dtype.name} values can't be averaged, and differ from {first}'s",
        ", ".join(differing),
        (spec.name,),
        against=first,
        cure=f"{option_name('drop')} leaves the tensor out",
    )


def _differ(first: Checkpoint, other: Checkpoint, spec: TensorSpec) -> bool:
    """Whether a tensor that can't be averaged holds other bytes; what `Pool.problems` tells already counts as equal."""
    if spec.dtype.kind not in ("integer", "complex") or other.tensors.get(spec.name) != spec:
        return False
    for start in range(0, spec.bytes, _CHUNK_BYTES):
        ours, theirs = (bytearray(min(_CHUNK_BYTES, spec.bytes - start)) for _ in range(2))
        first.read_into(spec.name, start, memoryview(ours))
        other.read_into(spec.name, start, memoryview(theirs))
        if ours != theirs:
            return True
    return False
