"""A pool's report while it is trained, or after: the loss curve of each fine-tune, from `loss.jsonl` in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from soup.report.page.run_record import read_document
from soup.report.tables import ScoreRow, ShownTable
from soup.support.json_text import log_lines

__all__ = ["curves_document", "curves_table"]

LOSSES = "loss.jsonl"
CURVES = {"loss": "loss", "validation/loss": "loss on held-out rows", "learning_rate": "learning rate"}
MOST_POINTS = 200
"""So many points of a curve are drawn, evenly spaced."""


def curves_document(directory: Path) -> dict[str, object]:
    """Return the state and the curves of each job.

    Raises:
        JournalError: a job's state is damaged.
    """
    jobs, curves = [], dict[str, dict[str, list[tuple[int, float]]]]()
    for path in sorted(directory.glob("*/state.json")):
        state, name = read_document(path), path.parent.name
        kept = ("phase", "step", "steps", "loss", "seconds_per_step", "attempt", "why")
        jobs.append({"name": name, **{key: state.get(key) for key in kept}})
        for title, points in _curves(path.parent / LOSSES).items():
            curves.setdefault(title, {})[name] = points
    return {"schema": 1, "kind": "curves", "jobs": jobs, "curves": curves, "remarks": []}


def curves_table(document: Mapping[str, object]) -> ShownTable:
    """Return where each job is, as a table."""
    columns = ("step", "steps", "loss", "seconds_per_step")
    jobs = cast("list[dict[str, Any]]", document["jobs"])
    return ShownTable(
        columns, tuple(ScoreRow(job["name"], tuple(job[key] for key in columns), job["phase"]) for job in jobs)
    )


def _curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the curves of a job's log; its last line may be half written."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in log_lines(path):
        step = line.get("step")
        for key, title in CURVES.items():
            value = line.get(key)
            if isinstance(step, int) and isinstance(value, int | float):
                curves.setdefault(title, []).append((step, value))
    return {title: _thinned(points) for title, points in curves.items()}


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most `MOST_POINTS` of a curve's points, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return points
    last = len(points) - 1
    return [points[round(number * last / (MOST_POINTS - 1))] for number in range(MOST_POINTS)]
