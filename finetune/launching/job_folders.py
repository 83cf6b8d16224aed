"""The folders of jobs, as a launch finds them, makes them ready, and leaves them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from finetune.jobs import Job, JobStatus, State, divide_log, read_state, write_state
from finetune.launching.executors.attempt import clear_requests
from finetune.launching.executors.liveness import is_alive
from finetune.launching.executors.protocol import read_placement
from finetune.launching.job_plans import JobAction, JobPlan
from finetune.launching.outcomes import JobOutcome

__all__ = ["prepare_folder", "where_it_runs", "write_outcome"]

SILENT_SECONDS = 900  # without a word from another machine for so long, a job there is taken for gone


def where_it_runs(folder: Path) -> str | None:
    """Where a job still runs or waits, in words; None if it does not, as far as that can be seen from here."""
    placement, state = read_placement(folder), read_state(folder)
    alive = is_alive(folder) if placement else False
    recent = state and state.phase == JobStatus.RUNNING and time.time() - (state.updated or 0) < SILENT_SECONDS
    if placement is None or not (alive or (alive is None and recent)):
        return None
    if placement["on"] == "slurm":
        return f"on slurm (job {placement['job']})"
    if placement["on"] == "ray":
        return f"on ray (address {placement['address']})"
    return f"on local (host {placement['host']})"


def prepare_folder(plan: JobPlan) -> None:
    """Make a job's folder ready for an attempt; what was begun there otherwise is set aside, never resumed."""
    folder = plan.job.folder
    if plan.action == JobAction.RESTART:
        number = 1
        while folder.with_name(f"{folder.name}~{number}").exists():
            number += 1
        folder.rename(folder.with_name(f"{folder.name}~{number}"))
    elif plan.action == JobAction.BEGIN:
        (folder / "state.json").unlink(missing_ok=True)
    plan.job.write(plan.digest)
    divide_log(folder)
    clear_requests(folder)
    if read_state(folder) is None:
        write_state(folder, State(JobStatus.WAITING, steps=plan.job.settings.steps or 0))


def write_outcome(job: Job, outcome: JobOutcome) -> None:
    """Write a failure or a stop into `state.json` where the job itself could not."""
    ended = (JobStatus.FAILED, JobStatus.STOPPED)
    state = read_state(job.folder) or State(JobStatus.WAITING)
    if state.phase not in ended and outcome.status in ended:
        write_state(job.folder, replace(state, phase=outcome.status, why=outcome.why))
