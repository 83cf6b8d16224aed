"""Faults in a process's calls on files: the n-th one fails, comes short, brings a signal, or finds another file.

It is Python's functions that are replaced, not the kernel's: those of `os` that soup, shutil and pathlib call, and
`fcntl.flock`. `open` becomes that of `_pyio`, which reads and writes through `os`, so that no call of Python's own is
missed. soup's compiled part reads what the page cache holds by itself: here it finds nothing there. What another
library of C or Rust does by itself (a user's evaluator that maps a file) is neither seen nor hit.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import itertools
import os
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from soup.merging import tensor_inputs

READS = ("read", "pread", "preadv")
WRITES = ("write", "writev", "pwrite", "pwritev", "sendfile")
CREATES = ("create", "mkdir", "link", "symlink")  # "create" is an `open` that may make the file
EFFECTS = (*WRITES, *CREATES, "truncate", "ftruncate", "posix_fallocate", "fsync", "fdatasync")
EFFECTS += ("rename", "replace", "remove", "unlink", "rmdir")
LOOKS = ("open", "stat", "lstat", "scandir", "listdir", "posix_fadvise", "flock")
CALLS = (*READS, *EFFECTS, *LOOKS)
EVERY = 2**31


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a run.

    Args:
        calls: The functions that are hit, on files below the run's folder.
        path: A pattern that is to be found in the file's path from there.
        at: Which of these calls is the first that is hit.
        times: How many are hit in a row.
        signals: Sent to the process before the calls that are hit, one before each.
        error: The name of the errno with which they fail.
        short: Whether they read or write half of what they were asked for.
        code: Python that runs before them.
        before: Python that runs before the whole run.
        after: Send the signals so many seconds after the first call below the folder, not at a call.
        alarm_seconds: Interrupt whatever the kernel is doing, again and again, by a signal that means nothing.
    """

    calls: tuple[str, ...] = EFFECTS
    path: str = ""
    at: int = 1
    times: int = 1
    signals: tuple[int, ...] = ()
    error: str = ""
    short: bool = False
    code: str = ""
    before: str = ""
    after: float = 0.0
    alarm_seconds: float = 0.0


def inject(fault: Fault, folder: Path, note: int) -> None:
    """Replace the functions in this process, and write each of their calls below `folder` to the descriptor `note`."""
    io.open = builtins.open = __import__("_pyio").open
    tensor_inputs.read_cached = lambda places, views: [0] * len(places)
    tensor_inputs.merge_cached = lambda *args: 0
    if fault.before:
        exec(fault.before, {})
    watch = _Watch(fault, os.path.join(os.path.realpath(folder), ""), note)  # noqa: PTH118
    for name in {*CALLS} - {"create", "flock"}:
        if hasattr(os, name):
            setattr(os, name, watch.wrap(name, getattr(os, name)))
    fcntl.flock = watch.wrap("flock", fcntl.flock)
    if fault.after:
        signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), fault.signals[0]))
    if fault.alarm_seconds:
        signal.signal(signal.SIGALRM, lambda number, frame: None)
        signal.setitimer(signal.ITIMER_REAL, fault.alarm_seconds, fault.alarm_seconds)


class _Watch:
    def __init__(self, fault, folder, note):
        self._fault = fault if not fault.after else Fault(())
        self._folder, self._note = folder, note
        self._count, self._hits, self._was_hit = itertools.count(1), itertools.count(1), False
        self._busy = threading.local()
        self._seconds = fault.after
        self._write, self._readlink = os.write, os.readlink

    def wrap(self, name, call):
        def then(first, *args, **kwargs):
            if getattr(self._busy, "now", False) or (path := self._below(first, kwargs.get("dir_fd"))) is None:
                return call(first, *args, **kwargs)
            if self._seconds:
                signal.setitimer(signal.ITIMER_REAL, self._seconds)
                self._seconds = 0
            kind = "create" if name == "open" and args and args[0] & os.O_CREAT else name
            self._busy.now = True
            try:
                self._write(self._note, f"{kind} {path!a}\n".encode())
                hit = self._hit(kind, path)
                short = hit is not None and self._strike(first, hit)
            finally:
                self._busy.now = False
            return call(first, *(_shortened(name, args) if short else args), **kwargs)

        return then

    def _below(self, first, dir_fd):
        """The path from the folder; None for files elsewhere, pipes and such."""
        path = self._path_of(first)
        if dir_fd is not None and not os.path.isabs(path):  # noqa: PTH117
            path = f"{self._path_of(dir_fd)}/{path}"
        if os.path.isabs(path):  # noqa: PTH117
            return path[len(self._folder) :] if path.startswith(self._folder) else None
        return path

    def _path_of(self, first):
        if isinstance(first, int):
            return self._readlink(f"/proc/self/fd/{first}")
        return os.fsdecode(first)

    def _hit(self, kind, path):
        """The number of this hit, from 1; None for none. Threads call at the same time, and each has its own."""
        fault = self._fault
        chosen = kind in fault.calls and re.search(fault.path, path)
        if not chosen and not (fault.signals and self._was_hit):  # a second signal comes at whatever is called next
            return None
        if not self._was_hit and next(self._count) < fault.at:
            return None
        self._was_hit = True
        hit = next(self._hits)
        return hit if hit <= max(fault.times, len(fault.signals)) else None

    def _strike(self, first, hit):
        """Do what the fault says; returns whether the call is to come short."""
        fault = self._fault
        self._write(self._note, b"hit\n")
        if fault.signals:
            os.kill(os.getpid(), fault.signals[hit - 1])
        if fault.code:
            exec(fault.code, {})
        if fault.error:
            number = getattr(errno, fault.error)
            raise OSError(number, os.strerror(number), None if isinstance(first, int) else first)
        return fault.short


def _shortened(name, args):
    """The arguments of a call, so that it does half of its work."""
    if name in ("preadv", "pwritev", "writev"):
        return ([memoryview(args[0][0])[: _half(len(args[0][0]))]], *args[1:])
    if name == "sendfile":
        return (*args[:2], _half(args[2]))
    if isinstance(args[0], int):
        return (_half(args[0]), *args[1:])
    return (memoryview(args[0])[: _half(len(args[0]))], *args[1:])


def _half(count):
    return max(count // 2, min(count, 1))
