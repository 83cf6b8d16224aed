"""Signals end a command, whatever library is being imported just then."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.toy_pools import debris, make_pool

ROOT = Path(__file__).parents[2]

CLEARING = """
import os, signal
try:
    for _ in range({times}):
        os.kill(os.getpid(), signal.{signal})
except BaseException:
    pass  # as C code does that clears an error
"""
WRAPPED = """
import os, signal

def pick(pool, score):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException as error:  # as pydantic does while it builds a serializer
        raise ValueError("Error building a serializer") from error
    return pool
"""
SCRIPT = """
import signal, sys
from soup.cli.app import _Stop
sys.path.insert(0, sys.argv[1])
signal.signal(signal.SIGHUP, signal.SIG_DFL)
_Stop.install()
def work():
    import torch, time
    time.sleep(5)
    print("went on")
try:
    work()
except KeyboardInterrupt as error:
    print(error.number.name, "torch" in sys.modules)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_waits_for_an_import_that_would_swallow_it(tmp_path, name):
    (tmp_path / "torch.py").write_text(CLEARING.format(times=2, signal=name))  # `timeout` sends two
    done = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == f"{name} True\n"


SLEEPING = """
import tempfile, time
def score(checkpoint):
    with tempfile.TemporaryDirectory(prefix="soup-"):
        print("asleep", file=open("asleep", "w"))
        time.sleep(60)
"""


def test_a_terminal_that_is_closed_ends_a_command_as_ctrl_c_does(tmp_path):
    make_pool(tmp_path / "ckpts")
    (tmp_path / "mine.py").write_text(SLEEPING)
    (tmp_path / "tmp").mkdir()
    words = [sys.executable, "-m", "soup", "eval", "ckpts/a", "--eval", "python:mine.py:score"]
    process, terminal = pty.fork()
    if not process:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.chdir(tmp_path)
        os.execvpe(words[0], words, {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")})
    listener = select.poll()  # not select(): this process may have many files open
    listener.register(terminal, select.POLLIN)
    while not (tmp_path / "asleep").exists():
        if listener.poll(50):
            os.read(terminal, 65536)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    assert not list((tmp_path / "tmp").iterdir())
    assert debris(tmp_path) == []


def test_a_signal_of_which_a_library_makes_an_error_of_its_own_ends_the_command_all_the_same(tmp_path):
    make_pool(tmp_path / "ckpts")
    (tmp_path / "mine.py").write_text(WRAPPED)
    words = [sys.executable, "-m", "soup", "cook", "--strategy", "mine.py:pick", "--pool", "ckpts", "-o", "out"]
    environment = {"PATH": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (143, "", "terminated")
