"""Put on the disk what is written while more is made, so that the sync at the end has little to wait for."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from soup.support.open_files import ReopenedFile

__all__ = ["EarlySync"]

STEP_BYTES = 2**24
"""How much is written before a sync begins."""


class EarlySync:
    """Syncs files on a thread of its own, one after another."""

    def __init__(self) -> None:
        self._lock, self._bytes = threading.Lock(), 0
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def count(self, file: ReopenedFile, count: int) -> None:
        """Take note of bytes written to a file, and begin to sync it when there are many; several threads may call.

        Raises:
            OSError: An earlier sync failed.
        """
        with self._lock:
            self._bytes += count
            if self._bytes >= STEP_BYTES and (self._last is None or self._last.done()):
                self._check()
                self._bytes, self._last = 0, self._thread.submit(_sync, file)

    def close(self) -> None:
        """Wait for the last sync.

        Raises:
            OSError: It failed.
        """
        self._thread.shutdown()
        self._check()

    def _check(self) -> None:
        if self._last:
            self._last.result()  # the system tells a failure once: the sync at the end would not hear of it


def _sync(file: ReopenedFile) -> None:
    if hasattr(os, "fdatasync"):  # Windows and macOS have none
        with file.descriptor() as fd:
            os.fdatasync(fd)
