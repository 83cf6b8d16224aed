"""How far the jobs are: what their folders hold, and whether anything still runs there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from finetune.jobs import Job, JobStatus, Json, read_job, read_plan, read_stamp, read_state
from finetune.launching.executors.liveness import is_alive, slurm_queue
from finetune.launching.executors.processes import read_launcher
from finetune.launching.executors.protocol import Placement, read_placement
from soup.support.text import format_duration

__all__ = ["HEAD", "JobRow", "cells", "job_row", "status", "status_json"]

HEAD = ("job", "state", "step", "loss", "speed", "left", "log")
LOST = "says that it runs, but nothing does: killed, or its machine is gone; soup finetune goes on with it"
Alive = Callable[[Path], bool | None]
"""Whether something runs or waits in a job's folder; None where that can't be seen from here."""


@dataclass(frozen=True)
class JobRow:
    """A job as people see it.

    Args:
        name: The job's.
        state: Where it stands.
        step: How many steps are done.
        steps: How many there are.
        loss: The last logged one.
        seconds_per_step: What a step takes by now.
        left_seconds: How long the rest takes at that pace.
        log: The path of its log.
        why: Why it failed or was stopped.
    """

    name: str
    state: JobStatus
    step: int
    steps: int
    loss: float | None
    seconds_per_step: float | None
    left_seconds: float | None
    log: str
    why: str | None = None


def job_row(job: Job, alive: Alive = is_alive) -> JobRow:
    """Give a job's row.

    Args:
        job: the job.
        alive: whether something runs or waits in its folder.
    """
    state = read_state(job.folder)
    status, why = (state.phase, state.why) if state else (JobStatus.NOT_STARTED, None)
    if _is_done(job):
        status, why = JobStatus.DONE, None
    elif status != JobStatus.NOT_STARTED:
        status, why = _checked_alive(job.folder, status, why, alive)
    step, steps = (state.step, state.steps) if state else (0, job.settings.steps or 0)
    speed = state.seconds_per_step if state else None
    left = speed * (steps - step) if speed is not None and status == JobStatus.RUNNING else None
    log = str(job.folder / "log.txt")
    return JobRow(job.name, status, step, steps, state.loss if state else None, speed, left, log, why)


def _checked_alive(folder: Path, status: JobStatus, why: str | None, alive: Alive) -> tuple[JobStatus, str | None]:
    """Read a status as the job's files have it, corrected by whether anything runs or waits there, and why."""
    is_there = alive(folder)
    if status in (JobStatus.FAILED, JobStatus.STOPPED):
        return (JobStatus.WAITING, None) if is_there else (status, why)
    if is_there is None:
        placement = read_placement(folder) or Placement()
        where = placement.get("host") or placement.get("job")
        return status, f"can't be seen from here: runs on {placement.get('on')} ({where})"
    if is_there:
        return status, why
    return (JobStatus.NOT_STARTED, None) if status == JobStatus.WAITING else (JobStatus.LOST, LOST)


def _is_done(job: Job) -> bool:
    """Whether the checkpoint there is the one of the job's folder, which may since have been made anew."""
    stamp, begun = read_stamp(job.out), read_job(job.folder)
    return stamp is not None and (begun is None or begun.get("digest") == stamp.get("digest"))


def status(config_path: Path | str) -> list[JobRow]:
    """Give how far the jobs of a configuration are, whoever runs them.

    Raises:
        FinetuneError: a wrong configuration.
    """
    _, _, jobs = read_plan(config_path)
    launched = read_launcher(jobs[0].folder.parent) is not None
    queue = slurm_queue(job.folder for job in jobs)

    def alive(folder: Path) -> bool | None:
        state = read_state(folder)
        return True if launched and state and state.phase == JobStatus.WAITING else is_alive(folder, queue)

    return [job_row(job, alive) for job in jobs]


def status_json(rows: Sequence[JobRow]) -> Json:
    """Give one document of all rows."""
    return {"schema": 1, "jobs": [asdict(row) for row in rows]}


def cells(row: JobRow, root: Path | None = None) -> tuple[str, ...]:
    """Give a row as texts, for the columns of `HEAD`; the log's path from `root` on, where it lies below."""
    log = Path(row.log)
    if root and log.is_relative_to(root):
        log = log.relative_to(root)
    return (
        row.name,
        row.state,
        f"{row.step}/{row.steps or '?'}" if row.step or row.steps else "",
        "" if row.loss is None else f"{row.loss:.4f}",
        _speed(row.seconds_per_step),
        "" if row.left_seconds is None else format_duration(row.left_seconds),
        str(log),
    )


def _speed(seconds_per_step: float | None) -> str:
    if not seconds_per_step:
        return ""
    return f"{seconds_per_step:.2f} s/step" if seconds_per_step > 0.5 else f"{1 / seconds_per_step:.1f} steps/s"
