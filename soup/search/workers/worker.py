"""A worker: opens the pool and the harnesses once, then evaluates task by task.

A worker process of this host runs `main` of this module and never the user's script, so that a script needs no
`if __name__ == "__main__"`.
"""

from __future__ import annotations

import math
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from soup.errors import SoupError
from soup.evaluation.scorer import make_candidate
from soup.evaluation.suite import build_suite, evaluate_once
from soup.search.workers.protocol import AnswersEvent, EvalTask, Event, Remark, ScoreEvent, TaskDone, WorkerSpec
from soup.support.options import speak_in_flags
from soup.support.plugins import import_plugin_modules

__all__ = ["main", "make_worker"]

ANSWERS_SECONDS = 1.0
"""How often a worker tells how many prompts are answered, at most."""

Work = Callable[[EvalTask, Callable[[Event], None]], None]


def make_worker(spec: WorkerSpec) -> Work:
    """Return the work of a worker: a function that evaluates a task and sends each score as soon as it is there."""
    import_plugin_modules(spec.modules)
    pool, suite = spec.open_pool(), build_suite(spec.benchmarks, spec.settings)

    def work(task: EvalTask, send: Callable[[Event], None]) -> None:
        entries = suite.on(task.split).entries
        index, last_seconds = 0, -math.inf

        def tell_answers(count: int, total: int) -> None:
            nonlocal last_seconds
            if (now := time.monotonic()) - last_seconds >= ANSWERS_SECONDS:
                last_seconds = now
                send(AnswersEvent(task, index, count, total))

        candidate = make_candidate(
            task.recipe,
            pool,
            spec.run,
            spec.digests,
            spec.options,
            on_answers=tell_answers,
            on_remark=lambda text: send(Remark(task, text)),
        )
        try:
            for index in task.indices:
                questions = task.questions.get(index)
                entry = entries[index].asking(questions.asked if questions else None)
                score, seconds = evaluate_once(entry, candidate, suite.timeout_seconds)
                send(ScoreEvent(task, index, score, seconds))
        except SoupError as error:
            send(TaskDone(task, error))
        else:
            send(TaskDone(task))
        finally:
            candidate.remove()

    return work


def main() -> None:
    """Serve the tasks that come over the connection until the parent is gone; what is printed goes to a log already."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends us in order
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that temporary files are removed
    connection = Connection(int(sys.argv[1]))
    try:
        spec, in_flags = connection.recv()
        if in_flags:
            speak_in_flags()
        work = make_worker(spec)
        while True:
            work(connection.recv(), connection.send)
    except (EOFError, KeyboardInterrupt):
        return  # the parent is gone, or needs us no more
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
