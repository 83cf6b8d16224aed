"""Processes of this host: whether one still runs, ending it with all that it started, and a folder's launcher."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TypedDict, cast

import psutil

from finetune.jobs import read_state
from soup.errors import FinetuneError
from soup.support.atomic_files import write_atomic
from soup.support.json_text import read_json_object

__all__ = [
    "end_leftovers",
    "is_running",
    "job_process",
    "kill_tree",
    "process_tree",
    "read_launcher",
    "remove_launcher",
    "start_time",
    "stop_gently",
    "write_launcher",
]

LAUNCHER = "launcher.json"
JOB = "finetune.training.job"  # the module that trains a job


def _process(pid: int) -> psutil.Process:
    """Give a process; a number that none can have counts as one that is gone: it was read from a file.

    Raises:
        psutil.NoSuchProcess: there is none.
    """
    try:
        return psutil.Process(pid)
    except ValueError as error:
        raise psutil.NoSuchProcess(pid) from error


def start_time(pid: int) -> float | None:
    """Give when a process was started, which a later one of the same number is told from; None if it is gone."""
    try:
        return _process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def is_running(pid: int, started: float | None) -> bool:
    """Whether just this process is there and not a zombie.

    Args:
        pid: the process.
        started: when it was, in seconds since the epoch: a later process may have the same number.
    """
    try:
        process = _process(pid)
        return abs(process.create_time() - (started or 0)) < 0.1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def process_tree(pid: int) -> list[psutil.Process]:
    """Give a process and all that it started: torchrun's workers have sessions of their own, a group misses them."""
    try:
        parent = _process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def job_process(folder: Path) -> int | None:
    """Give the process of this host that trains a folder's job by its state.json, whoever started it, or None."""
    state = read_state(folder)
    if state is None or state.phase != "running" or state.host != os.uname().nodename or state.pid is None:
        return None
    try:
        return state.pid if str(folder) in _process(state.pid).cmdline() else None
    except psutil.Error:
        return None


def stop_gently(pid: int, folder: Path) -> None:
    """Ask a job to stop after a checkpoint: its first process, which tells the others.

    torchrun itself would tell all of them, and kill them after 30 seconds, in the midst of a large checkpoint.
    """
    state = read_state(folder)
    training = [
        process for process in process_tree(pid) if state and process.pid == state.pid and state.phase == "running"
    ]
    with suppress(psutil.NoSuchProcess):
        (training[0] if training else _process(pid)).terminate()


def kill_tree(pid: int) -> None:
    """End a process and all that it started, at once."""
    for process in process_tree(pid):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def end_leftovers(folder: Path) -> None:
    """End what a job's process left behind: torchrun that is killed leaves its workers to hold their GPUs for ever."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if JOB in words and str(folder) in words:
            with suppress(psutil.Error):
                process.kill()


class _Launcher(TypedDict):
    host: str
    pid: int
    born: float


def write_launcher(folder: Path) -> None:
    """Write down that this process is the launcher of the jobs in a folder."""
    launcher = {"host": os.uname().nodename, "pid": os.getpid(), "born": start_time(os.getpid())}
    write_atomic(folder / LAUNCHER, json.dumps(launcher) + "\n")


def read_launcher(folder: Path) -> str | None:
    """Give the launcher of the jobs in a folder, for people: `process 7 on host`; None if none runs."""
    try:
        launcher = cast("_Launcher", read_json_object(folder / LAUNCHER, FinetuneError))
        host, pid, born = launcher["host"], launcher["pid"], launcher["born"]
        runs = host != os.uname().nodename or is_running(pid, born)
    except (FinetuneError, OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return f"process {pid} on {host}" if runs else None


def remove_launcher(folder: Path) -> None:
    """Remove what `write_launcher` wrote."""
    (folder / LAUNCHER).unlink(missing_ok=True)
