"""What an executor is given and gives back, and the file in a job's folder that says where it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict, cast

from soup.errors import FinetuneError
from soup.support.atomic_files import write_atomic
from soup.support.json_text import read_json_object

__all__ = ["EXECUTORS", "Executor", "Placement", "Task", "TaskExit", "read_placement", "write_placement"]

EXECUTORS = ("local", "slurm", "ray")
PLACEMENT = "place.json"


@dataclass(frozen=True)
class Task:
    """A command to run for a job's folder; `after` names the task that must end well before."""

    name: str
    folder: Path
    command: tuple[str, ...]
    gpus: int
    after: str | None = None

    @property
    def log(self) -> Path:
        """The file that the command's output is appended to, behind that of earlier attempts."""
        return self.folder / "log.txt"


@dataclass(frozen=True)
class TaskExit:
    """A task is over: by which exit code (negative: by that signal; None: nobody knows), and what else is known."""

    name: str
    code: int | None
    why: str | None = None


class Placement(TypedDict, total=False):
    """Where a job's last attempt runs, as `place.json` has it: which executor, and how that finds the attempt again.

    on         the executor's name
    host       local: the machine; with `pid`, `born` (when the process started) and `slot` (its GPUs)
    job        slurm: the job's number
    address    ray: the cluster's
    command    what runs; `submitted`: when, in seconds since the epoch
    """

    on: str
    host: str
    pid: int
    born: float | None
    slot: str
    job: str
    address: str
    command: list[str]
    submitted: float


class Executor(Protocol):
    """Runs tasks, as many at once as there are GPUs or slots for.

    `chains`: it holds a task back by itself until the one that it comes after is done; else the caller does.
    `pause_seconds`: between two polls.
    """

    chains: bool
    pause_seconds: float

    def describe(self) -> str:
        """Where tasks run, for people: `2 GPUs of this host, 1 a job`.

        Raises:
            FinetuneError: there are fewer GPUs than a job needs.
        """

    def adopt(self, task: Task) -> bool:
        """Watch a task that still runs or waits from an earlier call like one of this call; whether it does."""

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue tasks. A task that another one comes after stands before it in `tasks`, or was submitted before."""

    def poll(self) -> list[TaskExit]:
        """Give what ended since the last call, and start what there are free slots for now."""

    def stop(self) -> None:
        """Ask all tasks to stop after a checkpoint; `poll` gives those that have not begun as ended."""

    def kill(self) -> None:
        """End all tasks at once."""

    def close(self) -> None:
        """Release what the executor holds; nothing runs any more, or it was adopted by nobody."""


def write_placement(task: Task, placement: Placement) -> None:
    """Write where a task runs and by which command into its folder.

    Args:
        task: what was started.
        placement: the executor's name, and how it finds the task again.
    """
    document = {**placement, "command": list(task.command), "submitted": time.time()}
    write_atomic(task.folder / PLACEMENT, json.dumps(document, indent=2) + "\n")


_NEEDED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "local": {"host": str, "pid": int, "born": (float, int, type(None))},
    "slurm": {"job": str},
    "ray": {"address": str},
}


def read_placement(folder: Path) -> Placement | None:
    """Read where a job last ran; None where that is not known, or not written to its end."""
    try:
        document = read_json_object(folder / PLACEMENT, FinetuneError)
    except FinetuneError:
        return None
    needed = _NEEDED.get(str(document.get("on")), {"on": str})
    is_whole = all(key in document and isinstance(document[key], kind) for key, kind in needed.items())
    return cast("Placement", document) if is_whole and document.get("on") in EXECUTORS else None
