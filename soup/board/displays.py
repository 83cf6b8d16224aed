"""Where a board is seen: on a terminal, in a notebook, or as a line a minute."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group
from rich.jupyter import JupyterRenderable
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

__all__ = ["Display", "LineDisplay", "NotebookDisplay", "TerminalDisplay", "choose_display", "is_terminal"]

LINE_SECONDS = 60.0
"""Between two lines where there is no terminal."""

NOTEBOOK_SECONDS = 1.0
NOTEBOOK_SIZE = (100, 40)
"""Cells and lines of a board in a notebook, which has no height of its own."""

PAGE = '<pre style="line-height:normal;font-family:monospace">{code}</pre>'

Lines = Callable[[int, int], list[Text]]
"""Gives the board's lines for a width and a height."""


class Display(Protocol):
    """Shows a board from `start` to `stop`."""

    def start(self) -> None:
        """Begin to show it."""

    def stop(self) -> None:
        """Show it no more."""


class TerminalDisplay:
    """The lower part of a terminal, drawn again and again; what is printed meanwhile appears above it.

    Args:
        console: The terminal.
        lines: Gives the board's lines.
        stays: Whether its last state stays when it ends.
    """

    def __init__(self, console: Console, lines: Lines, *, stays: bool) -> None:
        def drawn() -> Group:
            return Group(*lines(console.width, console.height - 1))  # the cursor has a line of its own

        # What is printed on stdout is stderr's only where both are the terminal.
        to_terminal = sys.stdout is not None and sys.stdout.isatty()
        self._live = Live(console=console, transient=not stays, get_renderable=drawn, redirect_stdout=to_terminal)

    def start(self) -> None:
        """Take the lower part of the terminal."""
        self._live.start()

    def stop(self) -> None:
        """Leave the terminal as it was, the cursor too."""
        self._live.stop()


class Repeated:
    """A function that is called again and again, by a thread of its own.

    Args:
        seconds: Between two calls.
        call: The function.
    """

    def __init__(self, seconds: float, call: Callable[[], object]) -> None:
        self._seconds, self._call = seconds, call
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to call."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Call no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._call()


class LineDisplay:
    """A line now and then: harnesses that tell nothing are heard of all the same.

    Args:
        line: Gives the line; an empty one is left out.
        say: Prints it.
    """

    def __init__(self, line: Callable[[], str], say: Callable[[str], object]) -> None:
        self._line, self._say = line, say
        self._repeated = Repeated(LINE_SECONDS, self._tell)

    def start(self) -> None:
        """Begin to print."""
        self._repeated.start()

    def stop(self) -> None:
        """Print no more."""
        self._repeated.stop()

    def _tell(self) -> None:
        if text := self._line():
            self._say(text)


class NotebookDisplay:
    """An output of a notebook's cell that changes, from when there is something to show; its last state stays.

    Args:
        lines: Gives the board's lines.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines, self._repeated = lines, Repeated(NOTEBOOK_SECONDS, self._update)
        self._handle: DisplayHandle | None = None
        self._lock = threading.Lock()  # or two threads could make two outputs

    def start(self) -> None:
        """Begin to show it."""
        self._repeated.start()

    def stop(self) -> None:
        """Show the last state."""
        self._repeated.stop()
        self._update()

    def _update(self) -> None:
        from IPython.display import display

        with self._lock:
            lines = self._lines(*NOTEBOOK_SIZE)
            if self._handle is not None:
                self._handle.update(_drawn(lines))  # type: ignore[no-untyped-call]  # IPython has no types
            elif lines:
                self._handle = display(_drawn(lines), display_id=True)  # type: ignore[no-untyped-call]  # nor here


def _drawn(lines: list[Text]) -> JupyterRenderable:
    page = Console(file=StringIO(), record=True, width=NOTEBOOK_SIZE[0], force_jupyter=False, force_terminal=True)
    page.print(Group(*lines))
    html = page.export_html(inline_styles=True, code_format=PAGE, clear=False)
    return JupyterRenderable(html, page.export_text())


class _Nothing:
    """Shows nothing."""

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


def choose_display(
    console: Console, lines: Lines, line: Callable[[], str], say: Callable[[str], object], *, quiet: bool, stays: bool
) -> Display:
    """Return how a board is shown by a console.

    Args:
        console: Where what is said is printed.
        lines: Gives the board's lines.
        line: Gives the board in one line.
        say: Prints a line.
        quiet: Whether nothing is to be shown.
        stays: Whether its last state stays.
    """
    if quiet:
        return _Nothing()
    if console.is_jupyter:
        return NotebookDisplay(lines)
    return TerminalDisplay(console, lines, stays=stays) if is_terminal(console) else LineDisplay(line, say)


def is_terminal(console: Console) -> bool:
    """Whether what is drawn can be drawn again: a real terminal, whatever is forced for the sake of colours."""
    return console.is_interactive and console.file.isatty()
