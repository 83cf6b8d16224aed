"""Where jobs run: one face, and three engines behind it, each in a file of its own.

    local    this host's GPUs, shared out as slots, or processes where it has none
    slurm    an array of commands, by submitit
    ray      tasks of a Ray cluster around the same commands

An engine knows of commands and job folders, and nothing of models. All engines need the job folders where the jobs run:
on several machines, a file system that they share.
"""

import json
import os
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from finetune.config import FinetuneConfig
from soup.errors import FinetuneError
from soup.support.atomic_files import write_atomic

__all__ = [
    "Ended",
    "Engine",
    "Task",
    "engine_name",
    "is_alive",
    "open_engine",
    "read_place",
    "slurm_queue",
    "write_place",
]

PLACE = "place.json"
ENGINES = {"local": "LocalEngine", "slurm": "SlurmEngine", "ray": "RayEngine"}
NEEDS = {"submitit": "slurm", "ray": "ray"}  # packages, and the extra that holds each


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
        """Where the command's words go, behind those of earlier attempts."""
        return self.folder / "log.txt"


@dataclass(frozen=True)
class Ended:
    """A task is over: by which exit code (negative: by that signal; None: nobody knows), and what else is known."""

    name: str
    code: int | None
    why: str | None = None


class Engine(Protocol):
    """Runs tasks, as many at once as there is room for.

    `chains`: it holds a task back by itself until the one that it comes after is done; else the caller does.
    `pause_seconds`: between two polls.
    """

    chains: bool
    pause_seconds: float

    def describe(self) -> str:
        """Where tasks run, for people: `2 GPUs of this host, 1 a job`.

        Raises:
            FinetuneError: the room that a job needs is not there.
        """

    def adopt(self, task: Task) -> bool:
        """Whether the task still runs, or waits, from an earlier call; it is then watched like one's own."""

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue tasks. One that another task comes after is in an earlier place, or was submitted before."""

    def poll(self) -> list[Ended]:
        """What ended since the last call; starts what there is room for now."""

    def stop(self) -> None:
        """Ask all tasks to stop after a checkpoint; those that have not begun never will, and are told as ended."""

    def kill(self) -> None:
        """End all tasks at once."""

    def close(self) -> None:
        """Let go of what the engine holds; nothing runs any more, or it was adopted by nobody."""


def open_engine(on: str, config: FinetuneConfig) -> Engine:
    """The engine of that name: `local`, `slurm`, `ray` or `ray:ADDRESS`.

    Raises:
        FinetuneError: no such engine, or a package that it needs is missing.
    """
    return _room(on)(config, on.partition(":")[2])


def engine_name(on: str) -> str:
    """The engine's name alone.

    Raises:
        FinetuneError: no such engine.
    """
    name, colon, address = on.partition(":")
    if name not in ENGINES or (colon and (name != "ray" or not address)):
        raise FinetuneError(f"--executor {on}: no such executor. Expected local, slurm, ray or ray:ADDRESS.")
    return name


def _room(on: str) -> Any:
    name = engine_name(on)
    try:
        return getattr(import_module(f"finetune.launching.engines.{name}"), ENGINES[name])
    except ImportError as error:
        extra = NEEDS.get((error.name or "").partition(".")[0], "finetune")
        raise FinetuneError(f"--executor {name} needs {error.name}: pip install 'vlm-soup[{extra}]'") from error


def write_place(task: Task, on: str, **where: Any) -> None:
    """Note where a task runs and by which command, for whoever asks later."""
    document = {"on": on, **where, "command": list(task.command), "submitted": time.time()}
    write_atomic(task.folder / PLACE, json.dumps(document, indent=2) + "\n")


def read_place(folder: Path) -> dict[str, Any] | None:
    """Where a job last ran, or nothing."""
    try:
        found = json.loads((folder / PLACE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("on") in ENGINES else None


def slurm_queue(folders: Iterable[Path]) -> Collection[str] | None:
    """Those of the folders' jobs that SLURM still has to do, asked once; None where it does not answer."""
    places = [place for folder in folders if (place := read_place(folder)) and place["on"] == "slurm"]
    if not places:
        return ()
    try:
        from finetune.launching.engines.slurm import queued
    except ImportError:
        return None
    return queued([place["job"] for place in places])


def is_alive(folder: Path, queue: Collection[str] | None = None) -> bool | None:
    """Whether the job's last attempt still runs or waits; None where this can't be seen from here.

    `queue` are the jobs that SLURM still has to do, for who asks about many (`slurm_queue`).
    """
    place = read_place(folder)
    if place is None:
        return False
    if place["on"] == "slurm":
        queue = slurm_queue([folder]) if queue is None else queue
        return None if queue is None else place["job"] in queue
    if place["on"] == "ray":
        from finetune.launching.engines.attempt import beats

        return beats(folder)
    from finetune.launching.engines.processes import is_running

    return is_running(place["pid"], place["born"]) if place["host"] == os.uname().nodename else None
