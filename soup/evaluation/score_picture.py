"""The picture of scores: a line for each model, a dot for each benchmark, and the overall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from soup.support.pictures import RULE, SOFT, TEXT, Target, dot_style, draw_figure
from soup.support.text import printable, short_labels

__all__ = ["ScoredModel", "State", "draw_scores"]

State = Literal["single", "accepted", "refused"]
MOST_MODELS = 60
LONGEST_LABEL = 60


@dataclass(frozen=True)
class ScoredModel:
    """A line of the picture.

    Args:
        label: What stands beside it.
        scores: By benchmark.
        overall: Over the questions that choose.
        report: Over those that only report.
        state: Whether a search accepted it; `single` where nobody asked.
    """

    label: str
    scores: Mapping[str, float]
    overall: float | None = None
    report: float | None = None
    state: State = "single"


OVERALLS: dict[State, str] = {"single": RULE, "accepted": TEXT, "refused": "white"}
"""The colour of the dot."""


def draw_scores(models: Sequence[ScoredModel], target: Target) -> None:
    """Draw the scores of models from top to bottom; of more than fit the last are shown.

    Args:
        models: At least one.
        target: A png, svg or pdf file, or a picture in memory.

    Raises:
        OutputError: another suffix, or no matplotlib.
    """
    shown = models[-MOST_MODELS:]
    benchmarks = list(dict.fromkeys(name for model in shown for name in model.scores))
    with draw_figure(target, 9, 1.4 + 0.3 * len(shown)) as figure:
        axes = figure.subplots()
        for number, name in enumerate(benchmarks if len(benchmarks) > 1 else []):
            values = [model.scores.get(name) for model in shown]
            color, marker = dot_style(number).values()
            axes.scatter(*_dots(values), s=14, alpha=0.7, color=color, marker=marker, label=printable(name))
        for state, colour in OVERALLS.items():
            values = [model.overall if model.state == state else None for model in shown]
            if any(value is not None for value in values):
                label = "overall" if state == "single" else f"overall, {state}"
                axes.scatter(*_dots(values), s=52, c=colour, edgecolors=SOFT, zorder=3, label=label)
        values = [model.report for model in shown]
        if any(value is not None for value in values):
            axes.scatter(*_dots(values), s=34, marker="D", c="none", edgecolors="C4", label="overall, report")
        axes.set_yticks(range(len(shown)), short_labels([model.label for model in shown], LONGEST_LABEL))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("score")
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _dots(values: Sequence[float | None]) -> tuple[list[float], list[int]]:
    """Return the values that there are, and the number of the line of each."""
    dots = [(value, line) for line, value in enumerate(values) if value is not None]
    return [value for value, _ in dots], [line for _, line in dots]
