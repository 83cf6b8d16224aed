"""Weights as free numbers: what a continuous search moves in, and the soups that its points stand for.

Weights are a softmax of logits that sum to 0, in orthonormal coordinates (isometric log-ratios: Egozcue et al., 2003,
Mathematical Geology 35, section 4): no ingredient is the one that the others are measured by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

from soup.errors import RecipeError
from soup.hf.places import COMPONENTS
from soup.search.strategies.base import Chosen, Scored, ScoreFunction
from soup.search.strategies.weighting import describe_weights, weighted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["WeightSpace", "WeightedSoup", "refuse_components", "summit"]

BOUND = 6.0  # of a coordinate
ABSENT = -3.0  # the logit of what the soup that a search starts from does not have
SCALES = (0.0, 1.5)
DECIMALS = 3  # of weights: soups so alike are one in the journal


@dataclass(frozen=True)
class WeightedSoup:
    """What is chosen, by which method with which parameters; as for `score`."""

    chosen: Chosen
    method: str | None = None
    params: Mapping[str, Any] | None = None

    def score(self, score: ScoreFunction) -> Scored:
        """Score it."""
        return score(self.chosen, self.method, self.params)

    def __str__(self) -> str:
        params = "".join(f", {name} {value}" for name, value in (self.params or {}).items())
        return describe_weights(self.chosen) + params


@dataclass(frozen=True)
class WeightSpace:
    """The numbers of a search: k - 1 coordinates for each vector of weights, and the scale at last.

    Args:
        pool: The ingredients.
        components: Those with weights of their own; the others share the first vector.
        scale: Whether the scale of `task-arithmetic` is one more number.
    """

    pool: Sequence[Any]
    components: tuple[str, ...] = ()
    scale: bool = False

    @property
    def dimensions(self) -> int:
        """How many numbers there are."""
        return (len(self.pool) - 1) * (1 + len(self.components)) + self.scale

    @property
    def bounds(self) -> list[list[float]]:
        """The lower bounds of all numbers, and the upper ones."""
        count = self.dimensions - self.scale
        low, high = ([SCALES[0]], [SCALES[1]]) if self.scale else ([], [])
        return [[-BOUND] * count + low, [BOUND] * count + high]

    def first(self, soup: Sequence[Any]) -> list[float]:
        """Return the numbers of a plain mean of some ingredients, near which the others count little."""
        logits = [0.0 if any(part is other for other in soup) else ABSENT for part in self.pool]
        vector = [float(value) for value in _basis(len(self.pool)) @ logits]
        return vector * (1 + len(self.components)) + [1.0] * self.scale

    def soup(self, numbers: Sequence[float]) -> WeightedSoup:
        """Return the soup that so many numbers stand for."""
        step = len(self.pool) - 1
        vectors = [
            self._weights(numbers[start : start + step]) for start in range(0, self.dimensions - self.scale, step)
        ]
        params: dict[str, Any] = {"scale": round(float(numbers[-1]), DECIMALS)} if self.scale else {}
        method = "task-arithmetic" if self.scale else None
        if not self.components:
            return WeightedSoup(weighted(self.pool, vectors[0]), method, params or None)
        # Factors of equal weights: 1 is as much as the mean of all has.
        factors = [[round(len(self.pool) * weight, DECIMALS) for weight in weights] for weights in vectors]
        factor_of = dict(zip(self.components, factors[1:], strict=True))
        params["components"] = {name: factor_of.get(name, factors[0]) for name in COMPONENTS}
        return WeightedSoup(list(self.pool), method, params)

    def _weights(self, coordinates: Sequence[float]) -> list[float]:
        logits = coordinates @ _basis(len(self.pool))
        powers = [math.exp(logit) for logit in logits]
        return [round(power / math.fsum(powers), DECIMALS) for power in powers]


def refuse_components(components: object) -> None:
    """Refuse what is no list of components, each once.

    Raises:
        RecipeError: Names those that there are.
    """
    names = [] if isinstance(components, str) or not isinstance(components, Sequence) else [*map(str, components)]
    if (components and not names) or not {*names} <= {*COMPONENTS} or len({*names}) < len(names):
        raise RecipeError(f"components must be a list of some of {', '.join(COMPONENTS)}; found {components!r:.80}.")


def _basis(count: int) -> Array:
    """Return orthonormal rows that are orthogonal to (1, .., 1), [count - 1, count]: Helmert's."""
    import numpy as np

    rows = [[1.0] * position + [-float(position)] + [0.0] * (count - position - 1) for position in range(1, count)]
    matrix = np.asarray(rows)
    basis: Array = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return basis


def summit(known: Sequence[tuple[Sequence[float], float]]) -> list[float] | None:
    """Return the top of a parabola fitted to the better half of what was scored, within the box that this half spans.

    None where there are too few scores for one, or where it has no top: least squares over the second-order terms.
    """
    import numpy as np

    size = len(known[0][0]) if known else 0
    terms = [(), *((i,) for i in range(size)), *combinations_with_replacement(range(size), 2)]
    best = sorted(known, key=lambda pair: -pair[1])[: max(len(known) // 2, 2 * len(terms))]
    if len(best) < len(terms) + 2:
        return None
    points, scores = np.asarray([vector for vector, _ in best]), np.asarray([value for _, value in best])
    centre, spread = points.mean(axis=0), points.std(axis=0) + 1e-12
    unit = (points - centre) / spread
    features = np.column_stack([unit[:, list(term)].prod(axis=1) for term in terms])
    values = dict(zip(terms, np.linalg.lstsq(features, scores, rcond=None)[0], strict=True))
    slope = np.asarray([values[(i,)] for i in range(size)])
    bend = np.asarray([[values[tuple(sorted((i, j)))] * (1 + (i == j)) for j in range(size)] for i in range(size)])
    if np.linalg.eigvalsh(bend).max() >= 0:
        return None
    top = np.clip(np.linalg.solve(bend, -slope), unit.min(axis=0), unit.max(axis=0))
    return [float(value) for value in centre + spread * top]
