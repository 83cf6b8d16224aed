"""Threads: how many keep this machine busy, and a pool that takes its jobs one by one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

__all__ = ["default_threads", "run_on_threads"]

T = TypeVar("T")


def default_threads() -> int:
    """How many threads keep this machine busy: one a core, at least 2 for the disk's sake, at most 8."""
    return min(8, max(2, os.cpu_count() or 2))


def run_on_threads(work: Callable[[T], object], jobs: Iterable[T], count: int, setup: Callable[[], object]) -> None:
    """Run `work` on every job: each of `count` threads takes the next one when it is done with its last.

    Jobs are never listed: a large model has a million leaves. The first failure, or an interrupt, stops all threads.
    """
    queue, lock, stop = iter(jobs), threading.Lock(), threading.Event()

    def drain() -> None:
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
        for thread in as_completed([pool.submit(drain) for _ in range(count)]):
            thread.result()
    finally:
        stop.set()
        pool.shutdown()
