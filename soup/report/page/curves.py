"""A pool's report while it is trained, or after: the loss curve of each fine-tune, from its TensorBoard files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from soup.errors import JournalError
from soup.report.page.run_record import read_document
from soup.report.tables import ScoreRow, ScoreTable

__all__ = ["curves_document", "curves_table", "holds_jobs"]

CURVES = {"train/loss": "loss", "eval/loss": "evaluation loss", "train/learning_rate": "learning rate"}
MOST_POINTS = 200
"""So many points of a curve are drawn, evenly spaced."""


def holds_jobs(directory: Path) -> bool:
    """Whether a directory holds the jobs of `soup finetune`."""
    return any(directory.glob("*/state.json")) and any(directory.glob("*/job.json"))


def curves_document(directory: Path) -> dict[str, object]:
    """Return the state and the curves of each job.

    Raises:
        JournalError: a job's state is damaged.
    """
    jobs, curves, remarks = [], dict[str, dict[str, list[tuple[int, float]]]](), dict[str, None]()
    for path in sorted(directory.glob("*/state.json")):
        state, name = read_document(path), path.parent.name
        kept = ("phase", "step", "steps", "loss", "seconds_per_step", "attempt", "why")
        jobs.append({"name": name, **{key: state.get(key) for key in kept}})
        for title, points in _curves(path.parent / "tensorboard", remarks).items():
            curves.setdefault(title, {})[name] = points
    return {"schema": 1, "kind": "curves", "jobs": jobs, "curves": curves, "remarks": [*remarks]}


def curves_table(document: Mapping[str, object]) -> ScoreTable:
    """Return where each job is, as a table."""
    columns = ("step", "steps", "loss", "seconds_per_step")
    jobs = cast("list[dict[str, Any]]", document["jobs"])
    return ScoreTable(
        columns, tuple(ScoreRow(job["name"], tuple(job[key] for key in columns), job["phase"]) for job in jobs)
    )


def _curves(folder: Path, remarks: dict[str, None]) -> dict[str, list[tuple[int, float]]]:
    if not folder.is_dir():
        return {}
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        remarks['The curves: reading them needs tensorboard (pip install "vlm-soup[finetune]")'] = None
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": MOST_POINTS})
    try:
        events.Reload()
    except (OSError, ValueError) as reason:
        raise JournalError(f"{folder}: its curves can't be read ({reason}).") from reason
    known = {*events.Tags()["scalars"]}
    return {
        title: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag, title in CURVES.items()
        if tag in known
    }
