"""Servers of the standard library's that serve in a thread of the test's process."""

from __future__ import annotations

import threading
from contextlib import contextmanager


@contextmanager
def in_thread(server):
    """Serve in a thread for the time of a `with`; the server is its caller's to close."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
