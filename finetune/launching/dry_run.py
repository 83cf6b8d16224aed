"""What a launch would do: the jobs, their commands, and what each would take. It starts nothing and writes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

from finetune.jobs import Job, job_command
from finetune.launching.estimates import EstimateDocument, estimate, smallest_gpu_bytes
from finetune.launching.executors.local import local_gpus
from finetune.launching.executors.registry import executor_name
from finetune.launching.job_plans import JobAction, LaunchPlan, plan_launch
from soup.support.text import format_bytes, format_duration

__all__ = ["HEAD", "DryRun", "PlannedJob", "details", "plan_dry_run", "rows"]

COMMANDS = 20  # are shown; --json has all of them
HEAD = ("job", "plan", "rows", "steps", "parameters", "trained", "GPUs", "memory each", "time")


class PlannedJob(EstimateDocument):
    """A job of a dry run: what it would take, and what would be done. `data`: rows by data set (None: unknown)."""

    plan: str
    after: str | None
    start: str
    data: dict[str, int | None]
    out: str
    gpus: int
    command: str


class DryRun(TypedDict):
    """What `--dry-run --json` prints. `seconds`: of all that is to be done; None where a job's time is unknown."""

    schema: int
    on: str
    jobs: list[PlannedJob]
    seconds: float | None
    remarks: list[str]


def plan_dry_run(
    config_path: Path | str, *, executor: str | None = None, command: Callable[[Job, int], Sequence[str]] = job_command
) -> DryRun:
    """Give what a launch would do, as one document.

    Args:
        config_path: the YAML file.
        executor: where jobs would run; by default as the configuration has it.
        command: what trains a job on so many GPUs.

    Raises:
        FinetuneError: what would keep it from starting.
    """
    launch = plan_launch(config_path, writing=False)
    where = executor_name(executor or launch.config.executor)
    gpus = launch.config.gpus_per_job
    all_jobs = [plan.job for plan in launch.jobs]
    jobs: list[PlannedJob] = [
        {
            **estimate(plan.job, launch.contents, gpus, all_jobs).as_json(),
            "plan": plan.action,
            "after": plan.job.after,
            "start": plan.job.start,
            "data": {data_set.path: launch.contents[data_set.path].rows for data_set in plan.job.data},
            "out": str(plan.job.out),
            "gpus": gpus if where != "local" or local_gpus() else 0,
            "command": shlex.join(command(plan.job, gpus)),
        }
        for plan in launch.jobs
    ]
    remarks = [*launch.remarks, *_remarks(launch, where, jobs)]
    return {"schema": 1, "on": where, "jobs": jobs, "seconds": _seconds(launch, jobs), "remarks": remarks}


def _remarks(launch: LaunchPlan, where: str, jobs: Sequence[PlannedJob]) -> list[str]:
    """Find what a person would want to know before a Friday evening's launch."""
    remarks = []
    has = smallest_gpu_bytes() if where == "local" else None
    needs = max((job["memory_bytes"] or 0 for job in jobs), default=0)
    if has and needs > has:
        remarks.append(
            f"a job is estimated to need {format_bytes(needs)} of a GPU's memory, and the smallest here has "
            f"{format_bytes(has)}: gradient_checkpointing, micro_batch, lora or parallel: fsdp make it less"
        )
    if idle := [job["name"] for job in jobs if job["trained"] == 0]:
        names = ", ".join(idle)
        remarks.append(f"{names}: by the tensors' names in files nothing would be trained; --check tells for sure")
    if where == "local" and launch.config.gpus_per_job > 1 and not local_gpus():
        remarks.append(f"there is no GPU here: a job is {launch.config.gpus_per_job} processes on the CPU")
    return remarks


def _seconds(launch: LaunchPlan, jobs: Sequence[PlannedJob]) -> float | None:
    """How long all that is to be done takes on this host, the start first; None where a job's time is unknown."""
    todo = [job for job in jobs if job["plan"] != JobAction.SKIP]
    starts = {job["after"] for job in todo}
    times = [(job["name"] in starts, job["seconds"]) for job in todo]
    slots = len(local_gpus()) // max(1, launch.config.gpus_per_job) or launch.config.jobs_at_once or 1
    slots = min(slots, launch.config.jobs_at_once or slots)
    known = [(is_start, seconds) for is_start, seconds in times if seconds is not None]
    if len(known) < len(times):
        return None
    first = sum(seconds for is_start, seconds in known if is_start)
    rest = [seconds for is_start, seconds in known if not is_start]
    return first + max([sum(rest) / slots, *rest], default=0.0)


def rows(plan: DryRun) -> list[tuple[str, ...]]:
    """Give a plan's jobs as texts, for the columns of `HEAD`."""
    return [_cells(job) for job in plan["jobs"]]


def _cells(job: PlannedJob) -> tuple[str, ...]:
    known = [job["rows"], job["steps"], job["parameters"], job["trained"]]
    counts = ["?" if count is None else f"{count:,}" for count in known]
    memory = "?" if job["memory_bytes"] is None else f"about {format_bytes(job['memory_bytes'])}"
    time = "?" if job["seconds"] is None else f"about {format_duration(job['seconds'])}"
    return (job["name"], job["plan"], *counts, str(job["gpus"] or "CPU"), memory, time)


def details(plan: DryRun) -> list[str]:
    """Give what does not fit into columns: where, how long all of it takes, the data sets' rows, the commands."""
    time = "unknown: no job of this kind ran here yet" if plan["seconds"] is None else format_duration(plan["seconds"])
    data = {path: count for job in plan["jobs"] for path, count in job["data"].items()}
    lines = ["", f"on {plan['on']}; time of all that is to be done: {time}. Memory and times are estimates."]
    lines += ["", *(f"{path}: {'?' if count is None else f'{count:,}'} rows" for path, count in data.items()), ""]
    todo = [job for job in plan["jobs"] if job["plan"] != JobAction.SKIP]
    lines += [f"{job['name']}: {job['command']}" for job in todo[:COMMANDS]]
    return lines + ([f"... and {len(todo) - COMMANDS} more"] if len(todo) > COMMANDS else [])
