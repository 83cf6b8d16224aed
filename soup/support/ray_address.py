"""The address of a Ray cluster."""

from __future__ import annotations

import socket

__all__ = ["require_listener"]


def require_listener(address: str) -> None:
    """Fail at once where nobody listens: Ray itself would try again for minutes.

    Args:
        address: `HOST:PORT`, with `ray://` before it or without; others, such as `auto`, are Ray's to look up.

    Raises:
        OSError: Nobody listens there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
