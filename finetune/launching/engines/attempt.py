"""One attempt at a job on another machine: `python -m finetune.launching.engines.attempt FOLDER COMMAND...`.

It puts what the command says into the job's log, and passes on the wish to stop, which reaches it as a signal or as the
file `stop` in the job's folder: a launcher can send no signals to other machines. While it runs, it touches the file
`alive` there. In a job of SLURM that was preempted, or whose time is over, it puts the job back into the queue.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from finetune.launching.engines.processes import end_leftovers, kill_family, stop_gently

__all__ = ["ask_to_kill", "ask_to_stop", "beats", "clear_asks", "run_attempt"]

STOP, ALIVE = "stop", "alive"
BEAT_SECONDS = 10
LOST_SECONDS = 120  # without a beat for so long, nobody is there; file systems over a network see times late
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
SIGNALS = (signal.SIGTERM, signal.SIGINT)
MAX_REQUEUES = "SOUP_MAX_REQUEUES"


def ask_to_stop(folder: Path) -> None:
    """Have the attempt in this folder stop after a checkpoint."""
    (folder / STOP).write_text("stop\n", encoding="utf-8")


def ask_to_kill(folder: Path) -> None:
    """Have the attempt in this folder end at once."""
    (folder / STOP).write_text("kill\n", encoding="utf-8")


def clear_asks(folder: Path) -> None:
    """Forget what was asked of an earlier attempt, and its signs of life."""
    for name in (STOP, ALIVE):
        (folder / name).unlink(missing_ok=True)


def beats(folder: Path) -> bool:
    """Whether an attempt gave a sign of life lately."""
    try:
        return time.time() - (folder / ALIVE).stat().st_mtime < LOST_SECONDS
    except OSError:
        return False


def run_attempt(folder: Path, command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run the command to its end; gives its exit code (negative: the signal that ended it)."""
    if (folder / STOP).exists():  # it was asked before it began
        return 143
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_follow,
            env={**os.environ, "PYTHONSAFEPATH": "1", **(environment or {})},
        )
    try:
        return _watch(folder, process)
    finally:
        if process.poll() is None:
            kill_family(process.pid)
        process.wait()
        end_leftovers(folder)
        (folder / ALIVE).unlink(missing_ok=True)


def _follow() -> None:
    """Have the command stop when this process dies, as Ray's workers do with their driver: nobody would watch it."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _watch(folder: Path, process: subprocess.Popen[bytes]) -> int:
    heard, beat = "", 0.0
    while True:
        if time.monotonic() - beat > BEAT_SECONDS:
            beat = time.monotonic()
            (folder / ALIVE).touch()
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            pass
        except _Asked as asked:
            if asked.number != signal.SIGTERM or "SLURM_JOB_ID" not in os.environ:  # SLURM tells all processes
                stop_gently(process.pid, folder)
        wish = _wish(folder)
        if wish == "kill":
            kill_family(process.pid)
        elif wish and not heard:
            stop_gently(process.pid, folder)
        heard = heard or wish


def _wish(folder: Path) -> str:
    try:
        return (folder / STOP).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


class _Asked(BaseException):
    """A signal asked this attempt to stop."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(number)


def _ask(number: int, frame: FrameType | None) -> None:
    for one in SIGNALS:  # SLURM says it several times
        signal.signal(one, signal.SIG_IGN)
    raise _Asked(number)


def _requeue(folder: Path, code: int) -> bool:
    """Put a stopped job of SLURM back into its queue, unless a person stopped it or it was there often enough."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = "_".join(map(str, job)) if all(job) else os.environ.get("SLURM_JOB_ID")
    again = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if not name or code not in STOPPED or _wish(folder) or again >= int(os.environ.get(MAX_REQUEUES, "0")):
        return False
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        print(f"stopped by SLURM; back into the queue as {name}, for the {again + 1}. time", file=log)
    return subprocess.run(["scontrol", "requeue", name], timeout=60, check=False).returncode == 0


def main() -> None:
    """Run the command of the arguments, and exit as it did."""
    folder, command = Path(sys.argv[1]), sys.argv[2:]
    for number in SIGNALS:
        signal.signal(number, _ask)
    try:
        code = run_attempt(folder, command)
    except _Asked:
        code = 143
    if _requeue(folder, code):
        time.sleep(60)  # SLURM ends this step now: an exit before it does would be taken for the job's end
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
