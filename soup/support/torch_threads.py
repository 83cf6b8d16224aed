"""Threads that compute with torch, each on one core, in a process that may not have imported torch yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["single_threaded_torch"]


@contextmanager
def single_threaded_torch() -> Iterator[Callable[[], None]]:
    """Give what each thread calls before it computes with torch; calling it again costs nothing.

    Afterwards torch has as many threads as before: the setting of one thread would be that of all later ones.
    """
    lock, local = threading.Lock(), threading.local()
    before: list[int] = []

    def prepare() -> None:
        if getattr(local, "is_prepared", False):
            return
        import torch  # here: a merge that never gets here spares the second that it takes

        with lock:
            before[:] = before or [torch.get_num_threads()]
        torch.set_num_threads(1)
        local.is_prepared = True

    try:
        yield prepare
    finally:
        if before:
            import torch

            torch.set_num_threads(before[0])
