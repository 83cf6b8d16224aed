"""Where the models of a pool lie to each other: in which order they stand side by side, and a map of two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["PlaneMap", "cluster_order", "map_to_plane"]

Matrix = Sequence[Sequence[float]]

SMALLEST_TREE = 3


class PlaneMap(NamedTuple):
    """Points in a plane, the first at the origin, and the share of all squared distances that the plane holds."""

    points: list[tuple[float, float]]
    share: float


def cluster_order(distances: Matrix) -> list[int]:
    """Return the order in which near ones stand side by side: the leaves of the tree by average linkage.

    Args:
        distances: Between all pairs, [k, k].
    """
    import numpy as np
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(distances) < SMALLEST_TREE:
        return list(range(len(distances)))
    between = squareform(np.asarray(distances, dtype=np.float64), checks=False)
    order: list[int] = leaves_list(linkage(between, "average", optimal_ordering=True)).tolist()
    return order


def map_to_plane(distances: Matrix) -> PlaneMap:
    """Return the plane that holds most of the distances, by classical multidimensional scaling.

    Args:
        distances: Between all pairs, [k, k], k at least 1; the first is the one that the map is drawn around.

    Source: Torgerson, Psychometrika 17 (1952), 401-419.
    """
    import numpy as np

    squares = np.asarray(distances, dtype=np.float64) ** 2
    centered = squares - squares.mean(axis=0) - squares.mean(axis=1, keepdims=True) + squares.mean()
    values, vectors = np.linalg.eigh(-centered / 2)  # in ascending order
    spreads = np.clip(values[::-1], 0, None)
    points = np.zeros((len(squares), 2))
    axes = (vectors[:, ::-1] * np.sqrt(spreads))[:, :2]
    points[:, : axes.shape[1]] = axes - axes[0]
    total = float(spreads.sum())
    points *= np.where(points.sum(axis=0) < 0, -1, 1)  # an eigenvector's sign is chance
    return PlaneMap([(float(x), float(y)) for x, y in points], float(spreads[:2].sum()) / total if total > 0 else 1.0)
