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
    if sys.stderr is not None:  # it may be closed
        faulthandler.enable()  # a crash in a library's C code says at which line of Python it came
    atexit.register(gc.freeze)  # else Python looks for garbage at its end: a second with torch and transformers
    from soup.cli.app import main

    main()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End at once: nothing is under way, and an exception in the midst of an import may surface as another one."""
    os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
