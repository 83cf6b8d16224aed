"""A real search in a real pseudo-terminal of 80 columns: what a person sees, and what is left of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.stand_in_jobs import place
from tests.helpers.terminals import run_in_terminal
from tests.helpers.toy_pools import make_checkpoint

ROOT = Path(__file__).parents[2]
SOUP = [sys.executable, "-m", "soup"]
JUDGE = """
import sys, time
import numpy as np
from safetensors.numpy import load_file

def head(checkpoint):
    time.sleep(0.03)
    return float(load_file(f"{checkpoint}/model.safetensors")["head"][0])

def first(checkpoint):
    print("the harness talks")
    return 50 + head(checkpoint)

def second(checkpoint):
    return 60 - head(checkpoint) / 2

def slow(checkpoint):
    time.sleep(30)

def broken(checkpoint):
    if head(checkpoint) > 4:
        raise ValueError("no answers\\nat all")
    return 50.0
"""
BOTH = "python:judge.py:first,python:judge.py:second"


@pytest.fixture
def here(tmp_path, monkeypatch):
    for i in range(10):
        make_checkpoint(tmp_path / f"ckpts/ingredient-{i:02d}", tensors=None, head=[i, 0, 0, 0], seed=0)
    (tmp_path / "judge.py").write_text(JUDGE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def run(here, *argv, **options):
    return run_in_terminal([*SOUP, *argv], cwd=here, **{"rows": 14, **options})


def greedy(benchmarks=BOTH):
    return ("greedy", "--pool", "ckpts", "-o", "out", "--eval", benchmarks)


def test_a_search_fills_its_board_in_says_what_it_hides_and_leaves_the_terminal_clean(here):
    terminal = run(here, *greedy(), env={"NO_COLOR": "1"})
    assert terminal.code == 0
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]m", terminal.raw), "no colour"
    tables = terminal.having(r"^  model +first +second +overall$")
    assert tables
    assert terminal.having(r"^greedy: \d+ of at most 19 evaluations, about \d+ (s|min) left$")
    said = re.compile(r"^\.\.\. (\d+) more models?, (\d+) of them scored$", re.MULTILINE)
    first, *_, last = filter(None, [said.search("\n".join(screen)) for screen in tables])
    assert int(first[1]) < int(last[1]) == int(last[2]), "19 models are more than 14 lines have room for"
    assert terminal.having(r"^\* ingredient-\d\d +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d$")
    assert terminal.having(r"^best so far: ingredient-09 ")
    assert not terminal.is_cursor_hidden
    assert not any("best so far" in line or "..." in line for line in terminal.last)
    assert terminal.last[-2 if terminal.last[-1] == "" else -1].startswith("out: the mean of"), terminal.last


def test_an_interrupt_ends_the_board_and_nothing_else_is_on_the_screen(here):
    terminal = run(here, *greedy("python:judge.py:slow"), stop_at=r"ingredient-00 on python:judge.py:slow")
    assert terminal.code == 130
    assert [line for line in terminal.last if line] == ["interrupted"]
    assert not terminal.is_cursor_hidden


def test_an_error_stands_alone_where_the_board_was(here):
    terminal = run(here, *greedy("python:judge.py:broken"), rows=24)
    text = [line for line in terminal.last if line]
    assert terminal.code == 1
    assert text[0].startswith("error: ingredient-05 on python:judge.py:broken: the function raised.")
    assert "ValueError: no answers" in text
    assert text[-1] == "Scores so far are kept: mend the cause and type the same command."
    assert not terminal.is_cursor_hidden


@pytest.mark.parametrize(
    ("flag", "is_board", "lines"),
    [("--quiet", False, []), ("--verbose", True, ["evaluating ingredient-09 on python:judge.py:second ..."])],
)
def test_quiet_has_no_board_and_verbose_tells_each_evaluation_above_it(here, flag, is_board, lines):
    terminal = run(here, *greedy("python:judge.py:second"), flag)
    assert terminal.code == 0
    assert bool(terminal.having("best so far")) == is_board
    assert [line for line in lines if not terminal.having(re.escape(line))] == []
    assert bool(terminal.having("evaluating")) == is_board


def test_workers_are_shown_by_their_numbers(here):
    terminal = run(here, *greedy(), "--workers", "2")
    assert terminal.code == 0
    for number in range(2):
        assert terminal.having(
            rf"^worker {number} ingredient-\d\d( \+ ingredient-\d\d)* on python:judge.py:(first|second): "
        )


def test_python_shows_a_board_whose_last_state_stays_and_a_script_s_output_is_above_it(here):
    code = f"import soup; soup.cook('greedy', 'ckpts', eval='{BOTH}', out='out'); print('done')"
    terminal = run_in_terminal([sys.executable, "-c", code], cwd=here)
    text = [line for line in terminal.last if line]
    assert terminal.code == 0
    assert text[-1] == "done"
    assert text[-2].startswith("best so far: ingredient-09")
    assert terminal.having("the harness talks")


SCRIPT = f"""
import soup

def pick(pool, score):
    print("overall", score([pool[0]]).overall)
    return [pool[0]]

soup.cook(pick, "ckpts", eval="{BOTH}", out="out")
print("done")
"""


def test_python_s_stdout_stays_where_it_goes_to(here):
    (here / "script.py").write_text(SCRIPT)
    terminal = run_in_terminal(["sh", "-c", f"{sys.executable} script.py > printed.txt"], cwd=here)
    assert terminal.code == 0
    assert (here / "printed.txt").read_text() == "overall 55.0\ndone\n"
    assert terminal.having("^best so far: ingredient-00 55.00")
    assert not terminal.having("^overall 55")


def test_without_a_terminal_nothing_is_drawn_whatever_is_forced(here):
    done = subprocess.run(
        [*SOUP, *greedy("python:judge.py:second")],
        cwd=here,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "FORCE_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert lines[0] == "greedy: at most 19 evaluations"
    assert lines[1].startswith("  ingredient-00: overall 60.00 (python:judge.py:second 60.00; ")
    assert not re.search(r"\x1b\[\??[0-9;]*[A-Zhl]", done.stderr), "no cursor moves"


POOL = """
import sys
from finetune.launching import launch
from tests.helpers.stand_in_jobs import command
launch.finetune.__kwdefaults__["command"] = command  # in place of training
from soup.cli.app import main
sys.argv = ["soup", "finetune", "finetune.yaml"]
main()
"""


def test_a_pool_of_fine_tunes_shows_its_jobs_and_an_interrupt_leaves_their_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    place(tmp_path, **dict.fromkeys("abc", "slow"))
    stopped = run_in_terminal([sys.executable, "-c", POOL], cwd=tmp_path, stop_at=r"^\w +running +([5-9]|1\d)/20 ")
    assert stopped.code == 130
    assert stopped.having(r"^job +state +step +loss +speed +left$")
    assert stopped.having(r"^\d running, \d waiting, about \d+ (s|min) left$")
    assert stopped.having(r"^stopping \d jobs?, each after a checkpoint; interrupt again to end them at once")
    assert [line for line in stopped.last if line][-1] == "interrupted"
    assert not any("running" in line for line in stopped.last)
    assert not stopped.is_cursor_hidden
    again = run_in_terminal([sys.executable, "-c", POOL], cwd=tmp_path)
    assert again.code == 0
    assert [line for line in again.last if line][-3:] == ["ckpts/a", "ckpts/b", "ckpts/c"]
