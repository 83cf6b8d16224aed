"""Functions that wait in the middle: each in a thread of its own, of which only one runs at a time.

Harnesses are plain functions over libraries that know no threads, and wait for replies deep inside. So while one runs
whoever resumed it waits, and while it waits the others run.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

from soup.support.foreign_code import Interruption

__all__ = ["Coroutine"]

T = TypeVar("T")

END_SECONDS = 2.0
"""How long one that runs on, though it is needed no more, is waited for."""


class _Ended(Interruption):
    """Raised where a coroutine waits that is needed no more."""


class Coroutine:
    """A function that runs only while `resume` waits for it.

    `is_ready` says whether it has something to go on with, `is_away` whether it waits for something outside.

    Args:
        function: What runs; it raises nothing.
        returned: Gets the coroutine when it is back from what it waited for outside.
    """

    def __init__(self, function: Callable[[], None], returned: SimpleQueue[Coroutine]) -> None:
        self.is_ready, self.is_away, self.is_done = True, False, False
        self._is_running = self._is_ended = False
        self._function, self._returned = function, returned
        self._may_run, self._paused = threading.Lock(), threading.Lock()  # each released by the other side
        self._may_run.acquire()
        self._paused.acquire()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def resume(self) -> None:
        """Let it run until it waits or is done; an error that a signal raises here leaves it running."""
        self.is_ready, self._is_running = False, True
        _open(self._may_run)
        self._paused.acquire()
        self._is_running = False

    def end(self) -> None:
        """End it where it waits; one that is running, or waits for something outside, when it comes to that."""
        self._is_ended = True
        _open(self._may_run)
        if self._is_running:  # and may never wait
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident or 0), ctypes.py_object(_Ended)
            )
        if not self.is_away:
            self._thread.join(END_SECONDS if self._is_running else None)

    def wait(self) -> None:
        """Wait, inside, until it is resumed."""
        _open(self._paused)
        self._acquire()

    def wait_outside(self, work: Callable[[], T]) -> T:
        """Return, inside, what `work` returns, while others run."""
        self.is_away = True
        _open(self._paused)
        try:
            return work()
        finally:
            self.is_ready = True
            self._returned.put(self)
            self._acquire()

    def _acquire(self) -> None:
        if not self._is_ended:
            self._may_run.acquire()
        self.is_away = False
        if self._is_ended:
            raise _Ended

    def _main(self) -> None:
        try:
            self._acquire()
            self._function()
        except _Ended:
            pass
        finally:
            self.is_done = True
            _open(self._paused)


def _open(gate: threading.Lock) -> None:
    """Let the other side through; an end may find it open already."""
    with suppress(RuntimeError):
        gate.release()
