"""Comparisons of formulas that a model wrote, each with a limit of time and memory: algebra may never end.

VLMEvalKit calls sympy on answers, in some of its metrics without a limit: `10^{10^{10}}` would be computed. Such a
function is called in a process of its own, which is ended where a call takes too long; what it was to compare is not
equal then, as in VLMEvalKit's metrics that have a limit.
"""

from __future__ import annotations

import logging
import os
import pickle
import resource
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from evaluators.vlmeval.light_import import vlmeval_module
from evaluators.vlmeval.stand_ins import replaced_names
from soup.errors import EvaluatorError
from soup.support.child_process import ChildProcess
from soup.support.log_ends import log_tail

__all__ = ["LimitedCalls", "main"]

logger = logging.getLogger(__name__)

SECONDS = 30.0
"""What VLMEvalKit grants a comparison where it has a limit."""
BYTES = 2 << 30
START = (
    "import sys; sys.path[:] = sys.argv[2:]; from evaluators.vlmeval.limited_calls import main; "
    "main() if __name__ == '__main__' else None"
)


class LimitedCalls:
    """Calls functions of VLMEvalKit's that say whether an answer is right, one at a time, in a process that may end.

    It is started by the first call. A call of the same is not made twice.

    Args:
        folder: Where the process's log is to lie.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "comparisons.log"
        self._turn = threading.Lock()
        self._known: dict[bytes, Any] = {}
        self._process: ChildProcess | None = None
        self._connection: Connection | None = None
        self._ended = 0

    def __enter__(self) -> LimitedCalls:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._ended:
            logger.warning(
                "Of comparisons of formulas %d took more than %g s or too much memory: they count as not equal.",
                self._ended,
                SECONDS,
            )

    def functions(self, names: Sequence[str]) -> dict[str, Callable[..., Any]]:
        """Return what stands for functions, by their own names.

        Args:
            names: In full, such as `dataset.utils.lens.is_equal`.
        """
        return {name.rpartition(".")[2]: self._function(name) for name in names}

    def _function(self, name: str) -> Callable[..., Any]:
        def call(*values: Any, **settings: Any) -> Any:
            plain = [dict(value) if hasattr(value, "to_dict") else value for value in values]
            request = pickle.dumps((name, plain, settings))
            with self._turn:
                if request not in self._known:
                    self._known[request] = self._ask(request)
                value = self._known[request]
            if isinstance(value, Exception):
                raise value
            return value

        return call

    def _ask(self, request: bytes) -> Any:
        """Return what the function says, or raises, of a request; False where it does not end.

        Raises:
            EvaluatorError: the process can't call it.
        """
        if self._connection is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send_bytes(request)
            self._connection.recv_bytes()  # the function is imported by now
        except (EOFError, OSError) as cause:
            raise EvaluatorError(f"The process that compares formulas ended.{log_tail(self._log)}") from cause
        with suppress(EOFError, OSError):
            if self._connection.poll(SECONDS):
                return self._connection.recv()
        self._ended += 1
        self._stop()
        return False

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        words = [sys.executable, "-P", "-c", START, str(theirs.fileno()), *map(os.path.abspath, sys.path)]
        self._process = ChildProcess(words, self._log, pass_fds=[theirs.fileno()])
        theirs.close()

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.stop()
        self._process = self._connection = None


def main() -> None:
    """Call what comes over the connection until it ends."""
    connection = Connection(int(sys.argv[1]))
    is_limited = False
    with suppress(EOFError):
        while True:
            name, values, settings = pickle.loads(connection.recv_bytes())
            module, _, attribute = name.rpartition(".")
            function = getattr(vlmeval_module(module), attribute)
            if not is_limited:
                _limit_memory()
                is_limited = True
            connection.send_bytes(b"")
            try:
                with replaced_names({}):  # cells are read where VLMEvalKit would execute them
                    value = function(*values, **settings)
            except Exception as error:
                value = error
            connection.send(value)


def _limit_memory() -> None:
    """Let the process grow by so many bytes and no more, where the system tells how large it is."""
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))
