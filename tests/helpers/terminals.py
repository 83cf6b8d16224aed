"""A command in a real pseudo-terminal, whose screen is kept by an emulator (pyte): what a person would see."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from dataclasses import dataclass, field

import pyte

LIMIT_SECONDS = 300

PREFERENCES = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
"""What the tests' own environment may say of terminals."""


@dataclass
class Seen:
    """What was on the screen: each state that differs from the last, and the last with its cursor."""

    screens: list[list[str]] = field(default_factory=list)
    code: int = 0
    is_cursor_hidden: bool = False
    raw: bytes = b""

    @property
    def last(self):
        return self.screens[-1]

    def having(self, pattern):
        """The screens of which a line fits."""
        return [screen for screen in self.screens if any(re.search(pattern, line) for line in screen)]


def run_in_terminal(words, *, columns=80, rows=24, env=None, cwd=None, stop_at=None):
    """Run a command; Ctrl-C is pressed once when a line of the screen fits `stop_at`."""
    session, screen = Seen(), pyte.Screen(columns, rows)
    stream, end = pyte.ByteStream(screen), time.monotonic() + LIMIT_SECONDS
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd or ".")
        common = {name: value for name, value in os.environ.items() if name not in PREFERENCES}
        os.execvpe(words[0], [str(word) for word in words], {**common, "TERM": "xterm-256color", **(env or {})})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    listener = select.poll()  # not select(): this process may have many files open
    listener.register(terminal, select.POLLIN)
    while time.monotonic() < end:
        if not listener.poll(100):
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux' way to say that the other side is closed
            break
        session.raw += data
        stream.feed(data)
        shown = [line.rstrip() for line in screen.display]
        if not session.screens or shown != session.screens[-1]:
            session.screens.append(shown)
        if stop_at and any(re.search(stop_at, line) for line in shown):
            os.write(terminal, b"\x03")
            stop_at = None
    os.close(terminal)
    session.code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    session.is_cursor_hidden = screen.cursor.hidden
    return session
