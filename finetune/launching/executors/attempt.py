"""One attempt at a job on another machine: `python -m finetune.launching.executors.attempt FOLDER COMMAND...`.

It appends the command's output to the job's log, and passes on requests to stop, which reach it as a signal or as the
file `stop` in the job's folder: a launcher can send no signals to other machines. While it runs, it touches the file
`alive` there. In a job of SLURM that was preempted, or whose time is over, it puts the job back into the queue.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from finetune.launching.executors.processes import end_leftovers, kill_tree, stop_gently
from soup.support.child_process import end_with_parent

__all__ = ["clear_requests", "has_heartbeat", "request_kill", "request_stop", "run_attempt"]

STOP, ALIVE = "stop", "alive"
BEAT_SECONDS = 10
LOST_SECONDS = 120  # without a beat for so long, nobody is there; file systems over a network see times late
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
SIGNALS = (signal.SIGTERM, signal.SIGINT)
MAX_REQUEUES = "SOUP_MAX_REQUEUES"


def request_stop(folder: Path) -> None:
    """Have the attempt in this folder stop after a checkpoint."""
    (folder / STOP).write_text("stop\n", encoding="utf-8")


def request_kill(folder: Path) -> None:
    """Have the attempt in this folder end at once."""
    (folder / STOP).write_text("kill\n", encoding="utf-8")


def clear_requests(folder: Path) -> None:
    """Remove the requests to an earlier attempt, and its heartbeat."""
    for name in (STOP, ALIVE):
        (folder / name).unlink(missing_ok=True)


def has_heartbeat(folder: Path) -> bool:
    """Whether an attempt touched its file lately."""
    try:
        return time.time() - (folder / ALIVE).stat().st_mtime < LOST_SECONDS
    except OSError:
        return False


def run_attempt(folder: Path, command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run the command to its end, and give its exit code (negative: the signal that ended it).

    Args:
        folder: the job's.
        command: what trains it.
        environment: variables beside those of this process.
    """
    if (folder / STOP).exists():  # the request came before the attempt began
        return 143
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,  # as Ray's workers die with their driver: nobody would watch it
            env={**os.environ, "PYTHONSAFEPATH": "1", **(environment or {})},
        )
    try:
        return _watch(folder, process)
    finally:
        if process.poll() is None:
            kill_tree(process.pid)
        process.wait()
        end_leftovers(folder)
        (folder / ALIVE).unlink(missing_ok=True)


def _watch(folder: Path, process: subprocess.Popen[bytes]) -> int:
    handled, beat = "", 0.0
    while True:
        if time.monotonic() - beat > BEAT_SECONDS:
            beat = time.monotonic()
            (folder / ALIVE).touch()
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            pass
        except _StopSignal as stop:
            if stop.number != signal.SIGTERM or "SLURM_JOB_ID" not in os.environ:  # SLURM signals all processes
                stop_gently(process.pid, folder)
        request = _read_request(folder)
        if request == "kill":
            kill_tree(process.pid)
        elif request and not handled:
            stop_gently(process.pid, folder)
        handled = handled or request


def _read_request(folder: Path) -> str:
    try:
        return (folder / STOP).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


class _StopSignal(BaseException):
    """A signal asked this attempt to stop."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(number)


def _raise_stop(number: int, frame: FrameType | None) -> None:
    for handled in SIGNALS:  # SLURM sends it several times
        signal.signal(handled, signal.SIG_IGN)
    raise _StopSignal(number)


def _requeue(folder: Path, code: int) -> bool:
    """Put a stopped job of SLURM back into its queue, unless a person stopped it or it was there often enough."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = "_".join(map(str, job)) if all(job) else os.environ.get("SLURM_JOB_ID")
    restarts, most = (int(os.environ.get(key, "0")) for key in ("SLURM_RESTART_COUNT", MAX_REQUEUES))
    if not name or code not in STOPPED or _read_request(folder) or restarts >= most:
        return False
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        print(f"stopped by SLURM; back into the queue as {name}, for the {restarts + 1}. time", file=log)
    return subprocess.run(["scontrol", "requeue", name], timeout=60, check=False).returncode == 0


def main() -> None:
    """Run the command of the arguments, and exit as it did."""
    folder, command = Path(sys.argv[1]), sys.argv[2:]
    for number in SIGNALS:
        signal.signal(number, _raise_stop)
    try:
        code = run_attempt(folder, command)
    except _StopSignal:
        code = 143
    if _requeue(folder, code):
        time.sleep(60)  # SLURM ends this step now: an exit before it does would be taken for the job's end
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
