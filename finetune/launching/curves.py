"""The curves of all jobs in one picture, from the `loss.jsonl` in their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finetune.jobs import LOSSES, Job, read_plan
from soup.errors import FinetuneError
from soup.support.json_text import log_lines
from soup.support.pictures import draw_figure, line_style
from soup.support.text import printable

__all__ = ["draw_curves", "read_curve"]

PANELS = {"loss": "loss", "validation/loss": "loss on held-out rows", "mixture/": "share of a category"}
Curve = tuple[list[int], list[float]]


def draw_curves(config_path: Path | str, path: Path) -> None:
    """Draw every job's losses by step, a panel for each kind that there is.

    Args:
        config_path: the YAML file of the jobs.
        path: a png, svg or pdf file.

    Raises:
        FinetuneError: a wrong configuration, or no job has logged a step yet.
        OutputError: another suffix, or no matplotlib.
    """
    _, _, jobs = read_plan(config_path)
    panels = {title: _members(jobs, key) for key, title in PANELS.items()}
    panels = {title: members for title, members in panels.items() if members}
    if not panels:
        raise FinetuneError(f"{config_path}: no job has logged a step yet; there is nothing to draw.")
    with draw_figure(path, 8, 1 + 3 * len(panels)) as figure:
        all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (title, members) in zip(all_axes, panels.items(), strict=True):
            for number, (name, (steps, values)) in enumerate(members.items()):
                marker, style = "" if title == PANELS["loss"] else "o", line_style(number)
                axes.plot(steps, values, marker=marker, markersize=3, linewidth=1.2, label=printable(name), **style)
            axes.set_ylabel(title)
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
        all_axes[-1].set_xlabel("step")


def _members(jobs: Sequence[Job], key: str) -> dict[str, Curve]:
    """Return each curve of a panel: by its job, and by what stands behind a key that ends in a slash."""
    members = {}
    for job in jobs:
        for name, curve in read_curve(job.folder, key).items():
            members[f"{job.name} {name}".strip()] = curve
    return members


def read_curve(folder: Path, key: str) -> dict[str, Curve]:
    """Give steps and values that a job logged under a key, or under all that begin with it if it ends in a slash.

    By what stands behind the key: nothing, or the rest of the name.

    Args:
        folder: the job's.
        key: as `loss.jsonl` has it.
    """
    curves: dict[str, Curve] = {}
    for line in log_lines(folder / LOSSES):
        step = line.get("step")
        for name, value in line.items():
            is_asked_for = name == key or (key.endswith("/") and name.startswith(key))
            if is_asked_for and isinstance(step, int) and isinstance(value, int | float):
                steps, values = curves.setdefault(name.removeprefix(key), ([], []))
                steps.append(step)
                values.append(value)
    return curves
