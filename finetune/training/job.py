"""The process that trains one job: `python -m finetune.training.job FOLDER`, or torchrun, one process a GPU.

It reads the folder's `job.json`, goes on from the last complete checkpoint, writes `state.json`, and ends
with 0 when the ingredient is complete, with 1 when it failed, and with 143 or 130 when SIGTERM or SIGINT stopped it,
after a checkpoint. Of several processes it is enough to signal one, such as the first, whose number stands in
`state.json`: they stop at the same step. (torchrun itself gives them 30 seconds, and then ends with 1.)
"""

from __future__ import annotations

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
from types import FrameType
from typing import TYPE_CHECKING

from finetune.jobs import SO_IT_WAS, Job, JobStatus, State, has_digest, read_stamp, read_state, write_state
from finetune.training.listener import Listener
from soup.errors import FinetuneError, SoupError

if TYPE_CHECKING:
    from finetune.training.trainer import StopRequest

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


class StateFile(Listener):
    """The job's `state.json`, written by the first process alone, at most once a second while it trains."""

    def __init__(self, folder: Path, rank: int):
        self.folder, self.first = folder, rank == 0
        before = read_state(folder)
        attempt = 1 if before is None else before.attempt + (before.phase != JobStatus.WAITING)
        now = time.time()
        self.before = before
        self.state = State(JobStatus.RUNNING, attempt=attempt, started=now, pid=os.getpid(), host=socket.gethostname())
        self.written = 0.0
        self.write()

    def step(self, step: int, steps: int, loss: float, pace: float) -> None:
        """Write a step, into the log as well."""
        self.state = replace(self.state, step=step, steps=steps, loss=loss, seconds_per_step=pace)
        if step == steps or time.monotonic() - self.written > EVERY_SECONDS:
            log.info("step %d of %d: loss %.4f, %.2f s a step", step, steps, loss, pace)
            self.write()

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Write what the model scored on the way, into the log as well."""
        self.state = replace(self.state, scores=scores, scored_step=step)
        log.info("step %d: %s", step, ", ".join(f"{name} {score:.2f}" for name, score in scores.items()))
        self.write()

    def losses(self, step: int, loss: float, best: int) -> None:
        """Write the loss on what is held out, into the log as well."""
        self.state = replace(self.state, validation_loss=loss, validated_step=step, best_step=best)
        log.info("step %d: loss on what is held out %.4f, lowest at step %d", step, loss, best)
        self.write()

    def shares(self, step: int, shares: dict[str, float]) -> None:
        """Write the categories' shares where they follow the model, into the log as well."""
        self.state = replace(self.state, shares=shares, shares_step=step)
        log.info("step %d: %s", step, ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
        self.write()

    def write(self, state: State | None = None) -> None:
        """Write the state, which may be a new one."""
        self.state = replace(state or self.state, updated=time.time())
        if self.first:
            write_state(self.folder, self.state)
            self.written = time.monotonic()

    def end(self, status: JobStatus, why: str) -> None:
        """Write how it ended, by whichever process: the first failure stays, the other processes fail because of it."""
        now = read_state(self.folder)
        if now and now.phase == JobStatus.FAILED and now.attempt == self.state.attempt:
            return
        if not self.first and status == JobStatus.FAILED and now and now.phase == JobStatus.RUNNING:
            self.state, self.first = now, True
        if self.first:
            before = self.before if self.before and self.before.phase == JobStatus.FAILED else None
            if before and (before.why or "").partition(f"\n{SO_IT_WAS}")[0] == why:
                why = f"{why}\n{SO_IT_WAS}{before.attempt}."
            self.write(replace(self.state, phase=status, why=why))


def run(folder: Path) -> int:
    """Train the job of a folder, and give the process's exit code."""
    try:
        job, digest = Job.read(folder)
    except FinetuneError as error:
        print(f"{folder}: no job.json of ours ({error})", file=sys.stderr)
        return 1
    state_file = StateFile(folder, int(os.environ.get("RANK", "0")))
    try:
        code = _train(job, digest, state_file)
        _leave_process_group()
    except StoppedError as stopped:
        state_file.end(JobStatus.STOPPED, f"{signal.Signals(stopped.number).name}, which left no time for a checkpoint")
        return SIGNALS[signal.Signals(stopped.number)]
    except SoupError as error:
        print(error, file=sys.stderr)
        state_file.end(JobStatus.FAILED, str(error))
    except Exception as error:
        traceback.print_exc()
        why = explain_error(error, folder)
        _remove_unfinished(folder)
        state_file.end(JobStatus.FAILED, why)
    else:
        return code
    return 1


def _train(job: Job, digest: str, state_file: StateFile) -> int:
    """Train, unless just this ingredient is there already; gives the exit code."""
    stamp = read_stamp(job.out)
    if stamp and has_digest(job.out, digest):
        step, loss = stamp["steps"], stamp["last_loss"]
        state_file.write(replace(state_file.state, phase=JobStatus.DONE, step=step, steps=step, loss=loss))
        return 0
    if job.out.exists():
        raise FinetuneError(f"{job.out}: stands there already. Move it away, or name another `out`.")
    from finetune.training.trainer import StopRequest

    stop = StopRequest()
    _listen(stop)
    from finetune.training.best_model import remove_others
    from finetune.training.train import train_job

    if not train_job(job, digest, stop, state_file):
        name = signal.Signals(stop.signal).name
        state_file.end(JobStatus.STOPPED, f"{name}; a checkpoint of step {state_file.state.step} was written")
        return SIGNALS[signal.Signals(stop.signal)]
    if state_file.first:
        for name in ("checkpoints", "part"):
            shutil.rmtree(job.folder / name, ignore_errors=True)
        remove_others(job.folder, None)
    state_file.write(replace(state_file.state, phase=JobStatus.DONE))
    return 0


def _listen(stop: StopRequest) -> None:
    """Handle signals: the first asks for a checkpoint and the end; before the first step, or again, it ends at once.

    SLURM signals all processes of a job, and torchrun passes on to its own what they received already: one signal.
    """
    first = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not stop.possible or (stop.signal and time.monotonic() - first > ECHO_SECONDS):
            raise StoppedError(number)
        first = first if stop.signal else time.monotonic()
        stop.signal = stop.signal or number

    for number in SIGNALS:
        signal.signal(number, handle)


def _remove_unfinished(folder: Path) -> None:
    """Remove what was not finished: on a full disk there is then space for the state."""
    for name in ("checkpoints/part", "part"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _leave_process_group() -> None:
    """Leave the group of processes that train together, where there is one."""
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def explain_error(error: Exception, folder: Path) -> str:
    """Put an error of a library into a sentence: what it is, and what to do where we know."""
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
    """Run the command line: one folder."""
    if len(arguments) != 1:
        print("usage: python -m finetune.training.job FOLDER", file=sys.stderr)
        return 2
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("finetune").setLevel(logging.INFO if first else logging.WARNING)
    return run(Path(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
