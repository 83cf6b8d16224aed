"""What code that is not soup's may do to the process that it runs in, and what is put back when it is done."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import NoReturn, TextIO, cast

__all__ = ["INTERRUPTIONS", "Interruption", "foreign_code"]


class Interruption(BaseException):
    """What soup raises through code that is not its own, to end it. No Exception, or what catches those would go on."""


INTERRUPTIONS = (KeyboardInterrupt, Interruption)
"""What passes through; all else that such code raises, SystemExit and GeneratorExit included, is a fault of its own."""


class _UnclosableStream:
    """A stream that such code can't close: what soup says afterwards goes there, too."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def __enter__(self) -> _UnclosableStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, and go on."""
        self._stream.flush()


class _Process:
    """What is changed of the process as long as such code runs in any of its threads."""

    def __init__(self) -> None:
        self._lock, self._runs, self._changes = threading.Lock(), 0, ExitStack()

    @contextmanager
    def changed(self) -> Iterator[None]:
        """Change it where nobody has, and put all back when the last of several at once is done."""
        with self._lock:
            if self._runs == 0:
                self._changes.enter_context(_directory_kept())
                self._changes.enter_context(_stdout_on_stderr())
                stream = cast("TextIO", _UnclosableStream(sys.stderr)) if sys.stderr is not None else None
                self._changes.enter_context(redirect_stdout(stream))
                self._changes.enter_context(redirect_stderr(stream))
                self._changes.enter_context(_report_exits())
            self._runs += 1
        try:
            yield
        finally:
            with self._lock:
                self._runs -= 1
                if self._runs == 0:
                    self._changes.close()


_PROCESS = _Process()


@contextmanager
def foreign_code() -> Iterator[None]:
    """Let code run that may print, start programs that print, leave the working directory, fork, or end the process.

    What it and they write to stdout goes to stderr: stdout is for the answer. Relative paths mean afterwards what they
    meant before. A child process that comes back from it ends here: else two would go on with the same run. Where it
    calls `os._exit`, which nobody can catch, that is told, and is no success.
    """
    process = os.getpid()
    with _PROCESS.changed():
        try:
            yield
        finally:
            if os.getpid() != process:
                os._exit(1)


@contextmanager
def _directory_kept() -> Iterator[None]:
    before = None
    with suppress(OSError):  # it is gone, or may not be read
        before = Path.cwd()
    try:
        yield
    finally:
        if before is not None:
            os.chdir(before)


@contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """Point the descriptor itself elsewhere, which programs inherit."""
    stdout = None
    with suppress(OSError):  # one of the two is closed
        stdout = os.dup(1)
        os.dup2(2, 1)
    try:
        yield
    finally:
        if stdout is not None:
            os.dup2(stdout, 1)
            os.close(stdout)


@contextmanager
def _report_exits() -> Iterator[None]:
    leave, process = os._exit, os.getpid()

    def leave_told(status: int) -> NoReturn:
        if os.getpid() != process:  # a child, which ends like that
            leave(status)
        code, line = sys._getframe(1).f_code, sys._getframe(1).f_lineno
        text = (
            f"error: {code.co_qualname} ({code.co_filename}:{line}) ended the whole process by os._exit({status}). "
            "What was done before is kept: mend the cause and type the same command."
        )
        with suppress(OSError):  # there is no stderr
            os.write(2, f"\n{text}\n".encode(errors="backslashreplace"))
        leave(1)

    os._exit = leave_told
    try:
        yield
    finally:
        os._exit = leave
