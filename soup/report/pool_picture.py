"""The picture of a pool: cosines and distances of all pairs, and a map of the pool around its base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from soup.report.pool_distances import PoolDistances
from soup.report.pool_maps import Matrix, cluster_order, map_to_plane
from soup.support.pictures import SOFT, TEXT, Target, draw_figure
from soup.support.text import short_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_pool"]

MOST_NUMBERS = 12
"""A heat map of more ingredients has no room for numbers."""
MOST_PLACES = 4
"""Smaller numbers have an exponent."""
LONGEST_LABEL = 24
MOST_NAMES = 3
"""So many names stand at one point of the map."""


def draw_pool(distances: PoolDistances, target: Target) -> None:
    """Draw heat maps of cosines and distances, near ones side by side, and the plane that holds most of the distances.

    Args:
        distances: What was measured.
        target: A png, svg or pdf file, or a picture in memory.

    Raises:
        OutputError: another suffix, or no matplotlib.
    """
    names = short_labels([row.name for row in distances.ingredients], LONGEST_LABEL)
    matrix = distances.distances
    assert matrix is not None, "a base of zeros is refused before"
    order = cluster_order(matrix)
    side = min(14.0, 3.6 + 0.26 * len(names))
    with draw_figure(target, 3 * side, side) as figure:
        cosines, between, plane = figure.subplots(1, 3)
        _draw_matrix(cosines, distances.cosines["all"], names, order, "RdBu_r", (-1.0, 1.0))
        cosines.set_title("cosine of deltas")
        largest = max(map(max, matrix)) or 1.0
        _draw_matrix(between, matrix, names, order, "viridis_r", (0.0, largest))
        between.set_title(f"distance / |{distances.reference}|")
        _draw_plane(plane, distances, matrix, names)


def _draw_matrix(
    axes: Axes, values: Matrix, names: Sequence[str], order: Sequence[int], colors: str, span: tuple[float, float]
) -> None:
    rows = [[values[i][j] for j in order] for i in order]
    image = axes.imshow(rows, cmap=colors, vmin=span[0], vmax=span[1])
    labels, size = [names[i] for i in order], max(4.0, 9.0 - len(names) / 12)
    axes.set_xticks(range(len(order)), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(len(order)), labels, fontsize=size)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8)
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)
    if len(order) <= MOST_NUMBERS:
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                color = "white" if abs(value) > 0.6 * span[1] else TEXT
                axes.text(x, y, _number(value, span[1]), ha="center", va="center", color=color, fontsize=7)


def _number(value: float, largest: float) -> str:
    """Return a number of a map, in two digits of the largest or so; what rounding leaves of a zero is none."""
    if not math.isfinite(largest):
        return f"{value:z.2g}"
    places = 2 - math.ceil(math.log10(largest))
    return f"{value:z.{places}f}" if 0 <= places <= MOST_PLACES else f"{round(value / largest, 3) * largest:z.2g}"


def _draw_plane(axes: Axes, distances: PoolDistances, matrix: Matrix, names: Sequence[str]) -> None:
    norms = [row.norm or 0.0 for row in distances.ingredients]
    rows = [[0.0, *norms], *([norm, *row] for norm, row in zip(norms, matrix, strict=True))]
    points, share = map_to_plane(rows)
    groups: dict[tuple[float, float], list[str]] = {}
    spread = max(abs(value) for point in points for value in point) or 1.0
    for (x, y), name in zip(points[1:], names, strict=True):  # of equal models the names stand at one point
        groups.setdefault((round(x / spread, 3) * spread, round(y / spread, 3) * spread), []).append(name)
    axes.scatter([x for x, _ in points[1:]], [y for _, y in points[1:]], s=28, zorder=3)
    axes.scatter([0], [0], marker="s", s=45, color=TEXT, zorder=4)
    axes.annotate(distances.reference, (0, 0), (6, -12), textcoords="offset points", weight="bold")
    for point, members in groups.items():
        more = f", {len(members) - MOST_NAMES} more" if len(members) > MOST_NAMES else ""
        axes.plot([0, point[0]], [0, point[1]], color=SOFT, alpha=0.4, linewidth=0.8, zorder=1)
        text, away = ", ".join(members[:MOST_NAMES]) + more, [1 if value >= 0 else -1 for value in point]
        axes.annotate(
            text,
            point,
            (5 * away[0], 4 * away[1]),
            textcoords="offset points",
            ha="left" if away[0] > 0 else "right",
            va="bottom" if away[1] > 0 else "top",
            fontsize=8,
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.3)  # room for the names
    axes.locator_params(nbins=5)
    axes.set_title(f"around the {distances.reference}: {share:.0%} of squared distances")
