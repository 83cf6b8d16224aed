"""Code that is not soup's leaves stdout, the working directory and the number of processes as they were."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from soup.support.foreign_code import foreign_code


def test_what_is_printed_goes_to_stderr_also_by_programs_and_stdout_is_back_afterwards(capfd):
    with foreign_code():
        print("by Python")
        subprocess.run(["echo", "by a program"], check=True)
        os.write(1, b"by a library in C\n")
    subprocess.run(["echo", "the answer"], check=True)
    out, err = capfd.readouterr()
    assert out == "the answer\n"
    assert sorted(err.splitlines()) == ["by Python", "by a library in C", "by a program"]


def test_a_stdout_that_the_code_closed_is_there_again(capfd):
    with foreign_code():
        os.close(1)
    os.write(1, b"the answer\n")
    assert capfd.readouterr().out == "the answer\n"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_the_code_closed_is_written_to_afterwards(name, capfd):
    with foreign_code():
        getattr(sys, name).close()
        with getattr(sys, name):
            print("of the code")
        print("of the code, later")
    print("told", file=sys.stderr)
    print("answer")
    assert capfd.readouterr() == ("answer\n", "of the code\nof the code, later\ntold\n")


def test_relative_paths_mean_what_they_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with foreign_code():
        os.chdir("/")
    assert Path.cwd() == tmp_path


def test_of_several_threads_the_last_one_puts_stdout_and_the_directory_back(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    second_began, first_ended = threading.Event(), threading.Event()

    def first():
        with foreign_code():
            assert second_began.wait(30)
        first_ended.set()

    def second():
        with foreign_code():
            second_began.set()
            assert first_ended.wait(30)
            print("by the second")
            os.write(1, b"by its library\n")
            os.chdir("/")

    before, threads = sys.stdout, [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(1, b"the answer\n")
    out, err = capfd.readouterr()
    assert (out, sorted(err.splitlines())) == ("the answer\n", ["by its library", "by the second"])
    assert sys.stdout is before
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("end", ["return", "raise ZeroDivisionError"])
def test_a_child_that_comes_back_goes_no_further(end):
    code = f"""
import os
from soup.support.foreign_code import foreign_code
def work():
    with foreign_code():
        if os.fork() == 0:
            {end}
        os.wait()
work()
os.write(1, b"went on\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"went on\n"


@pytest.mark.parametrize("status", [0, 7])
def test_code_that_ends_the_whole_process_is_told_and_is_no_success(status):
    code = (
        "import os, sys\n"
        "from soup.support.foreign_code import foreign_code\n"
        "def judge(status):\n"
        "    os._exit(status)\n"
        "with foreign_code():\n"
        "    if os.fork() == 0:\n"
        "        judge(0)\n"
        "    os.wait()\n"
        f"    judge({status})\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("error:") == 1, "a child may end like that"
    assert f"error: judge (<string>:4) ended the whole process by os._exit({status})" in ended.stderr


def test_afterwards_a_process_ends_as_it_likes():
    before = os._exit
    with foreign_code():
        assert os._exit is not before
    assert os._exit is before
