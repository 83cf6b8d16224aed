"""Dot products of all pairs of ingredients in a block, in float64 and in one order, wherever they are computed.

A number is added up in units of 1,024 elements: in 64 lanes, which are added up by halves, as are the units then. So
the compiled pass and torch's operations give the same bits, which no matrix product of a library promises.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from soup.merging.compiled import Around, pair_sums
from soup.merging.methods.base import Block

if TYPE_CHECKING:
    import torch

__all__ = ["DotProducts", "dot_products", "lane_sum"]

UNIT, LANES = 1024, 64


class DotProducts(NamedTuple):
    """The dot product of each pair of vectors, [v, v] in float64, and how many elements of each are not 0, [v]."""

    products: torch.Tensor
    moved: list[int]


def dot_products(block: Block, around: Around = "zero", *, with_center: bool = False) -> DotProducts:
    """Return the dot products of a block's ingredients, or of their differences to a center.

    Args:
        block: The block.
        around: What is subtracted, in the dtype that values are accumulated in: nothing, the base, or the plain mean.
        with_center: Whether the center itself is the first vector.
    """
    import torch

    inputs, base = block.raw, block.raw_base if around == "base" else None
    dtypes = {values.dtype for values in inputs} | (set() if base is None else {base.dtype})
    if block.accumulate_in == torch.float64 and len(dtypes) > 1:
        inputs, base = tuple(values.double() for values in inputs), None if base is None else base.double()
    sums = pair_sums(inputs, base, around, with_center=with_center)
    pairs, moved = sums or _in_torch(list(_vectors(block, around, with_center=with_center)))
    products = torch.zeros(len(moved), len(moved), dtype=torch.float64)
    rows, columns = torch.triu_indices(len(moved), len(moved))
    products[rows, columns] = products[columns, rows] = torch.tensor(pairs, dtype=torch.float64)
    return DotProducts(products, moved)


def _vectors(block: Block, around: Around, *, with_center: bool) -> Iterator[torch.Tensor]:
    center = None
    if around == "base":
        center = block.base
    elif around == "mean":
        center = block[0]
        for index in range(1, len(block)):
            center += block.copy(index)
        center.div_(len(block))
    if with_center and center is not None:
        yield center.reshape(-1).double()
    for index in range(len(block)):
        values = block.copy(index)
        yield (values if center is None else values.sub_(center)).reshape(-1).double()


def _in_torch(vectors: list[torch.Tensor]) -> tuple[list[float], list[int]]:
    import torch

    pairs = [lane_sum(left * right) for index, left in enumerate(vectors) for right in vectors[index:]]
    return pairs, [int(torch.count_nonzero(vector)) for vector in vectors]


def lane_sum(terms: torch.Tensor) -> float:
    """Add up terms, [elements], in the order that the module's docstring says."""
    units = 1 << max((terms.numel() - 1) // UNIT, 0).bit_length()
    padded = terms.new_zeros(units * UNIT)
    padded[: terms.numel()] = terms
    rows = padded.view(units, UNIT // LANES, LANES)
    total = rows[:, 0].clone()
    for row in range(1, UNIT // LANES):
        total += rows[:, row]
    while total.shape[1] > 1:
        total = total[:, : total.shape[1] // 2] + total[:, total.shape[1] // 2 :]
    total = total[:, 0]
    while len(total) > 1:
        total = total[: len(total) // 2] + total[len(total) // 2 :]
    return float(total)
