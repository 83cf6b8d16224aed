"""How far a job is: its state, and what its log tells."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from finetune.jobs.documents import read_json
from soup.support.atomic_files import write_atomic
from soup.support.log_ends import LINES, last_lines

__all__ = [
    "LEFT_OUT",
    "LOSSES",
    "SO_IT_WAS",
    "JobStatus",
    "State",
    "attempt_end",
    "divide_log",
    "read_state",
    "rows_lost",
    "write_state",
]


LOSSES = "loss.jsonl"  # in a job's folder
LEFT_OUT = "left out: "  # what a log says of a row that turned out to be bad in training
SO_IT_WAS = "So it was in attempt "  # the last line of a reason that an earlier attempt had, too
ATTEMPT = "===== another attempt, begun at "


class JobStatus(StrEnum):
    """How a job stands. Files on disk have the five that its process or launcher wrote; people see all."""

    NOT_STARTED = "not started"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"  # by a signal, after a checkpoint
    LOST = "lost"  # its files say that it runs, and nothing does


@dataclass(frozen=True)
class State:
    """How far a job is, as `state.json` has it. Times are in seconds since the epoch.

    Args:
        phase: Where it stands.
        step: How many steps are done.
        steps: How many there are.
        loss: The last logged one.
        seconds_per_step: What a step takes by now.
        started: When this attempt began.
        updated: When this was written.
        attempt: Which attempt it is, from 1.
        pid: The process that trains.
        host: Its machine.
        why: Why it failed or was stopped.
        scores: The last ones of `evaluate_every`, by benchmark, of the model after `scored_step` steps.
        scored_step: See `scores`.
        validation_loss: The last one on rows that are held out, after `validated_step` steps.
        validated_step: See `validation_loss`.
        best_step: After how many steps it was the lowest so far.
        shares: Of categories that follow the model, as the losses after `shares_step` made them.
        shares_step: See `shares`.
    """

    phase: JobStatus
    step: int = 0
    steps: int = 0
    loss: float | None = None
    seconds_per_step: float | None = None
    started: float | None = None
    updated: float | None = None
    attempt: int = 1
    pid: int | None = None
    host: str | None = None
    why: str | None = None
    scores: dict[str, float] | None = None
    scored_step: int | None = None
    validation_loss: float | None = None
    validated_step: int | None = None
    best_step: int | None = None
    shares: dict[str, float] | None = None
    shares_step: int | None = None


_STATE = TypeAdapter(State)


def read_state(folder: Path) -> State | None:
    """Read the job's state; None where none was written yet."""
    document = read_json(folder / "state.json")
    try:
        return None if document is None else _STATE.validate_python(document)
    except ValidationError:
        return None


def write_state(folder: Path, state: State) -> None:
    """Replace the job's state, all of it at once."""
    write_atomic(folder / "state.json", json.dumps(asdict(state)) + "\n")


def divide_log(folder: Path) -> None:
    """Write a line into a job's log, where it has one, that parts the attempt to come from those before."""
    log = folder / "log.txt"
    if log.is_file() and log.stat().st_size:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"\n{ATTEMPT}{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}\n")


def attempt_end(folder: Path, lines: int = LINES) -> str:
    """Give the last lines that a job's last attempt logged, without reading the whole log."""
    tail = last_lines(folder / "log.txt", lines)
    begins = [i for i, line in enumerate(tail, 1) if line.startswith(ATTEMPT)]
    return "\n".join(tail[begins[-1] if begins else 0 :])


def rows_lost(folder: Path) -> list[str]:
    """List the rows that turned out to be bad in training, each once with the reason, over all attempts."""
    try:
        with (folder / "log.txt").open(errors="replace") as log:
            return sorted({line.split(LEFT_OUT, 1)[1].strip() for line in log if LEFT_OUT in line})
    except OSError:
        return []
