"""How far the ingredients of a pool are from their base and from each other, per component, in one streaming pass.

All is computed from the dot products of the deltas: norms, cosines and distances. Where no base is known the mean of
the ingredients stands in for it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from typing import NamedTuple

from soup.hf.places import COMPONENTS, component_kind
from soup.report.pool_measure import TensorSums
from soup.support.options import option_name

__all__ = ["IngredientDistances", "PoolDistances", "share_of"]

OTHER_BASE = 0.5
"""A delta larger than this share of the base's norm: fine-tunes move a model by some percent, other models by 140 %."""
FAR = 3.0
"""A delta this many times longer than the median of the others'."""
LEAST_FOR_FAR = 3
FITS = "fits"


@dataclass(frozen=True)
class IngredientDistances:
    """Where an ingredient stands.

    Args:
        name: Its name.
        norm: The length of its delta as a share of the base's; None where the base is 0 and it is not.
        moved: The share of elements that differ from the base.
        by_component: The same in each component.
        nearest: The ingredient whose delta points most like its own, and the cosine of both; None where nothing moved.
        verdict: fits, or what is wrong, with the threshold.
    """

    name: str
    norm: float | None
    moved: float
    by_component: Mapping[str, float | None]
    nearest: tuple[str, float] | None
    verdict: str


@dataclass(frozen=True)
class PoolDistances:
    """Distances within a pool.

    Args:
        reference: `base`, or `mean` where no base is known.
        ingredients: One for each.
        cosines: Of each pair's deltas, [k, k], for the whole and for each component.
        distances: Of each pair, as a share of the base's norm, [k, k]; None where the base is 0 and a model is not.
        frozen: Components in which no ingredient differs from the base.
    """

    reference: str
    ingredients: tuple[IngredientDistances, ...]
    cosines: Mapping[str, list[list[float]]]
    distances: list[list[float]] | None
    frozen: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return asdict(self)

    @property
    def misfits(self) -> tuple[str, ...]:
        """The names of the ingredients whose verdict is another than that they fit; one alone is held against none."""
        if self.reference == "mean" and len(self.ingredients) == 1:
            return ()
        return tuple(row.name for row in self.ingredients if row.verdict != FITS)

    @classmethod
    def of(
        cls,
        sums: Mapping[str, TensorSums],
        reference: str,
        digests: Mapping[str, str],
        elements: int,
        adapters: Collection[str] = (),
    ) -> PoolDistances:
        """Sum up a pass.

        Args:
            sums: Those of each tensor, by name; they are added up in this order.
            reference: `base`, or `mean` where no base is known.
            digests: The digest of each ingredient's weights, by name.
            elements: The number of elements of the floating tensors.
            adapters: The ingredients that are adapters.
        """
        names = list(digests)
        kinds = {name: component_kind(name) for name in sums}
        grams = {
            kind: _Gram.of([sums[name] for name in sums if kinds[name] == kind], len(names)) for kind in COMPONENTS
        }
        present = {kind: gram for kind, gram in grams.items() if gram.center > 0 or gram.moved}
        total = _Gram.of(list(sums.values()), len(names))
        cosines = {"all": total.cosines()} | {kind: gram.cosines() for kind, gram in present.items()}
        moved = [sum(each.moved[index] for each in sums.values()) for index in range(len(names))]
        rows = tuple(
            IngredientDistances(
                name,
                total.share(index),
                moved[index] / max(elements, 1),
                {kind: gram.share(index) for kind, gram in present.items()},
                total.nearest(names, index),
                _verdict(total, digests, index, reference, adapters),
            )
            for index, name in enumerate(names)
        )
        alone = reference == "mean" and len(names) == 1  # it is the mean, and nobody knows what moved
        frozen = () if alone else tuple(kind for kind, gram in present.items() if not gram.moved)
        return cls(reference, rows, cosines, total.distances(), frozen)


def share_of(squares: float, center: float) -> float | None:
    """Return a length as a share of another, of the squares of both; None where the other is 0 and it is not.

    Args:
        squares: Of the length; what rounding leaves below 0 is 0.
        center: The square of the other.
    """
    if center > 0:
        return math.sqrt(max(squares, 0.0) / center)
    return None if squares > 0 else 0.0


class _Gram(NamedTuple):
    """The squared norm of what deltas are taken from, and their dot products [k, k]."""

    center: float
    products: list[list[float]]

    @classmethod
    def of(cls, tensors: Sequence[TensorSums], count: int) -> _Gram:
        """Add up tensors."""
        pairs = [0.0] * (count * (count + 1) // 2)
        for tensor in tensors:
            pairs = [total + value for total, value in zip(pairs, tensor.products, strict=True)]
        products = [[0.0] * count for _ in range(count)]
        for (row, column), value in zip(combinations_with_replacement(range(count), 2), pairs, strict=True):
            products[row][column] = products[column][row] = value
        return cls(sum(tensor.center for tensor in tensors), products)

    @property
    def moved(self) -> bool:
        """Whether any delta is not 0."""
        return any(map(any, self.products))

    @property
    def norms(self) -> list[float]:
        """The lengths of the deltas."""
        return [math.sqrt(max(row[index], 0.0)) for index, row in enumerate(self.products)]

    def share(self, index: int) -> float | None:
        """Return the length of a delta as a share of the base's; None where the base is 0 and the delta is not."""
        return share_of(self.products[index][index], self.center)

    def cosines(self) -> list[list[float]]:
        """Return the cosine of each pair's deltas, 0 where there is none."""
        norms = self.norms
        return [
            [min(1.0, max(-1.0, value / (a * b))) if a * b > 0 else 0.0 for value, b in zip(row, norms, strict=True)]
            for row, a in zip(self.products, norms, strict=True)
        ]

    def nearest(self, names: Sequence[str], index: int) -> tuple[str, float] | None:
        """Return whose delta points most like an ingredient's, and their cosine; None where either did not move."""
        cosines, norms = self.cosines()[index], self.norms
        others = [
            (cosines[i], name) for i, name in enumerate(names) if i != index and norms[i] > 0 and norms[index] > 0
        ]
        return (max(others)[1], max(others)[0]) if others else None

    def distances(self) -> list[list[float]] | None:
        """Return the distance of each pair, as a share of the base's norm; None where that is 0 and a delta is not."""
        if self.moved and not self.center > 0:
            return None
        squares = [row[index] for index, row in enumerate(self.products)]
        scale = math.sqrt(self.center) if self.center > 0 else 1.0
        return [
            [math.sqrt(max(a + b - 2 * value, 0.0)) / scale for value, b in zip(row, squares, strict=True)]
            for row, a in zip(self.products, squares, strict=True)
        ]


def _verdict(gram: _Gram, digests: Mapping[str, str], index: int, reference: str, adapters: Collection[str]) -> str:
    names, contents = list(digests), list(digests.values())
    distance = gram.norms[index]
    if reference == "mean" and len(names) == 1:
        return f"alone: {option_name('base')} says what to hold it against"
    if distance == 0 and reference == "base":
        return "untrained: it is the base, in every element"
    if (first := contents.index(contents[index])) < index:
        return f"a duplicate of {names[first]}"
    if (share := gram.share(index)) is None:
        return f"not from this {reference}, every element of which is 0: |delta| is no share of its norm"
    if share > OTHER_BASE:
        return f"not from this {reference}: |delta| is {share:.2f} of its norm, more than {OTHER_BASE:g}"
    others = [norm for other, norm in enumerate(gram.norms) if other != index]
    if len(others) >= LEAST_FOR_FAR - 1 and (median := statistics.median(others)) > 0 and distance > FAR * median:
        return f"far from the others: |delta| is {distance / median:.1f} times their median, more than {FAR:g}"
    if names[index] not in adapters and 2 * len(adapters) >= len(names):
        return f"a full fine-tune among {len(adapters)} adapters"
    return FITS
