"""How far downloads from the Hub are: told to whoever listens, in place of the Hub client's own bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["OnDownload", "listening_to_downloads", "progress_bar", "without_client_bars"]

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


def progress_bar(label: str) -> type[Any] | None:
    """Make the class of bars that the Hub's client draws its progress by; None, its own, where nobody listens."""
    listener = _LISTENER.get()
    if listener is None:
        return None
    from huggingface_hub.utils import tqdm

    on_download = listener

    class Bar(tqdm):  # type: ignore[misc]  # the client has no types
        """It draws nothing, and tells the listener what it would show of bytes."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            self.counts_bytes = settings.get("unit") == "B"
            super().__init__(*args, **settings | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            """Count some more: bytes of files, or files."""
            self.n += n or 0
            if self.counts_bytes and self.total:
                on_download(label, int(self.n), int(self.total))

    return Bar
