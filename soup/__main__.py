"""`soup` and `python -m soup`: the command line. Ctrl-C while it is imported ends it without a trace."""

from __future__ import annotations

import atexit
import faulthandler
import gc
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as under nohup
        signal.signal(signal.SIGINT, _leave)
    _open_closed_streams()
    faulthandler.enable()  # a crash in a library's C code says at which line of Python it came
    atexit.register(gc.freeze)  # else Python looks for garbage at its end: a second with torch and transformers
    from soup.cli.app import main

    main()


def _open_closed_streams() -> None:
    """Put the null device where standard streams are closed, as under some daemons.

    A file that is opened next would take the number of one, and hold what libraries print into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the least number that is free
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End at once: nothing is under way, and an exception in the midst of an import may surface as another one."""
    os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
