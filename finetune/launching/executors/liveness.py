"""Whether a job's last attempt still runs or waits, whichever executor started it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from finetune.launching.executors.attempt import has_heartbeat
from finetune.launching.executors.processes import is_running
from finetune.launching.executors.protocol import read_placement

__all__ = ["is_alive", "slurm_queue"]


def slurm_queue(folders: Iterable[Path]) -> Collection[str] | None:
    """Give those of the folders' jobs that SLURM still has to do, by one call; None where it does not answer."""
    placements = (read_placement(folder) for folder in folders)
    jobs = [placement["job"] for placement in placements if placement and placement["on"] == "slurm"]
    if not jobs:
        return ()
    try:
        from finetune.launching.executors.slurm import queued
    except ImportError:
        return None
    return queued(jobs)


def is_alive(folder: Path, queue: Collection[str] | None = None) -> bool | None:
    """Whether the job's last attempt still runs or waits; None where this can't be seen from here.

    Args:
        folder: the job's.
        queue: the jobs that SLURM still has to do (`slurm_queue`), for callers that ask about many.
    """
    placement = read_placement(folder)
    if placement is None:
        return False
    if placement["on"] == "slurm":
        queue = slurm_queue([folder]) if queue is None else queue
        return None if queue is None else placement["job"] in queue
    if placement["on"] == "ray":
        return has_heartbeat(folder)
    is_this_host = placement["host"] == os.uname().nodename
    return is_running(placement["pid"], placement["born"]) if is_this_host else None
