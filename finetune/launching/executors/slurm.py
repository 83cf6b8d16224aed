"""SLURM: the start as one job, the ingredients as an array behind it, both by submitit.

What is queued are commands: submitit pickles no code of ours, so that a job that waits for days starts what is
installed then. A job that is preempted, or whose time is over, writes a checkpoint and puts itself back into the queue,
up to `max_requeues` times (`attempt.py` beside this). The launcher may go away: the next one finds the jobs again.

SLURM is asked by squeue alone: sacct needs a data base that many clusters don't have.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import submitit
from submitit.core.utils import CommandFunction, FailedJobError

from finetune.config import LAST_MINUTES, FinetuneConfig, slurm_minutes
from finetune.launching.executors.attempt import MAX_REQUEUES, request_kill, request_stop
from finetune.launching.executors.protocol import Task, TaskExit, read_placement, write_placement
from soup.errors import FinetuneError
from soup.support.text import pluralize

__all__ = ["SlurmExecutor", "queued"]

QUERY_SECONDS = 5.0  # between two calls of squeue: clusters dislike more
GPU_WORDS = ("gres", "gpus", "gpus_per_node", "gpus_per_task")


@dataclass
class SlurmExecutor:
    """Jobs in SLURM's queue; it decides where and when."""

    config: FinetuneConfig
    address: str = ""
    chains: bool = True
    pause_seconds: float = 0.5
    query_seconds: float = field(default_factory=lambda: QUERY_SECONDS)
    _tasks: dict[str, Task] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)  # a task's name, and its job's in SLURM
    _ended: list[TaskExit] = field(default_factory=list)
    _last_query: float = 0.0

    def describe(self) -> str:
        """Name the queue."""
        slurm = self.config.slurm
        where = f"partition {slurm.partition}" if slurm.partition else "the default partition"
        gpus = self.config.gpus_per_job
        return f"SLURM, {where}, {pluralize(gpus, 'GPU')} a job, {slurm.time} each"

    def adopt(self, task: Task) -> bool:
        """Watch a job that is still in the queue."""
        placement = read_placement(task.folder)
        if not placement or placement["on"] != "slurm":
            return False
        if placement["job"] not in (queued([placement["job"]]) or {}):
            return False
        self._tasks[task.name], self._names[task.name] = task, placement["job"]
        return True

    def submit(self, tasks: Sequence[Task]) -> None:
        """Put tasks into the queue: one array for all that come after the same job.

        Raises:
            FinetuneError: SLURM does not take them.
        """
        for after in dict.fromkeys(task.after for task in tasks):
            group = [task for task in tasks if task.after == after]
            for task, job in zip(group, self._submitted(group, after), strict=True):
                self._tasks[task.name], self._names[task.name] = task, job
                write_placement(task, {"on": "slurm", "job": job})

    def _submitted(self, tasks: Sequence[Task], after: str | None) -> list[str]:
        """Submit tasks, and give the names that SLURM gave them."""
        folder = tasks[0].folder.parent / "slurm"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            executor = submitit.SlurmExecutor(folder=folder)
            executor.update_parameters(**self._parameters(tasks, self._names.get(after or "")))
            jobs = executor.submit_array([CommandFunction(_attempt(task), verbose=False) for task in tasks])
        except (FailedJobError, RuntimeError, ValueError, OSError, subprocess.SubprocessError) as error:
            output = getattr(error.__cause__, "stderr", None) or getattr(error, "stderr", None) or error
            raise FinetuneError(f"--executor slurm: {output}".strip()) from error
        return [job.job_id for job in jobs]

    def _parameters(self, tasks: Sequence[Task], after: str | None) -> dict[str, Any]:
        """Return the parameters for submitit; those that the configuration names itself come last."""
        slurm, gpus = self.config.slurm, self.config.gpus_per_job
        extra = {name.replace("-", "_"): value for name, value in slurm.extra.items()}
        ours = {
            "job_name": f"soup-{tasks[0].name}" if len(tasks) == 1 else f"soup-{tasks[0].folder.parent.stem}",
            "time": slurm_minutes(slurm.time),
            "partition": slurm.partition,
            "account": slurm.account,
            "cpus_per_task": slurm.cpus_per_gpu * max(1, gpus),
            "mem": slurm.memory,
            "gpus_per_node": gpus if gpus and not extra.keys() & set(GPU_WORDS) else None,
            "dependency": f"afterok:{after}" if after else None,
            "array_parallelism": slurm.at_once or self.config.jobs_at_once or len(tasks),
            "setup": [f"export {MAX_REQUEUES}={slurm.max_requeues}"],
        }
        # submitit's own signal would end the command: it asks for checkpoints of another kind. It lets SIGTERM pass.
        additional = {"signal": f"TERM@{60 * LAST_MINUTES}", "kill-on-invalid-dep": "yes", "requeue": True}
        additional |= {name.replace("_", "-"): value for name, value in extra.items()}
        parameters = {name: value for name, value in ours.items() if value is not None and name not in extra}
        return {**parameters, "additional_parameters": additional, "stderr_to_stdout": True}

    def poll(self) -> list[TaskExit]:
        """Give the jobs that left the queue; their folders tell what became of them."""
        ended, self._ended = self._ended, []
        if self._names and time.monotonic() - self._last_query > self.query_seconds:
            self._last_query = time.monotonic()
            in_queue = queued(self._names.values())
            if in_queue is not None:  # else SLURM did not answer: it will
                left_queue = [name for name, job in self._names.items() if job not in in_queue]
                ended += [TaskExit(name, None, self._why(name, self._names.pop(name))) for name in left_queue]
        return ended

    def _why(self, name: str, job: str) -> str | None:
        """Why a job ended, where its folder can't tell: SLURM's reason, or that it never began."""
        task = self._tasks[name]
        log = task.folder.parent / "slurm" / f"{job}_0_log.out"
        never_began = f"never began; SLURM's own log of it: {log}"
        return _slurm_reason(job) or (None if task.log.exists() else never_began)

    def stop(self) -> None:
        """Ask jobs that run to stop, and cancel those that wait."""
        states = queued(self._names.values()) or {}
        for name, job in list(self._names.items()):
            with suppress(OSError):
                request_stop(self._tasks[name].folder)
            if states.get(job) == "PENDING":
                _call("scancel", job)
                self._ended.append(TaskExit(name, 143, "not started"))
                del self._names[name]

    def kill(self) -> None:
        """Cancel all jobs."""
        for name, job in self._names.items():
            with suppress(OSError):
                request_kill(self._tasks[name].folder)
            _call("scancel", job)

    def close(self) -> None:
        """Do nothing: nothing is held."""


def _attempt(task: Task) -> list[str]:
    return [sys.executable, "-P", "-m", "finetune.launching.executors.attempt", str(task.folder), *task.command]


def queued(jobs: Iterable[str]) -> Mapping[str, str] | None:
    """Give those of the jobs that SLURM still has to do, and their states; None where it does not answer."""
    names = set(jobs)
    ids = ",".join(sorted({name.partition("_")[0] for name in names}))
    answer = _call("squeue", "--noheader", "--array", f"--jobs={ids}", "--format=%i|%T")
    if answer is None:
        return None
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return None
    rows = (line.strip().partition("|") for line in answer.stdout.splitlines())
    return {name: state for name, _, state in rows if name in names}


def _slurm_reason(job: str) -> str | None:
    """Why SLURM itself ended a job, as long as it keeps that; None where it did not."""
    answer = _call("scontrol", "show", "job", job, "--oneliner")
    words = dict(word.partition("=")[::2] for word in answer.stdout.split()) if answer else {}
    state, reason = words.get("JobState"), words.get("Reason", "None")
    if state in (None, "COMPLETED", "FAILED"):
        return None
    return f"SLURM ended job {job}: {state}" + (f" ({reason})" if reason != "None" else "")


def _call(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
