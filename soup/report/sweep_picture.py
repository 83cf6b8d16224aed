"""The picture of a line between two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from soup.support.pictures import SOFT, TEXT, Target, dot_style, draw_figure
from soup.support.text import printable

__all__ = ["draw_sweep"]

Curves = Mapping[str, Sequence[float]]
OVERALL = "overall"


def draw_sweep(names: tuple[str, str], ts: Sequence[float], curves: Mapping[str, Curves], target: Target) -> None:
    """Draw what was measured along a line; straight lines between both ends are dashed.

    Args:
        names: Of both ends.
        ts: Where the points are; 0 and 1 among them.
        curves: The values at the points, by their name, in a panel for each kind of them (such as `score`).
        target: A png, svg or pdf file, or a picture in memory.

    Raises:
        OutputError: another suffix, or no matplotlib.
    """
    with draw_figure(target, 8, 1.5 + 3 * len(curves)) as figure:
        benchmarks = dict.fromkeys(name for members in curves.values() for name in members if name != OVERALL)
        styles = {name: dot_style(number) for number, name in enumerate(benchmarks)}
        styles[OVERALL] = {"color": TEXT, "marker": "o"}
        panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (kind, members) in zip(panels, curves.items(), strict=True):
            for name, values in members.items():
                style, width = styles[name], 2.0 if name == OVERALL else 1.2
                axes.plot(ts, values, **style, linewidth=width, markersize=4, label=printable(name))
                ends = [values[ts.index(0)], values[ts.index(1)]]
                axes.plot([0, 1], ends, color=style["color"], linewidth=0.8, linestyle="--")
            for t in (0, 1):
                axes.axvline(t, color=SOFT, linewidth=0.8)
            axes.set_ylabel(kind)
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
        panels[-1].set_xlabel(f"t: from {printable(names[0])} (0) to {printable(names[1])} (1)")
