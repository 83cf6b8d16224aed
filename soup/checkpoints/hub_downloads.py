"""How far downloads from the Hub are: told to whoever listens, in place of the Hub client's own bars."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

__all__ = ["OnDownload", "listening_to_downloads", "run_download", "without_client_bars"]

T = TypeVar("T")

LOOK_SECONDS = 0.5
"""Between two looks for an interrupt: one that another thread received, or any on Windows, does not end a wait."""

OnDownload = Callable[[str, int, int], None]
"""Called with what is downloaded, the bytes that are here, and those of all files that were begun."""

_LISTENER: ContextVar[OnDownload | None] = ContextVar("listener", default=None)


@contextmanager
def listening_to_downloads(listener: OnDownload) -> Iterator[None]:
    """Have a function called with how far each download within is."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def without_client_bars(hidden: bool) -> Iterator[None]:
    """Keep the Hub's client from drawing bars, such as into a file."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hidden = hidden and not are_progress_bars_disabled()
    if hidden:
        disable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            enable_progress_bars()


def run_download(label: str, download: Callable[[type[Any]], T]) -> T:
    """Run a download of the Hub's client so that an interrupt ends it soon, and not when its files are whole.

    Args:
        label: What is downloaded, for who listens.
        download: Called in a thread of its own with the class of bars that the client is to draw its progress by.
    """
    stopped = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(download, _bar_class(label, _LISTENER.get(), stopped))
        try:
            while not wait([future], LOOK_SECONDS).done:
                pass
            return future.result()
        except KeyboardInterrupt:
            stopped.set()
            _abort_chunks()
            raise


def _bar_class(label: str, listener: OnDownload | None, stopped: threading.Event) -> type[Any]:
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # the client has no types
        """It ends the download once that is stopped; where somebody listens, it tells of bytes in place of drawing."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            self.counts_bytes = settings.get("unit") == "B"
            super().__init__(*args, **settings | ({"disable": True} if listener else {}))

        def update(self, n: float | None = 1) -> None:
            """Count some more: bytes of files, or files."""
            if stopped.is_set():
                raise InterruptedError("the download was stopped")
            if listener is None:
                super().update(n)
                return
            self.n += n or 0
            if self.counts_bytes and self.total:
                listener(label, int(self.n), int(self.total))

    return Bar


def _abort_chunks() -> None:
    """End what hf_xet transfers: it hears of an interrupt in the main thread alone."""
    with suppress(ImportError, AttributeError):  # where the client has no such part
        from huggingface_hub.utils._xet import abort_xet_session

        abort_xet_session()
