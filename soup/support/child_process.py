"""Processes that never outlive who started them, however that one ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["ChildProcess", "end_group", "end_with_parent"]

GRACE_SECONDS = 5.0
PR_SET_PDEATHSIG = 1  # of linux/prctl.h

# The supervisor leads the group. Its stdin ends when whoever started it is gone, killed or not; then all are killed.
SUPERVISOR = """
import os, signal, subprocess, sys, threading
fds = [int(number) for number in sys.argv[1].split()]
try:
    child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, pass_fds=fds)
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
for number in fds:
    os.close(number)
def watch():
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
code = child.wait()
os._exit(code if code >= 0 else 128 - code)
"""


class ChildProcess:
    """A command that runs until it is stopped, or until this process is gone.

    Args:
        words: The program and its arguments.
        log: The file that takes what it prints, after what is there already.
        pass_fds: Open files that it gets under the same numbers.
        folder: Where it works; by default where this process does.

    Raises:
        OSError: it can't be started.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        pass_fds: Sequence[int] = (),
        folder: Path | None = None,
    ) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as log_file:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", SUPERVISOR, " ".join(map(str, pass_fds)), *words],
                stdin=subprocess.PIPE,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
                pass_fds=pass_fds,
                cwd=folder,
            )

    @property
    def pid(self) -> int:
        """The number of the process that leads the group."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return the exit code of a command that ended by itself; None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Return the exit code of a command once it ended by itself."""
        return self._process.wait()

    def stop(self) -> None:
        """End the whole group, politely first."""
        end_group(self._process)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()


def end_with_parent() -> None:
    """Have Linux send this process SIGTERM when its parent is gone; elsewhere nothing happens."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a libc without prctl
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the whole group that a process leads: politely first where it still runs, then by force."""
    try:
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all gone; macOS says so by the second
        os.killpg(process.pid, number)
