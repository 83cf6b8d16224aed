"""Signals end a command, whatever library is being imported just then."""

from __future__ import annotations

import subprocess
import sys

import pytest

CLEARING = """
import os, signal
try:
    for _ in range({times}):
        os.kill(os.getpid(), signal.{signal})
except BaseException:
    pass  # as C code does that clears an error
"""
SCRIPT = """
import sys
from soup.cli.app import _Stop
sys.path.insert(0, sys.argv[1])
_Stop.install()
def work():
    import torch, time
    time.sleep(5)
    print("went on")
try:
    work()
except KeyboardInterrupt as error:
    print(type(error).__name__, "torch" in sys.modules)
"""


@pytest.mark.parametrize(("signal", "error"), [("SIGTERM", "_TerminatedError"), ("SIGINT", "_InterruptedError")])
def test_a_signal_waits_for_an_import_that_would_swallow_it(tmp_path, signal, error):
    (tmp_path / "torch.py").write_text(CLEARING.format(times=2, signal=signal))  # `timeout` sends two
    done = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == f"{error} True\n"
