"""Threads: how many to start, and a pool whose threads take jobs from an iterator one at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

__all__ = ["count_cores", "default_threads", "run_on_threads"]

T = TypeVar("T")


def count_cores() -> int:
    """Count the cores that this process may use: a scheduler, or `taskset`, may leave it some of the host's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """Choose how many threads to start: one per core, at least 2 so that reads overlap work, at most 8."""
    return min(8, max(2, count_cores()))


def run_on_threads(
    work: Callable[[T], object], jobs: Iterable[T], count: int, setup: Callable[[], object] = lambda: None
) -> None:
    """Run `work` on every job, on `count` threads: each takes the next job when it has finished its last.

    The first failure, or an interrupt, keeps all threads from taking another job.

    Args:
        work: Called with one job; several threads call it at the same time.
        jobs: Read one at a time and never listed: a large model has a million of them. None ends them.
        count: The number of threads.
        setup: Called once in each thread before its first job.

    Raises:
        Exception: What the first failing `work`, `setup` or `jobs` raised.
    """
    queue, lock, stop = iter(jobs), threading.Lock(), threading.Event()

    def work_through_queue() -> None:
        setup()
        try:
            while not stop.is_set():
                with lock:
                    job = next(queue, None)
                if job is None:
                    return
                work(job)
        finally:
            stop.set()  # the queue is empty, or this thread failed

    pool = ThreadPoolExecutor(count)
    try:
        for thread in as_completed([pool.submit(work_through_queue) for _ in range(count)]):
            thread.result()
    finally:
        stop.set()
        pool.shutdown()
