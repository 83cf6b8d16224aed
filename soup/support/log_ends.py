"""How a log ends: all that an error shows of it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["LINES", "last_lines", "log_tail"]

LINES = 15
LINE_BYTES = 200  # of a line, on average: no more is read


def last_lines(log: Path, count: int = LINES) -> list[str]:
    """Give the last lines of a log, without reading all of it; none of one that can't be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LINE_BYTES * count))
            return file.read().decode(errors="replace").rstrip().splitlines()[-count:]
    except OSError:
        return []


def log_tail(log: Path) -> str:
    """Say where a log lies, and how it ends."""
    return f" Log: {log}, which ends:\n" + "\n".join(last_lines(log))
