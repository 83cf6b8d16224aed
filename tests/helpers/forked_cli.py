"""`soup` as a process of its own, many times over: torch is imported once, and each run is a fork of that process.

A run may be given a fault (see `injected_faults`): a signal, an error or a short read at the n-th call of some kind,
which is how the tests pull the plug at every moment there is.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import resource
import subprocess
import sys
import traceback
from ast import literal_eval
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.helpers.injected_faults import EFFECTS, Fault, inject

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 300
"""A run that takes longer hangs: it prints where, and ends."""
LIMIT_BYTES = 16 * 2**30
"""Of addresses: one that reads without end is no danger to the machine."""

PRELOADED = ("torch", "safetensors.numpy", "evaluators.command", "evaluators.python", "soup.search.run")
PRELOADED += ("soup.search.evaluate", "soup.cli.app", "soup.cli.console", "soup.report.pool_check")


@dataclass(frozen=True)
class Ended:
    """How a run ended: `code` is its exit code, or the signal that killed it as a negative number.

    `calls` are its calls on files and their paths, `was_hit` says whether the fault struck one of them.
    """

    code: int
    stdout: str
    stderr: str
    calls: tuple[tuple[str, str], ...] = ()
    was_hit: bool = False

    @property
    def effects(self):
        """How many of its calls changed something on the disk."""
        return sum(call in EFFECTS for call, _ in self.calls)

    @property
    def hangs(self):
        return self.stderr.startswith("Timeout (") or "\nTimeout (" in self.stderr

    def __str__(self):
        return f"code {self.code}, stdout {self.stdout!r}, stderr:\n{self.stderr}"


class Forge:
    """The process that forks; a context manager."""

    def __enter__(self):
        command = [sys.executable, "-m", __spec__.name]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __call__(self, *argv, cwd, env=None, fault=None):
        """Run `soup ARGV` in `cwd`. With a `Fault`, an empty one too, the calls are told."""
        job = {"argv": list(map(str, argv)), "cwd": str(cwd), "env": env or {}, "fault": fault and asdict(fault)}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        ended = json.loads(self._process.stdout.readline())
        notes = [line.partition(" ") for line in ended.pop("notes")]
        calls = tuple((call, literal_eval(path)) for call, _, path in notes if path)
        return Ended(**ended, calls=calls, was_hit=any(not path for *_, path in notes))


def one_threaded_forge(patch):
    """A forge whose runs compute on one thread: tiny models lose more to waiting for each other's threads.

    Args:
        patch: pytest's `monkeypatch`, or a context of it.
    """
    patch.setenv("OMP_NUM_THREADS", "1")  # it is read when torch is loaded
    return Forge()


def _serve():
    # All that a run imports, so that a fork starts at once. No tensor is touched here: torch has no threads yet.
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        folder = Path(job["cwd"])
        files = [folder / f".{os.getpid()}.{kind}" for kind in ("stdout", "stderr", "calls")]
        pid = os.fork()
        if pid == 0:
            _run(job, files)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = [file.read_text() if file.exists() else "" for file in files]
        for file in files:
            file.unlink(missing_ok=True)
        ended = {"code": status, "stdout": texts[0], "stderr": texts[1], "notes": texts[2].splitlines()}
        sys.__stdout__.write(json.dumps(ended) + "\n")
        sys.__stdout__.flush()


def _run(job, files):
    code = 70
    try:
        os.chdir(job["cwd"])
        os.environ.update(job["env"])
        for number, file in zip((1, 2), files, strict=False):
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(fd, number)
            os.close(fd)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        code = _main(job, files[2])
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _main(job, calls):
    import soup.cli.app

    sys.argv = ["soup", *job["argv"]]
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True, file=2)
    if job["fault"]:
        note = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        inject(Fault(**job["fault"]), job["cwd"], note)
    try:
        soup.cli.app.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    _serve()
