"""How far the jobs are: what their folders say, and whether anything still runs there."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.jobs import Job, read_job, read_plan, read_stamp, read_state
from finetune.launching.executors.liveness import is_alive, slurm_queue
from finetune.launching.executors.processes import read_launcher
from finetune.launching.executors.protocol import Placement, read_placement

__all__ = ["HEAD", "Row", "cells", "duration", "live_cells", "row_of", "status", "status_json"]

URGENT = ("running", "failed", "lost", "stopped", "waiting")  # then those that are done
HEAD = ("job", "state", "step", "loss", "speed", "left", "log")
IDLE_TOO_LONG = "says that it runs, but nothing does: killed, or its machine is gone; soup finetune goes on with it"


@dataclass(frozen=True)
class Row:
    """A job as people see it.

    `state` is waiting, running, done, failed, stopped, lost (it says that it runs, and nothing does) or not started.
    """

    name: str
    state: str
    step: int
    steps: int
    loss: float | None
    seconds_per_step: float | None
    left_seconds: float | None
    log: str
    why: str | None = None


def row_of(job: Job, alive: Callable[[Path], bool | None] = is_alive) -> Row:
    """A job's row. `alive` tells of a job's folder whether something runs or waits there (None: can't be seen)."""
    told = read_state(job.folder)
    log = job.folder / "log.txt"
    state: str = told.phase if told else "not started"
    why = told.why if told else None
    done = _is_done(job)
    if done:
        state, why = "done", None
    elif state in ("failed", "stopped"):
        state, why = ("waiting", None) if alive(job.folder) else (state, why)
    elif state in ("waiting", "running", "done"):
        there = alive(job.folder)
        if there is None:
            placement = read_placement(job.folder) or Placement()
            where = placement.get("host") or placement.get("job")
            why = f"can't be seen from here: runs on {placement.get('on')} ({where})"
        elif not there:
            state, why = ("not started", None) if state == "waiting" else ("lost", IDLE_TOO_LONG)
    step, steps = (told.step, told.steps) if told else (0, job.settings.steps or 0)
    speed = told.seconds_per_step if told else None
    left = speed * (steps - step) if speed is not None and state == "running" else None
    return Row(job.name, state, step, steps, told.loss if told else None, speed, left, str(log), why)


def _is_done(job: Job) -> bool:
    """Whether the checkpoint there is the one of the job's folder, which may since have been made anew."""
    stamp, begun = read_stamp(job.out), read_job(job.folder)
    return stamp is not None and (begun is None or begun.get("digest") == stamp.get("digest"))


def status(config_path: Path | str) -> list[Row]:
    """How far the jobs of a configuration are, whoever runs them.

    Raises:
        FinetuneError: a wrong configuration.
    """
    _, _, jobs = read_plan(config_path)
    watched = read_launcher(jobs[0].folder.parent) is not None
    queue = slurm_queue(job.folder for job in jobs)

    def alive(folder: Path) -> bool | None:
        told = read_state(folder)
        return True if watched and told and told.phase == "waiting" else is_alive(folder, queue)

    return [row_of(job, alive) for job in jobs]


def status_json(rows: Sequence[Row]) -> dict[str, Any]:
    """One document of all rows."""
    return {"schema": 1, "jobs": [asdict(row) for row in rows]}


def cells(row: Row, root: Path | None = None) -> tuple[str, ...]:
    """A row as texts, for the columns of `HEAD`; the log's path from `root` on, where it lies below."""
    log = Path(row.log)
    if root and log.is_relative_to(root):
        log = log.relative_to(root)
    return (
        row.name,
        row.state,
        f"{row.step}/{row.steps or '?'}" if row.step or row.steps else "",
        "" if row.loss is None else f"{row.loss:.4f}",
        _speed(row.seconds_per_step),
        "" if row.left_seconds is None else duration(row.left_seconds),
        str(log),
    )


def live_cells(rows: Sequence[Row], most: int) -> list[tuple[str, ...]]:
    """Rows for a board of so many lines, logs left out: what runs first, then what failed, and a line for the rest."""
    shown = list(rows)
    if len(rows) > most:
        urgent = sorted(rows, key=lambda row: URGENT.index(row.state) if row.state in URGENT else len(URGENT))
        chosen = {row.name for row in urgent[: max(1, most - 1)]}
        shown = [row for row in rows if row.name in chosen]
    lines = [cells(row)[:-1] for row in shown]
    if rest := Counter(row.state for row in rows) - Counter(row.state for row in shown):
        told = ", ".join(f"{count} {state}" for state, count in rest.items())
        lines.append((f"and {rest.total()} more: {told}", *[""] * (len(HEAD) - 2)))
    return lines


def _speed(seconds_per_step: float | None) -> str:
    if not seconds_per_step:
        return ""
    return f"{seconds_per_step:.2f} s/step" if seconds_per_step > 0.5 else f"{1 / seconds_per_step:.1f} steps/s"


def duration(seconds: float) -> str:
    """A time for people: `40 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
