"""The points at which a run goes wrong: kinds of faults, and in which commands they strike.

What may follow is one contract for all of them, `Scene.faults_of`; a kind says only whether the command may fail.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from tests.helpers.injected_faults import CALLS, CREATES, EVERY, LOOKS, READS, WRITES, Fault

TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL
JUDGE = "python:judge/judge.py:score"
COMMANDS = {
    "average": ("average", "--pool", "ckpts", "-o", "out"),
    "merge": ("merge", "made/recipe.yaml", "-o", "out"),
    "greedy": ("greedy", "--pool", "ckpts", "-o", "out", "--eval", JUDGE),
    "average again": ("average", "--pool", "ckpts", "-o", "out"),
    "check": ("check", "--pool", "ckpts"),
    "eval": ("eval", "ckpts/a", "ckpts/b", "ckpts/c", "--eval", JUDGE, "--run-dir", "ckpts.soup"),
}
MERGING = ("average", "merge", "greedy")
WRITING = ("average", "merge", "greedy", "eval")
EVALUATIONS = {"greedy": 7, "eval": 3}


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Args:
        fault: What happens; the point says at which call on which file.
        codes: The exit codes that it may lead to.
        tidy: Whether the command has to clear up: after a kill the next run does.
        files: A pattern of the files that it strikes.
        lasts: Whether it may strike every call from then on, as a full disk does.
        commands: Those that make such calls.
        says: What an error has to say.
    """

    fault: Fault
    codes: tuple[int, ...] = (0, 1)
    tidy: bool = True
    files: str = r"^(?!judge)"
    lasts: bool = True
    commands: tuple[str, ...] = tuple(COMMANDS)
    says: str = ""


def _signals(*numbers):
    codes = tuple(-number if number == KILL else 128 + number for number in numbers)  # both may come at once
    return Kind(Fault(CALLS, signals=numbers), codes, KILL not in numbers, files="", lasts=False)


def _error(name, *of, **more):
    """Calls that fail; where all of them change the disk, or lock it, in the commands that do."""
    reads = {*of} & {*READS, *LOOKS} - {"flock"}
    return Kind(Fault(of, error=name), **{"commands": tuple(COMMANDS) if reads else WRITING} | more)


def _all_along(**fault):
    return Kind(Fault((), **fault), (0,))


SHARDS = r"^ckpts/.*\.safetensors$"
NO_FCNTL = "import sys; import soup.support.file_lock as lock; lock.fcntl = None; del sys.modules['fcntl']"
NFS = """
import errno, fcntl, os
flock = fcntl.flock
def of_nfs(fd, operation):
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    flock(fd, operation)
fcntl.flock = of_nfs
"""
NO_ADVICE = """
import os
def refuse(*given):
    raise OSError(22, "Invalid argument")
os.posix_fadvise = refuse
"""
REWRITE = """
from pathlib import Path
path = Path({path!r})
data = bytearray(path.read_bytes())
data[-4:] = b"\\0\\0\\0\\0"
path.write_bytes(data)
"""
TRUNCATE = "import os; os.truncate({path!r}, os.stat({path!r}).st_size // 2)"

KINDS = {
    "SIGTERM": _signals(TERM),
    "SIGINT": _signals(INT),
    "SIGKILL": _signals(KILL),
    "SIGTERM twice": _signals(TERM, TERM),
    "SIGINT twice": _signals(INT, INT),
    "SIGTERM, then SIGINT": _signals(TERM, INT),
    "SIGINT, then SIGKILL": _signals(INT, KILL),
    "EIO on read": _error("EIO", *READS),
    "EIO on write": _error("EIO", *WRITES),
    "EIO on sync": _error("EIO", "fsync"),
    "EIO on rename": _error("EIO", "rename", "replace"),
    "EIO on stat": _error("EIO", "stat", "lstat", "scandir", "listdir"),
    "EIO on removal": _error("EIO", "unlink", "rmdir", tidy=False, lasts=False),
    "ESTALE": _error("ESTALE", *READS, "open", "stat", "flock"),
    "ENOSPC on write": _error("ENOSPC", *WRITES),
    "ENOSPC at preallocation": _error("ENOSPC", "posix_fallocate", commands=MERGING),
    "ENOSPC on a new name": _error("ENOSPC", *CREATES),
    "EDQUOT": _error("EDQUOT", *WRITES, "posix_fallocate"),
    "EROFS": _error("EROFS", *CREATES, "rename", "replace"),
    "EACCES": _error("EACCES", "open", *CREATES),
    "EMFILE": _error("EMFILE", "open", "create", "scandir"),
    "no room reserved": _error("EOPNOTSUPP", "posix_fallocate", codes=(0,), commands=MERGING),
    "no advice": _all_along(before=NO_ADVICE),
    "short reads": Kind(Fault(READS, short=True), (0,)),
    "short writes": Kind(Fault(WRITES, short=True), (0,), commands=WRITING),
    "EINTR": _all_along(alarm_seconds=0.0005),
    "flock: ENOLCK": _error("ENOLCK", "flock", codes=(0,)),
    "flock: ENOSYS": _error("ENOSYS", "flock", codes=(0,)),
    "flock: EOPNOTSUPP": _error("EOPNOTSUPP", "flock", codes=(0,)),
    "flock: EBADF of NFS": _all_along(before=NFS),
    "flock: none": _all_along(before=NO_FCNTL),
    "a shard rewritten": Kind(Fault(("preadv",), code=REWRITE), (1,), files=SHARDS, lasts=False, says="changed"),
    "a shard truncated": Kind(Fault(("preadv",), code=TRUNCATE), (1,), files=SHARDS, lasts=False),
}


@dataclass(frozen=True)
class Point:
    """A fault in a command."""

    command: str
    kind: str
    fault: Fault

    def __str__(self):
        fault = self.fault
        times = " and from then on" if fault.times == EVERY else ""
        calls = "/".join(fault.calls) or "every call"
        return f"{self.kind} in {self.command}: at {calls} {fault.at} of {fault.path or 'all files'}{times}"
