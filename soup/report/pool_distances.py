"""How far the ingredients of a pool are from their base and from each other, per component, in one streaming pass.

All is computed from the dot products of the deltas: norms, cosines and distances. Where no base is known the mean of
the ingredients stands in for it.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from soup.hf.places import COMPONENTS, component_kind
from soup.merging.methods.base import Block, Method
from soup.merging.methods.dot_products import dot_products

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["IngredientDistances", "PoolDistances", "PoolMeasure"]

OTHER_BASE = 0.5
"""A delta larger than this share of the base's norm: fine-tunes move a model by some percent, other models by 140 %."""
FAR = 3.0
"""A delta this many times longer than the median of the others'."""
LEAST_FOR_FAR = 3


@dataclass(frozen=True)
class PoolMeasure(Method):
    """No merge: takes the dot products of what it is given, [k, k] for each block, and how many elements moved.

    Its result is the first ingredient, or NaN where any of them holds what is not finite, which the loop then tells.
    """

    has_base: bool
    products: dict[tuple[str, int], NDArray[np.float64]] = field(default_factory=dict, compare=False)
    moved: dict[tuple[str, int], list[int]] = field(default_factory=dict, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def needs_base(self) -> bool:  # type: ignore[override]  # a class variable in methods that always or never do
        """Whether the pool has a base; see `Method.needs_base`."""
        return self.has_base

    def __call__(self, block: Block) -> torch.Tensor:
        """Take a block's dot products; see `Method`."""
        products, moved = dot_products(block, "base" if self.has_base else "mean", with_center=True)
        key = (block.tensor_name, block.first)
        with self._lock:
            self.products[key] = products.numpy()
            self.moved[key] = moved[1:]
        values = block.copy(0)
        return values if bool(products.isfinite().all()) else values.fill_(float("nan"))

    def keeps_equal(self, weights: Sequence[float]) -> bool:
        """Return true: what it gives back is an input; see `Method.keeps_equal`."""
        return True


@dataclass(frozen=True)
class IngredientDistances:
    """Where an ingredient stands.

    Args:
        name: Its name.
        norm: The length of its delta as a share of the base's.
        moved: The share of elements that differ from the base.
        by_component: The length of its delta in each component, as a share of the base's there.
        nearest: The ingredient whose delta points most like its own, and the cosine of both.
        verdict: fits, or what is wrong, with the threshold.
    """

    name: str
    norm: float
    moved: float
    by_component: Mapping[str, float]
    nearest: tuple[str, float] | None
    verdict: str


@dataclass(frozen=True)
class PoolDistances:
    """Distances within a pool.

    Args:
        reference: `base`, or `mean` where no base is known.
        ingredients: One for each.
        cosines: Of each pair's deltas, [k, k], for the whole and for each component.
        distances: Of each pair, as a share of the base's norm, [k, k].
        frozen: Components in which no ingredient differs from the base.
    """

    reference: str
    ingredients: tuple[IngredientDistances, ...]
    cosines: Mapping[str, list[list[float]]]
    distances: list[list[float]]
    frozen: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def of(
        cls,
        measure: PoolMeasure,
        digests: Mapping[str, str],
        elements: int,
        base_norms: Mapping[str, float],
        adapters: Collection[str] = (),
    ) -> PoolDistances:
        """Sum up a pass.

        Args:
            measure: What was taken.
            digests: The digest of each ingredient's weights, by name.
            elements: The number of elements of the floating tensors.
            base_norms: The squared norm of each tensor in which nothing differs, which no method sees.
            adapters: The ingredients that are adapters.
        """
        import numpy as np

        names = list(digests)
        size = len(names) + 1
        grams = {component: np.zeros((size, size)) for component in COMPONENTS}
        moved = np.zeros(len(names))
        for key in sorted(measure.products):
            if np.isfinite(product := measure.products[key]).all():
                grams[component_kind(key[0])] += (
                    product + product.T
                ) / 2  # halves of a product may differ by a rounding
                moved += measure.moved[key]
        for name, squared in base_norms.items():
            grams[component_kind(name)][0, 0] += squared if math.isfinite(squared) else 0.0
        present = {component: gram for component, gram in grams.items() if gram[0, 0] > 0 or gram[1:, 1:].any()}
        total = sum(present.values(), np.zeros((size, size)))
        frozen = tuple(component for component, gram in present.items() if not gram[1:, 1:].any())
        cosines = {"all": _cosines(total)} | {component: _cosines(gram) for component, gram in present.items()}
        share = moved / max(elements, 1)
        rows = tuple(
            IngredientDistances(
                name,
                _share(total, index),
                float(share[index]),
                {component: _share(gram, index) for component, gram in present.items()},
                _nearest(cosines["all"], names, index),
                _verdict(total, digests, index, "base" if measure.has_base else "mean", adapters),
            )
            for index, name in enumerate(names)
        )
        reference = "base" if measure.has_base else "mean"
        return cls(reference, rows, cosines, _distances(total), frozen)


def _share(gram: NDArray[np.float64], index: int) -> float:
    """Return the length of a delta as a share of the base's."""
    return math.sqrt(max(gram[index + 1, index + 1], 0.0) / gram[0, 0]) if gram[0, 0] > 0 else 0.0


def _cosines(gram: NDArray[np.float64]) -> list[list[float]]:
    import numpy as np

    norms = np.sqrt(np.clip(np.diagonal(gram)[1:], 0, None))
    scale = np.outer(norms, norms)
    cosines = np.divide(gram[1:, 1:], scale, out=np.zeros_like(scale), where=scale > 0)
    rows: list[list[float]] = np.clip(cosines, -1, 1).tolist()
    return rows


def _distances(gram: NDArray[np.float64]) -> list[list[float]]:
    import numpy as np

    squares = np.diagonal(gram)[1:]
    between = np.sqrt(np.clip(squares[:, None] + squares[None, :] - 2 * gram[1:, 1:], 0, None))
    rows: list[list[float]] = (between / math.sqrt(gram[0, 0]) if gram[0, 0] > 0 else between).tolist()
    return rows


def _nearest(cosines: list[list[float]], names: Sequence[str], index: int) -> tuple[str, float] | None:
    others = [(cosines[index][other], names[other]) for other in range(len(names)) if other != index]
    return (max(others)[1], max(others)[0]) if others else None


def _verdict(
    gram: NDArray[np.float64], digests: Mapping[str, str], index: int, reference: str, adapters: Collection[str]
) -> str:
    names, contents = list(digests), list(digests.values())
    squares = [max(value, 0.0) for value in gram.diagonal()[1:].tolist()]
    distance = math.sqrt(squares[index])
    if distance == 0 and reference == "base":
        return "untrained: it is the base, in every element"
    if (first := contents.index(contents[index])) < index:
        return f"a duplicate of {names[first]}"
    if (share := _share(gram, index)) > OTHER_BASE:
        return f"not from this {reference}: |delta| is {share:.2f} of its norm, more than {OTHER_BASE:g}"
    others = [math.sqrt(value) for other, value in enumerate(squares) if other != index]
    if len(others) >= LEAST_FOR_FAR - 1 and (median := statistics.median(others)) > 0 and distance > FAR * median:
        return f"far from the others: |delta| is {distance / median:.1f} times their median, more than {FAR:g}"
    if names[index] not in adapters and 2 * len(adapters) >= len(names):
        return f"a full fine-tune among {len(adapters)} adapters"
    return "fits"
