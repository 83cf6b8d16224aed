"""A pool whose threads take jobs from an iterator one at a time."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading

import pytest

from soup.support.threads import count_cores, default_threads, run_on_threads


@pytest.mark.parametrize(("cores", "threads"), [(1, 2), (4, 4), (64, 8)])
def test_there_is_a_thread_a_core_at_least_two_and_at_most_eight(cores, threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores))
    assert default_threads() == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone tells")
def test_cores_are_those_that_this_process_may_use():
    code = (
        "import os; from soup.support.threads import count_cores;"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(count_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize(("known", "cores"), [(None, 1), (6, 6)])
def test_elsewhere_they_are_those_of_the_host(monkeypatch, known, cores):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: known)
    assert count_cores() == cores


def test_every_job_is_done_once_and_every_thread_is_set_up_once():
    done, set_up = [], []
    run_on_threads(done.append, range(100), 3, lambda: set_up.append(threading.get_ident()))
    assert sorted(done) == list(range(100))
    assert len(set_up) == 3


def test_threads_work_at_the_same_time():
    both, arrivals = threading.Barrier(2, timeout=30), []
    run_on_threads(lambda job: arrivals.append(both.wait()), range(2), 2, lambda: None)
    assert sorted(arrivals) == [0, 1]


def test_jobs_are_taken_one_at_a_time_and_never_listed():
    taken = itertools.count()
    counts = []

    def work(job):
        counts.append(next(taken))
        if job == 10:
            raise ValueError(job)

    with pytest.raises(ValueError, match="10"):
        run_on_threads(work, itertools.count(), 2, lambda: None)
    assert len(counts) < 1000


def test_the_first_failure_stops_all_threads_and_is_raised():
    started = threading.Event()

    def work(job):
        if job == "fails":
            started.wait(30)
            raise ValueError("the first failure")
        started.set()

    with pytest.raises(ValueError, match="the first failure"):
        run_on_threads(work, itertools.chain(["fails"], itertools.repeat("goes on")), 2, lambda: None)


def test_jobs_that_fail_to_come_are_the_failure():
    def jobs():
        yield 1
        raise RuntimeError("no second job")

    with pytest.raises(RuntimeError, match="no second job"):
        run_on_threads(lambda job: None, jobs(), 2, lambda: None)
