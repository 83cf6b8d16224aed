"""Workers are forks of one process, which imports for all of them and outlives none of those who need it."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from functools import partial

import psutil
import pytest

from soup.errors import EvaluatorError
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.settings import EvalSettings
from soup.merging.options import MergeOptions
from soup.search import session
from soup.search.workers.local import LocalPool
from soup.search.workers.protocol import Remark, TaskDone, WorkerSpec
from soup.search.workers.worker import Worker
from tests.faults.processes import wait_for
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import calls, make_judge, make_pool
from tests.search.test_worker_deaths import task_of
from tests.search.test_workers import is_there

HEADS = {"a": (1, 2, 3, 9), "b": (1, 2, 9, 4), "c": (9, 2, 3, 4)}
IMPORTED = """
import os
from pathlib import Path

with (Path(__file__).parent / "imports.txt").open("a") as file:
    file.write(f"{os.getpid()}\\n")
"""
SEEING = """
import os
import sys
from pathlib import Path


def score(checkpoint):
    with (Path(__file__).parent / "seen.txt").open("a") as file:
        file.write(f"{'slow_library' in sys.modules} {os.getpid()}\\n")
    return 50
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each worker imports by itself")
def test_what_workers_need_is_imported_once_by_a_process_that_is_none_of_them(tmp_path, monkeypatch):
    (tmp_path / "slow_library.py").write_text(IMPORTED)
    (tmp_path / "seeing.py").write_text(SEEING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(session, "_imports", lambda benchmarks, settings: ("no_such_library", "slow_library"))
    pool = make_pool(tmp_path / "ckpts", HEADS)
    flat.cook("greedy", pool=pool, eval=[f"python:{tmp_path / 'seeing.py'}:score"], out=tmp_path / "out", workers=2)
    seen = [line.split() for line in (tmp_path / "seen.txt").read_text().splitlines()]
    assert {loaded for loaded, _ in seen} == {"True"}
    assert len({worker for _, worker in seen}) == 2
    (importer,) = (tmp_path / "imports.txt").read_text().split()
    assert importer not in {str(os.getpid()), *(worker for _, worker in seen)}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is imported before a fork")
def test_where_an_import_asked_for_gpus_each_worker_is_a_new_process_that_may_use_them(tmp_path, monkeypatch):
    poison = "import torch\n\ntorch.cuda._is_in_bad_fork = lambda: True\n"  # as torch itself says it after a fork
    (tmp_path / "slow_library.py").write_text(IMPORTED + poison)
    (tmp_path / "seeing.py").write_text(SEEING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(session, "_imports", lambda benchmarks, settings: ("slow_library",))
    pool = make_pool(tmp_path / "ckpts", HEADS)
    flat.cook("average", pool=pool, eval=[f"python:{tmp_path / 'seeing.py'}:score"], out=tmp_path / "out", workers=1)
    assert (tmp_path / "seen.txt").read_text().startswith("False ")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is imported before a fork")
def test_an_import_that_ends_the_server_is_told_with_its_words(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("import os\nos.write(2, b'illegal instruction here\\n')\nos.abort()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = LocalPool(1, tmp_path / "logs", ("broken_library",))
    try:
        pool.open(partial(Worker, None))
        pool.give(0, task_of("a"))
        assert pool.wait() == []
        (done,) = pool.wait()
    finally:
        pool.close()
    assert "killed by signal 6" in str(done.error)
    assert "illegal instruction here" in str(done.error)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker looks when its job is done")
def test_a_server_that_is_killed_takes_its_busy_workers_along(tmp_path):
    pool, judge = make_pool(tmp_path / "ckpts", HEADS), make_judge(tmp_path / "judge")
    line = [sys.executable, "-m", "soup", "greedy", "--pool", str(pool), "--eval", f"python:{judge}:doze"]
    run = subprocess.Popen([*line, "-o", str(tmp_path / "out"), "--workers", "2"], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: calls(judge))
        (server,) = psutil.Process(run.pid).children()
        workers = server.children()
        server.kill()
        _, alive = psutil.wait_procs(workers, timeout=120)
        assert alive == []
    finally:
        run.terminate()
        run.wait()


class Torn:
    """A worker that dies in the midst of a message."""

    def work(self, job, send):
        os.write(send.__self__.fileno(), struct.pack("!i", 1000) + b"the beginning of an event")
        os._exit(7)


def test_a_worker_that_dies_in_the_midst_of_a_message_is_replaced_as_any_other(tmp_path):
    pool = LocalPool(1, tmp_path / "logs")
    try:
        pool.open(Torn)
        pool.give(0, task_of("a"))
        assert pool.wait() == []
        (done,) = pool.wait()
    finally:
        pool.close()
    assert "ended twice, with exit code 7" in str(done.error)


class Echo:
    """A worker that dies at a job of the name `dies`, once, and talks much."""

    def __init__(self, folder):
        self.folder = folder

    def work(self, job, send):
        (folder := self.folder / job.title).mkdir(exist_ok=True)
        (folder / str(os.getpid())).touch()
        if job.title == "dies" and len(list(folder.iterdir())) == 1:
            os._exit(7)
        send(Remark(job, MANY_WORDS))
        send(TaskDone(job))


MANY_WORDS = "words " * 1_000_000


def test_a_dead_worker_s_successor_gets_what_waited_behind_the_job_too(tmp_path):
    pool = LocalPool(1, tmp_path / "logs")
    try:
        pool.open(partial(Echo, tmp_path))
        pool.give(0, dies := task_of("dies"))
        assert pool.with_one_job == [0]
        pool.give(0, after := task_of("after"))
        assert (pool.with_one_job, pool.free) == ([], [])
        assert pool.wait() == []
        events = [event for _ in range(4) for event in pool.wait()]
        assert (pool.free, pool.with_one_job) == ([0], [])
    finally:
        pool.close()
    assert [event.task for event in events] == [dies, dies, after, after]
    assert len(list((tmp_path / "after").iterdir())) == 1


def test_a_job_that_is_larger_than_a_pipe_is_given_to_a_worker_that_waits_to_be_read(tmp_path):
    pool = LocalPool(1, tmp_path / "logs")
    try:
        pool.open(partial(Echo, tmp_path))
        pool.give(0, task_of("first"))
        wait_for(lambda: (tmp_path / "first").is_dir())
        time.sleep(0.2)  # it sends now, and can't go on
        given = threading.Thread(target=pool.give, args=(0, task_of(MANY_WORDS)), daemon=True)
        given.start()
        given.join(60)
        assert not given.is_alive()
    finally:
        pool.close()


def test_a_server_that_is_killed_is_started_anew(tmp_path):
    run = RunDirectory(tmp_path)
    spec = WorkerSpec((("a", str(tmp_path / "nowhere")),), None, (), EvalSettings(), MergeOptions(), run, {})
    pool = LocalPool(1, run.logs)
    try:
        pool.open(partial(Worker, spec))
        pool._server._process.kill()
        pool._server._process.wait()
        pool.give(0, task_of("a"))
        assert pool.wait() == []
        (done,) = pool.wait()
    finally:
        pool.close()
    assert isinstance(done.error, EvaluatorError)
    assert "ended twice, with exit code 1" in str(done.error), "its successor's end is known again"


def test_a_run_that_is_killed_takes_its_busy_workers_along(tmp_path):
    judge, pool = make_judge(tmp_path / "judge"), make_pool(tmp_path / "ckpts", HEADS)
    line = [sys.executable, "-m", "soup", "greedy", "--pool", str(pool), "--eval", f"python:{judge}:doze"]
    process = subprocess.Popen([*line, "-o", str(tmp_path / "out"), "--workers", "2"], start_new_session=True)
    wait_for(lambda: calls(judge))
    process.kill()
    process.wait()
    wait_for(lambda: not is_there(process.pid))
    assert not is_there(process.pid), "the workers are of its group"
