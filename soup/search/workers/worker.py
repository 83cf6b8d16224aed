"""A worker: opens the pool and the harnesses once, then does job by job: a whole evaluation, or a chunk of one.

A worker process of this host is a fork of a process that runs `main` of this module.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.candidate import OnAnswers, SoupCandidate, ignore_answers, make_candidate
from soup.evaluation.harnesses import answer
from soup.evaluation.suite import BenchmarkSuite, SuiteEntry, bounded, evaluate_once
from soup.search.workers.answer_counts import throttle
from soup.search.workers.forking import fork_workers, run_anew
from soup.search.workers.protocol import (
    AnswersEvent,
    Chunk,
    ChunkDone,
    EvalTask,
    Event,
    Job,
    Remark,
    RepliesEvent,
    ScoreEvent,
    TaskDone,
    WorkerSpec,
)
from soup.support.foreign_code import INTERRUPTIONS
from soup.support.options import speak_in_flags
from soup.support.plugins import EVALUATORS, import_plugin_modules

__all__ = ["Worker", "main", "serve"]

Send = Callable[[Event], None]


class Worker:
    """Does the jobs of a search, and sends each score and reply as soon as it is there.

    Args:
        spec: What it needs to evaluate on its own.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        import_plugin_modules(spec.modules)
        self._spec, self._pool = spec, spec.open_pool()
        harnesses = {benchmark.harness for benchmark in spec.benchmarks}
        self._evaluators = {name: EVALUATORS.get(name)(spec.settings) for name in harnesses}
        self._held: SoupCandidate | None = None  # whose chunks were answered last
        self._process = f"{socket.gethostname()}-{os.getpid()}"

    def work(self, job: Job, send: Send) -> None:
        """Do a job; its last event says that it is done."""
        self._answer(job, send) if isinstance(job, Chunk) else self._evaluate(job, send)

    @cached_property
    def _suite(self) -> BenchmarkSuite:
        """What evaluates as a whole: its data are read, which chunks bring along."""
        entries = (SuiteEntry.ask(each, self._evaluators[each.harness]) for each in self._spec.benchmarks)
        return BenchmarkSuite(tuple(entries), self._spec.settings.timeout_seconds)

    def _evaluate(self, task: EvalTask, send: Send) -> None:
        entries = self._suite.on(task.split).entries
        index = 0

        def tell_answers(count: int, total: int, what: str) -> None:
            send(AnswersEvent(task, index, count, total, what))

        candidate = self._candidate(task, send, on_answers=throttle(tell_answers))
        try:
            for index in task.indices:
                questions = task.questions.get(index)
                entry = entries[index].asking(questions.asked if questions else None)
                score, seconds = evaluate_once(entry, candidate, self._suite.timeout_seconds)
                send(ScoreEvent(task, index, score, seconds))
        except SoupError as error:
            send(TaskDone(task, error))
        else:
            send(TaskDone(task))
        finally:
            candidate.remove()

    def _answer(self, chunk: Chunk, send: Send) -> None:
        began, error = time.monotonic(), None

        def on_replies(positions: Sequence[int], replies: Sequence[Any]) -> None:
            dealt = tuple(chunk.positions[position] for position in positions)
            send(RepliesEvent(chunk.task, chunk.number, dealt, tuple(replies)))

        evaluator = self._evaluators[self._spec.benchmarks[chunk.index].harness]
        try:
            _write_files(chunk.files)
            with bounded(chunk.seconds, self._spec.settings.timeout_seconds):
                answer(evaluator, self._candidate_of(chunk, send), chunk.requests, on_replies)
        except SoupError as reason:
            error = reason
        except INTERRUPTIONS:
            raise
        except BaseException as cause:
            error = EvaluatorError(f"the harness failed:\n{''.join(traceback.format_exception(cause)[-3:]).rstrip()}")
        send(ChunkDone(chunk.task, chunk.number, time.monotonic() - began, error))

    def _candidate_of(self, chunk: Chunk, send: Send) -> SoupCandidate:
        """Return the candidate of a chunk: that of the last one, with its files, as long as it is the same."""
        if self._held is None or self._held.digest != chunk.recipe.digest:
            if self._held is not None:
                self._held.remove()
            self._held = self._candidate(chunk.task, send, process=self._process)
        return self._held

    def _candidate(
        self, task: EvalTask, send: Send, on_answers: OnAnswers = ignore_answers, process: str = ""
    ) -> SoupCandidate:
        spec = self._spec
        return make_candidate(
            task.recipe,
            self._pool,
            spec.run,
            spec.digests,
            spec.options,
            on_answers=on_answers,
            on_remark=lambda text: send(Remark(task, text)),
            process=process,
        )


def _write_files(files: Mapping[str, bytes]) -> None:
    """Write what the sender has and this machine has not, in the same places; they go when this process ends."""
    for name, data in files.items():
        path = Path(name)
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
        path.write_bytes(data)


def main() -> None:
    """Become workers, each of which serves the jobs that come over its connection until the parent is gone."""
    for name in ("SIGINT", "SIGHUP"):  # both go to a terminal's whole group; the parent ends us in order
        if hasattr(signal, name):  # Windows has but one of them
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    connection = fork_workers(socket.socket(fileno=int(sys.argv[1])), sys.argv[2].split(",") if sys.argv[2] else ())
    # Elsewhere than on Linux a fork may not use the system's libraries; here what was imported may have asked for GPUs.
    if sys.platform != "linux" or ("torch" in sys.modules and sys.modules["torch"].cuda._is_in_bad_fork()):
        run_anew("from soup.search.workers.worker import serve; serve(Connection(int(sys.argv[1])))", connection)
    serve(connection)


def _received(connection: Connection) -> Callable[[], Any]:
    """Take all that comes over a connection, from now on, and return what gives one after the other.

    Whoever sends a job while we work must not wait until it is read: we may wait for it to read what we send.
    """
    received: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def receive() -> None:
        try:
            while True:
                received.put((connection.recv(), None))
        except BaseException as error:  # the sender is gone; or no job can be made of it
            received.put((None, error))

    def get() -> Any:
        job, error = received.get()
        if error is not None:
            raise error
        return job

    threading.Thread(target=receive, daemon=True).start()
    return get


def serve(connection: Connection) -> None:
    """Serve the jobs that come over a connection until the parent is gone."""
    faulthandler.enable(2)  # a crash in C code says into the log at which line of Python it came
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that temporary files are removed
    atexit.register(gc.freeze)  # else Python looks for garbage at its end, for a second
    try:
        start, in_flags = connection.recv()
        receive = _received(connection)
        if in_flags:
            speak_in_flags()
        worker = start()
        while True:
            worker.work(receive(), connection.send)
    except (EOFError, KeyboardInterrupt):
        return  # the parent is gone, or needs us no more
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
