"""Ctrl-C at any moment from the first line of ours on: exit code 130, and one word."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.toy_pools import make_pool

ROOT = Path(__file__).parents[2]

STRUCK = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Strike:
    module = sys.argv.pop(1)

    def find_spec(self, name, path=None, target=None):
        if name == self.module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Strike())
from soup.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["soup.cli.app", "cloup", "soup.board.board", "soup.report.checkpoint_report"])
def test_an_interrupt_while_a_module_is_imported_leaves_no_trace(module):
    words = [sys.executable, "-c", STRUCK, module, "inspect", "a"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "interrupted")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_crash_in_c_code_says_at_which_line_of_python_it_came(tmp_path, workers):
    make_pool(tmp_path / "ckpts")
    (tmp_path / "mine.py").write_text("import ctypes\n\ndef score(path):\n    return ctypes.string_at(0)\n")
    words = [sys.executable, "-m", "soup", "greedy", "--pool", "ckpts", "--eval", "python:mine.py:score", "-o", "out"]
    words += ["--workers", str(workers)]
    environment = {"PATH": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (1 if workers else -signal.SIGSEGV)
    assert 'mine.py", line 4 in score' in done.stderr


def test_an_interrupt_that_passes_through_exec_ends_with_the_same_code(tmp_path):
    make_pool(tmp_path / "ckpts")
    (tmp_path / "mine.py").write_text("exec('import os, signal; os.kill(os.getpid(), signal.SIGINT)')\n")
    words = [sys.executable, "-m", "soup", "cook", "--strategy", "mine.py:pick", "--pool", "ckpts", "-o", "out"]
    environment = {"PATH": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "interrupted")
