"""How a job ended, in words: from its exit code, its state, its checkpoint, and the last lines of its log."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.jobs import SO_IT_WAS, Job, JobStatus, State, attempt_end, has_digest, read_stamp, read_state, rows_lost
from finetune.launching.executors.protocol import TaskExit
from soup.support.disk_space import free_space
from soup.support.text import format_bytes, pluralize

__all__ = ["JobOutcome", "classify_exit", "failure_report", "rows_left_out"]

STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)

# What is known of an error that more attempts would not cure.
HINTS = (
    (r"No space left on device|Disk quota exceeded|ENOSPC", "the disk is full ({free} free at {folder})"),
    (r"CUDA out of memory|OutOfMemoryError", "a GPU's memory is too small: lower micro_batch, gradient_checkpointing"),
    (r"GPU is lost|fallen off the bus|no CUDA-capable device|uncorrectable ECC", "a GPU is lost: nvidia-smi, dmesg"),
    (r"CUDA error|CUDNN_STATUS|NCCL error", "a GPU failed: nvidia-smi, dmesg"),
)


@dataclass(frozen=True)
class JobOutcome:
    """What became of a job: done, failed (with why), stopped by a signal and to be resumed, or not started."""

    status: JobStatus
    why: str = ""


def classify_exit(
    job: Job, digest: str, task_exit: TaskExit, before: State | None = None, *, interrupted: bool = False
) -> JobOutcome:
    """Give what a task's exit means for its job; only a complete checkpoint with the right digest is `done`.

    Args:
        job: what the task trained.
        digest: the job's.
        task_exit: the exit code, and what the executor knows.
        before: the state when the task was started: where it still stands, the task wrote none.
        interrupted: the launcher asked the task to stop.
    """
    if has_digest(job.out, digest):
        return JobOutcome(JobStatus.DONE)
    state, code = read_state(job.folder), task_exit.code
    state = None if state == before else state
    if (state and state.phase == JobStatus.STOPPED) or code in STOPPED or interrupted:
        where = f"stopped at step {state.step} of {state.steps}" if state and state.step else "stopped"
        return JobOutcome(JobStatus.STOPPED, task_exit.why or where)
    if task_exit.why:
        return JobOutcome(JobStatus.FAILED, task_exit.why)
    why = state.why if state and state.phase == JobStatus.FAILED and state.why else _by_code(code, job)
    return JobOutcome(JobStatus.FAILED, why + _hint(job, why))


def rows_left_out(jobs: Sequence[Job]) -> list[str]:
    """Give what jobs left out as bad rows (`on_bad_row: skip`), by count and data set, once for all that share it."""
    users: dict[str, list[str]] = {}
    for job in jobs:
        left_out = ((read_stamp(job.out) or {}).get("mixture") or {}).get("left_out")
        for path, counts in (left_out if isinstance(left_out, dict) else {}).items():
            match counts:
                case [int(bad), int(rows)]:
                    text = f"{bad:,} of {rows:,} rows of {path} were left out as bad rows"
                    users.setdefault(text, []).append(job.name)
    remarks = [f"{text} ({', '.join(names)}): soup finetune --check tells why" for text, names in users.items()]
    return remarks + [
        f"{job.name}: {pluralize(len(lost), 'row')} more, found bad in training, left out; the first: "
        f"{lost[0].removesuffix('.')}. All are in {job.folder / 'log.txt'}"
        for job in jobs
        if (lost := rows_lost(job.folder))
    ]


def failure_report(failed: Sequence[tuple[Job, JobOutcome]], count: int) -> str:
    """Give the error about jobs that are not done, each with the end of its log and its path.

    Args:
        failed: these jobs, and what became of each.
        count: how many jobs there are in all.
    """
    lines = []
    for job, outcome in failed:
        log = job.folder / "log.txt"
        lines.append(f"{job.name} {outcome.status}: {outcome.why}")
        if outcome.status == JobStatus.NOT_STARTED or not log.is_file():
            continue
        if tail := _before_reason(attempt_end(job.folder), outcome.why):
            lines.append("  the end of its log:\n" + "\n".join(f"    {line}" for line in tail))
        lines.append(f"  all of it: {log}")
    mend = any(outcome.status == JobStatus.FAILED for _, outcome in failed)
    lines.append(f"{'When that is mended, the' if mend else 'The'} same command goes on with what is not done.")
    return f"{count - len(failed)} of {pluralize(count, 'job')} done; not done:\n" + "\n".join(lines)


def _before_reason(tail: str, why: str) -> list[str]:
    """Return the last lines of a log, without the reason of the failure where they end with it."""
    lines, reason = tail.splitlines(), [line for line in why.splitlines() if not line.startswith(SO_IT_WAS)]
    common = min(len(lines), len(reason))
    return lines[: len(lines) - common] if common and lines[-common:] == reason[-common:] else lines


def _by_code(code: int | None, job: Job) -> str:
    if code == 0:
        return f"ended well, but left no checkpoint at {job.out}"
    if code is None:
        return "is gone, and said nothing of why"
    if code >= 0:
        return f"ended with exit code {code}"
    kernel = " (the kernel does so when memory runs out)" if -code == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{kernel}"


def _hint(job: Job, why: str) -> str:
    text = f"{why}\n{attempt_end(job.folder, 60)}"
    for pattern, hint in HINTS:
        if re.search(pattern, text):
            space = free_space(job.folder)
            explained = any(words in why for words in ("disk is full", "micro_batch"))  # by the job itself
            return "" if explained else f"; {hint.format(free=format_bytes(space.bytes), folder=space.location)}"
    return ""
