"""Processes of this host: whether one still runs, ending it with all that it started, and who looks after jobs."""

import json
import os
from contextlib import suppress
from pathlib import Path

import psutil

from finetune.jobs import read_state
from soup.support.atomic_files import write_atomic

__all__ = [
    "born",
    "end_leftovers",
    "family",
    "forget_launcher",
    "is_running",
    "job_process",
    "kill_family",
    "launcher_of",
    "note_launcher",
    "stop_gently",
]

LAUNCHER = "launcher.json"
JOB = "finetune.training.job"  # the module that trains a job


def born(pid: int) -> float | None:
    """When a process was started, by which it is told from a later one of the same number; None if it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def is_running(pid: int, since: float | None) -> bool:
    """Whether just this process is there and not a zombie."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - (since or 0)) < 0.1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(pid: int) -> list[psutil.Process]:
    """A process and all that came from it: torchrun's workers have sessions of their own, a group misses them."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def job_process(folder: Path) -> int | None:
    """The process of this host that trains a folder's job by its own word, whoever started it; None if it is gone."""
    state = read_state(folder)
    if state is None or state.phase != "running" or state.host != os.uname().nodename or state.pid is None:
        return None
    try:
        return state.pid if str(folder) in psutil.Process(state.pid).cmdline() else None
    except psutil.Error:
        return None


def stop_gently(pid: int, folder: Path) -> None:
    """Ask a job to stop after a checkpoint: its first process, which tells the others.

    torchrun itself would tell all of them, and kill them after 30 seconds, in the midst of a large checkpoint.
    """
    state = read_state(folder)
    inner = [process for process in family(pid) if state and process.pid == state.pid and state.phase == "running"]
    with suppress(psutil.NoSuchProcess):
        (inner[0] if inner else psutil.Process(pid)).terminate()


def kill_family(pid: int) -> None:
    """End a process and all that came from it, at once."""
    for process in family(pid):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def end_leftovers(folder: Path) -> None:
    """End what a job's process left behind: torchrun that is killed leaves its workers to hold their GPUs for ever."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if JOB in words and str(folder) in words:
            with suppress(psutil.Error):
                process.kill()


def note_launcher(folder: Path) -> None:
    """Put down that this process looks after the jobs of a folder."""
    own = {"host": os.uname().nodename, "pid": os.getpid(), "born": born(os.getpid())}
    write_atomic(folder / LAUNCHER, json.dumps(own) + "\n")


def launcher_of(folder: Path) -> str | None:
    """The process that looks after the jobs of a folder, for people: `process 7 on host`; None if there is none."""
    try:
        found = json.loads((folder / LAUNCHER).read_text(encoding="utf-8"))
        there = found["host"] != os.uname().nodename or is_running(found["pid"], found["born"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"process {found['pid']} on {found['host']}" if there else None


def forget_launcher(folder: Path) -> None:
    """This process looks after the jobs no more."""
    (folder / LAUNCHER).unlink(missing_ok=True)
