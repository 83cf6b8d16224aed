"""mergekit in an environment of its own: made by `make zoo MERGEKIT=1`, or named by $ZOO_MERGEKIT."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "tests" / "zoo" / "mergekit_worker.py"


def find_mergekit():
    """Its interpreter; None where there is none."""
    made = ROOT / ".venv-mergekit" / "bin" / "python"
    return os.environ.get("ZOO_MERGEKIT") or (str(made) if made.exists() else None)


@contextmanager
def running(interpreter):
    """A function that merges as `mergekit-yaml` does with these arguments, and gives the error, or nothing."""
    with subprocess.Popen([interpreter, WORKER], stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True) as process:

        def merge(*arguments):
            print(json.dumps([str(argument) for argument in arguments]), file=process.stdin, flush=True)
            return process.stdout.readline().strip("\n")

        yield merge
        process.stdin.close()
