"""`soup` as a process of its own, many times over: torch is imported once, and each run is a fork of that process.

A run may be told to send itself a signal at its n-th effect on files, which is how the tests pull the plug at every
moment there is. The effects are those that Python audits (open, rename, mkdir, remove, link, ...) below one folder,
and the system calls on open files that it does not (write, truncate, sync).
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

AUDITED = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.truncate"}
CALLS = ("pwrite", "pwritev", "write", "writev", "ftruncate", "posix_fallocate", "fsync", "fdatasync", "sendfile")
PRELOADED = ("torch", "safetensors.numpy", "evaluators.command", "evaluators.python", "soup.search.run")
PRELOADED += ("soup.cli.app", "soup.cli.console", "soup.report.pool_check")


@dataclass(frozen=True)
class Ended:
    """How a run ended: `code` is its exit code, or the signal that killed it as a negative number."""

    code: int
    stdout: str
    stderr: str
    effects: int


class Forge:
    """The process that forks; a context manager."""

    def __enter__(self):
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __call__(self, *argv, cwd, env=None, strike=None, at=None, after=None, times=1):
        """Run `soup ARGV` in `cwd`. It sends itself the signal `strike` at effect `at`, or `after` so many seconds.

        With `times` it does so at that many effects in a row.
        """
        job = {"argv": list(map(str, argv)), "cwd": str(cwd), "env": env or {}}
        job |= {"strike": strike and int(strike), "at": at, "after": after, "times": times}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


def _serve():
    # All that a run imports, so that a fork starts at once. No tensor is touched here: torch has no threads yet.
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        folder = Path(job["cwd"])
        places = [folder / f".{os.getpid()}.{kind}" for kind in ("stdout", "stderr", "effects")]
        pid = os.fork()
        if pid == 0:
            _run(job, places)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = [place.read_text() if place.exists() else "" for place in places]
        for place in places:
            place.unlink(missing_ok=True)
        ended = {"code": status, "stdout": texts[0], "stderr": texts[1], "effects": len(texts[2])}
        sys.__stdout__.write(json.dumps(ended) + "\n")
        sys.__stdout__.flush()


def _run(job, places):
    code = 70
    try:
        os.chdir(job["cwd"])
        os.environ.update(job["env"])
        for number, place in zip((1, 2), places, strict=False):
            fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(fd, number)
            os.close(fd)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        code = _main(job, places[2])
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _main(job, effects):
    import soup.cli.app

    sys.argv = ["soup", *job["argv"]]
    _watch(job, effects)
    if job["after"] is not None:
        signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), job["strike"]))
        signal.setitimer(signal.ITIMER_REAL, job["after"])
    try:
        soup.cli.app.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _watch(job, effects):
    count = itertools.count(1)
    note = os.open(effects, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    write = os.write
    folder = os.path.join(os.path.realpath(job["cwd"]), "")  # noqa: PTH118

    def effect():
        write(note, b".")
        if job["at"] is not None and 0 <= next(count) - job["at"] < job["times"]:
            os.kill(os.getpid(), job["strike"])

    def concerns(path):
        if not isinstance(path, str | bytes):
            return False
        path = os.fsdecode(path)
        return not os.path.isabs(path) or path.startswith(folder)  # noqa: PTH117

    def hook(event, args):
        if event in AUDITED and concerns(args[0]):
            effect()

    def wrapped(call):
        def then(fd, *args, **kwargs):
            if fd > 2:
                effect()
            return call(fd, *args, **kwargs)

        return then

    for name in CALLS:
        if hasattr(os, name):
            setattr(os, name, wrapped(getattr(os, name)))
    sys.addaudithook(hook)


if __name__ == "__main__":
    _serve()
