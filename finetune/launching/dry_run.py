"""What a launch would do: the jobs, their commands, and what each would take. It starts nothing and writes nothing."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune.jobs import Job, job_command
from finetune.launching.estimates import Estimate, estimate, smallest_gpu_bytes
from finetune.launching.executors.local import local_gpus
from finetune.launching.executors.registry import executor_name
from finetune.launching.job_plans import Survey, survey
from finetune.launching.status import duration
from soup.support.text import format_bytes

__all__ = ["HEAD", "details", "rehearse", "rows"]

COMMANDS = 20  # are shown; --json has all of them
HEAD = ("job", "plan", "rows", "steps", "parameters", "trained", "GPUs", "memory each", "time")


def rehearse(
    config_path: Path | str, *, executor: str | None = None, command: Callable[[Job, int], Sequence[str]] = job_command
) -> dict[str, Any]:
    """The plan of a launch as one document.

    Raises:
        FinetuneError: what would keep it from starting.
    """
    found = survey(config_path, writing=False)
    where = executor_name(executor or found.config.executor)
    gpus = found.config.gpus_per_job
    everything = [one.job for one in found.jobs]
    jobs = []
    for one in found.jobs:
        guess = estimate(one.job, found.contents, gpus, everything)
        jobs.append(
            {
                **guess.as_json(),
                "plan": one.plan,
                "after": one.job.after,
                "start": one.job.start,
                "data": {data.path: found.contents[data.path].rows for data in one.job.data},
                "out": str(one.job.out),
                "gpus": gpus if where != "local" or local_gpus() else 0,
                "command": shlex.join(command(one.job, gpus)),
            }
        )
    remarks = [*found.remarks, *_remarks(found, where, jobs)]
    return {"schema": 1, "on": where, "jobs": jobs, "seconds": _seconds(found, jobs), "remarks": remarks}


def _remarks(found: Survey, where: str, jobs: Sequence[dict[str, Any]]) -> list[str]:
    """What a person would want to know before a Friday evening's launch."""
    remarks = []
    has = smallest_gpu_bytes() if where == "local" else None
    needs = max((job["memory_bytes"] or 0 for job in jobs), default=0)
    if has and needs > has:
        remarks.append(
            f"a job is estimated to need {format_bytes(needs)} of a GPU's memory, and the smallest here has "
            f"{format_bytes(has)}: gradient_checkpointing, micro_batch, lora or parallel: fsdp make it less"
        )
    if where == "local" and found.config.gpus_per_job > 1 and not local_gpus():
        remarks.append(f"there is no GPU here: a job is {found.config.gpus_per_job} processes on the CPU")
    return remarks


def _seconds(found: Survey, jobs: Sequence[dict[str, Any]]) -> float | None:
    """How long all that is to be done takes on this host, the start first; None where a job's time is unknown."""
    todo = [job for job in jobs if job["plan"] != "done"]
    if any(job["seconds"] is None for job in todo):
        return None
    slots = len(local_gpus()) // max(1, found.config.gpus_per_job) or found.config.jobs_at_once or 1
    slots = min(slots, found.config.jobs_at_once or slots)
    first = sum(job["seconds"] for job in todo if any(other["after"] == job["name"] for other in todo))
    rest = [job["seconds"] for job in todo if not any(other["after"] == job["name"] for other in todo)]
    return first + max([sum(rest) / slots, *rest], default=0.0)


def rows(plan: dict[str, Any]) -> list[tuple[str, ...]]:
    """A plan's jobs as texts, for the columns of `HEAD`."""
    return [_cells(job) for job in plan["jobs"]]


def _cells(job: dict[str, Any]) -> tuple[str, ...]:
    guess = Estimate(**{name: job[name] for name in Estimate.__dataclass_fields__})
    known = [guess.rows, guess.steps, guess.parameters, guess.trained]
    counts = ["?" if count is None else f"{count:,}" for count in known]
    memory = "?" if guess.memory_bytes is None else f"about {format_bytes(guess.memory_bytes)}"
    time = "?" if guess.seconds is None else f"about {duration(guess.seconds)}"
    return (guess.name, job["plan"], *counts, str(job["gpus"] or "CPU"), memory, time)


def details(plan: dict[str, Any]) -> list[str]:
    """What does not fit into columns: where, how long all of it takes, the data sets' rows, the commands."""
    time = "unknown: no job of this kind ran here yet" if plan["seconds"] is None else duration(plan["seconds"])
    data = {path: count for job in plan["jobs"] for path, count in job["data"].items()}
    lines = ["", f"on {plan['on']}; time of all that is to be done: {time}. Memory and times are estimates."]
    lines += ["", *(f"{path}: {'?' if count is None else f'{count:,}'} rows" for path, count in data.items()), ""]
    todo = [job for job in plan["jobs"] if job["plan"] != "done"]
    lines += [f"{job['name']}: {job['command']}" for job in todo[:COMMANDS]]
    return lines + ([f"... and {len(todo) - COMMANDS} more"] if len(todo) > COMMANDS else [])
