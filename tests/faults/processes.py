"""The console script as a process of its own, for what a fork can't show."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def start(*argv, cwd):
    return subprocess.Popen(
        [Path(sys.executable).with_name("soup"), *argv],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(fact, seconds=300):
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
