"""Workers by forks: one process imports what all of them need, and becomes each of them, at its start or after a death.

That process computes nothing, so that no fork of it inherits threads of torch or a CUDA context. It never runs the
user's script, so that a script needs no `if __name__ == "__main__"`. When it ends, or when whoever started it is gone,
its workers end.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import NoReturn

from soup.support.child_process import end_with_parent

__all__ = ["ForkServer", "fork_workers", "run_anew"]

START = "import sys; sys.path[:] = sys.argv[3:]; from soup.search.workers.worker import main; main()"
"""What the process runs: modules are looked for where this process does, and nowhere else (-P)."""

END_SECONDS = 5.0
POLL_SECONDS = 0.01
MESSAGE_BYTES = 65536
MOST_FILES = 64
UNKNOWN = -9
"""How a worker ended of which nobody knows: what kills the server is the lack of memory, most often."""


class ForkServer:
    """The process that becomes workers.

    Args:
        imports: Modules that it imports first. One that can't be imported is the worker's to tell of.
        environment: Variables that it has beside this process's.
    """

    def __init__(self, imports: Sequence[str], environment: Mapping[str, str]) -> None:
        # Elsewhere libraries are known that break when a process which has loaded them forks.
        self._imports = ",".join(imports) if sys.platform == "linux" else ""
        self._environment = {**os.environ, **environment}
        self._count = 0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the server
        self._start()

    def fork(self, connection: Connection, log: int, environment: Mapping[str, str]) -> int:
        """Have it become a worker, and return the worker's number; the first may take as long as all imports.

        Args:
            connection: The worker's end.
            log: The open file that takes what it prints.
            environment: Variables of its own.
        """
        self._count += 1
        request = _line({"fork": self._count, "environment": dict(environment)})
        files = [connection.fileno(), log]
        try:
            socket.send_fds(self._control, [request], files)
        except OSError:  # it was killed
            self._stop()
            self._start()
            socket.send_fds(self._control, [request], files)
        return self._count

    def exit_code(self, number: int) -> int:
        """Return the exit code of a worker that has ended, or the signal that killed it as a negative number."""
        try:
            self._control.send(_line({"ended": number}))
            if answer := self._control.recv(MESSAGE_BYTES):
                return int(answer)
        except OSError:  # it was killed
            pass
        try:
            return self._process.wait(END_SECONDS) or UNKNOWN
        except subprocess.TimeoutExpired:
            return UNKNOWN

    def last_words(self) -> str:
        """Return what it printed itself, such as why an import ended it."""
        self._errors.seek(0)
        return self._errors.read()[-MESSAGE_BYTES:].decode(errors="replace")

    def close(self) -> None:
        """End it with all of its workers."""
        self._stop()
        self._errors.close()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(2 * END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._control.close()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-c", START, str(theirs.fileno()), self._imports),
                    *map(os.path.abspath, sys.path),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno()],
                env=self._environment,
            )


def fork_workers(control: socket.socket, imports: Sequence[str]) -> Connection:
    """Be the process that becomes workers; return in each of them, with its connection, and nowhere else."""
    for name in imports:
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what looks for garbage writes into what it looks at: workers would share no memory
    workers: dict[int, int] = {}  # the processes by the workers' numbers
    signal.signal(signal.SIGTERM, lambda *_: _end(workers))
    text, files = b"", list[int]()
    while True:
        while b"\n" not in text:
            new, new_files, *_ = socket.recv_fds(control, MESSAGE_BYTES, MOST_FILES)
            text, files = text + new, files + new_files
            if not new:
                _end(workers)
        line, _, text = text.partition(b"\n")
        request = json.loads(line)
        if (number := request.get("ended")) is not None:
            code = _wait_for(workers[number]) if number in workers else UNKNOWN
            workers.pop(number, None)
            control.send(str(code).encode())
            continue
        connection, log, *files = files
        if process := os.fork():
            workers[request["fork"]] = process
            os.close(connection)
            os.close(log)
            continue
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with_parent()  # in the midst of a job a worker would not look for it
        control.close()
        os.dup2(log, 1)
        os.dup2(log, 2)
        for file in (log, *files):
            os.close(file)
        os.environ.update(request["environment"])
        return Connection(connection)


def run_anew(code: str, connection: Connection) -> NoReturn:
    """Become a new Python in place of this fork, for a library that no fork may use was used before it.

    Args:
        code: What it runs; `sys.argv[1]` is the connection's number.
        connection: What it keeps.
    """
    os.set_inheritable(connection.fileno(), True)
    before = "import sys; sys.path[:] = sys.argv[2:]; from multiprocessing.connection import Connection; "
    os.execv(sys.executable, [sys.executable, "-P", "-c", before + code, str(connection.fileno()), *sys.path])


def _wait_for(process: int) -> int:
    """Return the exit code of a worker that has nothing to do any more; one that does not end is killed."""
    until = time.monotonic() + END_SECONDS
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL_SECONDS)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _line(request: Mapping[str, object]) -> bytes:
    return json.dumps(request).encode() + b"\n"


def _end(workers: Mapping[int, int]) -> NoReturn:
    """End all workers, politely first, and then this process."""
    left = set(workers.values())
    until = time.monotonic() + END_SECONDS
    for process in left:
        os.kill(process, signal.SIGTERM)
    while left and time.monotonic() < until:
        left -= {process for process in left if os.waitpid(process, os.WNOHANG)[0]}
        time.sleep(POLL_SECONDS)
    for process in left:
        os.kill(process, signal.SIGKILL)
    os._exit(0)
