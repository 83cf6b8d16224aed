"""The process that trains one job: `python -m finetune.training.job FOLDER`, or torchrun, one process a GPU.

It reads the folder's `job.json`, goes on from the last complete checkpoint, tells of itself in `state.json`, and ends
with 0 when the ingredient is complete, with 1 when it failed, and with 143 or 130 when SIGTERM or SIGINT stopped it,
after a checkpoint. Of several processes it is enough to signal one, such as the first, whose number stands in
`state.json`: they stop at the same step. (torchrun itself gives them 30 seconds, and then ends with 1.)
"""

import errno
import logging
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.jobs import Job, State, read_stamp, read_state, write_state
from soup.errors import FinetuneError, SoupError

__all__ = ["main", "run"]

log = logging.getLogger("finetune.training.job")  # as a process its name is __main__

SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130}
EVERY_SECONDS = 1.0  # between two writings of the state
ECHO_SECONDS = 3.0  # within which a signal that comes again is the same
FULL = ("No space left on device", "Disk quota exceeded")
TORN = ("PytorchStreamWriter failed", "unexpected pos", "file write failed")  # torch's words for a write cut short


class StoppedError(Exception):
    """A signal came before there was a step to finish, or came twice."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(f"signal {number}")


class Diary:
    """The job's `state.json`, written by the first process alone, at most once a second while it trains."""

    def __init__(self, folder: Path, rank: int):
        self.folder, self.first = folder, rank == 0
        before = read_state(folder)
        attempt = 1 if before is None else before.attempt + (before.phase != "waiting")
        now = time.time()
        self.before = before
        self.state = State("running", attempt=attempt, started=now, pid=os.getpid(), host=socket.gethostname())
        self.written = 0.0
        self.change()

    def step(self, step: int, steps: int, loss: float, pace: float) -> None:
        """Tells of a step, in the log as well."""
        self.state = replace(self.state, step=step, steps=steps, loss=loss, seconds_per_step=pace)
        if step == steps or time.monotonic() - self.written > EVERY_SECONDS:
            log.info("step %d of %d: loss %.4f, %.2f s a step", step, steps, loss, pace)
            self.change()

    def change(self, **fields: Any) -> None:
        """Writes the state as it is now."""
        self.state = replace(self.state, updated=time.time(), **fields)
        if self.first:
            write_state(self.folder, self.state)
            self.written = time.monotonic()

    def end(self, phase: str, why: str) -> None:
        """Tells how it ended, by whichever process: what the first one to fail said stays, the others fail for it."""
        now = read_state(self.folder)
        if now and now.phase == "failed" and now.attempt == self.state.attempt:
            return
        if not self.first and phase == "failed" and now and now.phase == "running":
            self.state, self.first = now, True
        if self.first:
            if self.before and self.before.phase == "failed" and self.before.why == why:
                why = f"{why}\nSo it was in attempt {self.before.attempt}."
            self.change(phase=phase, why=why)


def run(folder: Path) -> int:
    """Trains the job of a folder; gives the process's exit code."""
    try:
        job, digest = Job.read(folder)
    except (OSError, ValueError, KeyError) as error:
        print(f"{folder}: no job.json of ours ({error}).", file=sys.stderr)
        return 1
    diary = Diary(folder, int(os.environ.get("RANK", "0")))
    try:
        code = _trained(job, digest, diary)
        _part()
    except StoppedError as stopped:
        diary.end("stopped", f"{signal.Signals(stopped.number).name}, which left no time for a checkpoint")
        return SIGNALS[signal.Signals(stopped.number)]
    except SoupError as error:
        print(error, file=sys.stderr)
        diary.end("failed", str(error))
    except Exception as error:
        traceback.print_exc()
        why = explained(error, folder)
        _clear(folder)
        diary.end("failed", why)
    else:
        return code
    return 1


def _trained(job: Job, digest: str, diary: Diary) -> int:
    """Trains, unless just this ingredient is there already."""
    stamp = read_stamp(job.out)
    if stamp and stamp.get("digest") == digest:
        diary.change(phase="done", step=stamp["steps"], steps=stamp["steps"], loss=stamp["last_loss"])
        return 0
    if job.out.exists():
        raise FinetuneError(f"{job.out}: stands there already, of another job. Remove it, or name another `out`.")
    from finetune.training.trainer import StopRequest

    stop = StopRequest()
    _listen(stop)
    from finetune.training.train import train_job

    if not train_job(job, digest, diary.step, stop):
        name = signal.Signals(stop.signal).name
        diary.end("stopped", f"{name}; a checkpoint of step {diary.state.step} was written")
        return SIGNALS[signal.Signals(stop.signal)]
    if diary.first:
        for name in ("checkpoints", "part"):
            shutil.rmtree(job.folder / name, ignore_errors=True)
    diary.change(phase="done")
    return 0


def _listen(stop: Any) -> None:
    """The first signal asks for a checkpoint and the end; one before the first step, or a second one, ends at once.

    SLURM signals all processes of a job, and torchrun passes on to its own what they heard already: that is one signal.
    """
    first = 0.0

    def heard(number: int, frame: Any) -> None:
        nonlocal first
        if not stop.possible or (stop.signal and time.monotonic() - first > ECHO_SECONDS):
            raise StoppedError(number)
        first = first if stop.signal else time.monotonic()
        stop.signal = stop.signal or number

    for number in SIGNALS:
        signal.signal(number, heard)


def _clear(folder: Path) -> None:
    """Removes what was not finished: on a full disk there is then room to say so."""
    for name in ("checkpoints/part", "part"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _part() -> None:
    """Takes leave of the other processes, where there are any."""
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def explained(error: Exception, folder: Path) -> str:
    """An error of somebody else's in a sentence: what it is, and what to do where we know."""
    text = f"{type(error).__name__}: {error}"
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(words in text for words in FULL):
        return f"the disk is full: {error}. Make room and start again: the checkpoint before is whole."
    if any(words in text for words in TORN) and shutil.disk_usage(folder).free < 2**24:
        return f"the disk is full ({text.splitlines()[0]}). Make room and start again: the checkpoint before is whole."
    if "out of memory" in text:
        return f"{text.splitlines()[0]} Try a smaller micro_batch, gradient_checkpointing, or parallel: fsdp."
    return text.splitlines()[0]


def main(arguments: list[str]) -> int:
    """The command line: one folder."""
    if len(arguments) != 1:
        print("usage: python -m finetune.training.job FOLDER", file=sys.stderr)
        return 2
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("finetune").setLevel(logging.INFO if first else logging.WARNING)
    return run(Path(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
