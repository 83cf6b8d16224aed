"""How a job ended, in words: from its exit code, its state, its checkpoint, and the last lines of its log."""

import re
import signal
from dataclasses import dataclass
from typing import Literal

from finetune.jobs import Job, State, log_tail, read_stamp, read_state
from finetune.launching.executors.protocol import TaskExit
from soup.support.disk_space import free_space

__all__ = ["Ending", "judge"]

STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)

# What is known of an error that more attempts would not cure.
HINTS = (
    (r"No space left on device|Disk quota exceeded|ENOSPC", "the disk is full ({free} free at {place})"),
    (r"CUDA out of memory|OutOfMemoryError", "a GPU's memory is too small: lower micro_batch, gradient_checkpointing"),
    (r"GPU is lost|fallen off the bus|no CUDA-capable device|uncorrectable ECC", "a GPU is lost: nvidia-smi, dmesg"),
    (r"CUDA error|CUDNN_STATUS|NCCL error", "a GPU failed: nvidia-smi, dmesg"),
)


@dataclass(frozen=True)
class Ending:
    """What became of a job: done, failed (with why), stopped by a signal and to be gone on with, or not started."""

    phase: Literal["done", "failed", "stopped", "not started"]
    why: str = ""


def judge(job: Job, digest: str, ended: TaskExit, before: State | None = None, *, asked: bool = False) -> Ending:
    """What a task's end means; only a complete checkpoint with the right digest is `done`.

    `before` is the state that the task found: if it is still there, the task said nothing. `asked`: we stopped it.
    """
    if (read_stamp(job.out) or {}).get("digest") == digest:
        return Ending("done")
    state, code = read_state(job.folder), ended.code
    state = None if state == before else state
    if (state and state.phase == "stopped") or code in STOPPED or asked:
        where = f"stopped at step {state.step} of {state.steps}" if state and state.step else "stopped"
        return Ending("stopped", ended.why or where)
    if ended.why:
        return Ending("failed", ended.why)
    said = state.why if state and state.phase == "failed" and state.why else _by_code(code, job)
    return Ending("failed", said + _hint(job, said))


def _by_code(code: int | None, job: Job) -> str:
    if code == 0:
        return f"ended well, but left no checkpoint at {job.out}"
    if code is None:
        return "is gone, and said nothing of why"
    if code >= 0:
        return f"ended with exit code {code}"
    own = " (the kernel does so when memory runs out)" if -code == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{own}"


def _hint(job: Job, said: str) -> str:
    text = f"{said}\n{log_tail(job.folder, 60)}"
    for pattern, hint in HINTS:
        if re.search(pattern, text):
            space = free_space(job.folder)
            free = f"{space.bytes / 2**30:.1f} GiB"
            known = any(word in said for word in ("disk is full", "micro_batch"))  # the job said so itself
            return "" if known else f"; {hint.format(free=free, place=space.location)}"
    return ""
