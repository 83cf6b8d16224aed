"""`--engine serve --engine-arg command='... {checkpoint} ... {port}'`: the user's server, started on each candidate.

Works with whatever speaks OpenAI's chat completions: vLLM, SGLang, LMDeploy, `transformers serve`.
"""

from __future__ import annotations

import atexit
import os
import shlex
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from evaluators.answering.endpoint import ChatEndpoint
from evaluators.answering.engines.requests import ask_endpoint
from soup.errors import EvaluatorError
from soup.evaluation.api import Candidate, OnBatch, Prompt
from soup.evaluation.settings import EvalSettings
from soup.support.child_process import ChildProcess
from soup.support.file_lock import FileLock
from soup.support.log_ends import log_tail
from soup.support.options import option_name
from soup.support.text import pluralize, without_secrets

__all__ = ["Serve"]

POLL_SECONDS = 0.2
READY_SECONDS = 10.0  # that one question whether it is ready may take: some listen while they load, and answer later
READY_PATHS = ("/health", "/v1/models")
PLACEHOLDERS = ("{checkpoint}", "{port}")


class Serve:
    """A server of your own, started on each candidate's directory, asked by many requests at once, and stopped.

    Args:
        settings: The settings.
        command: What starts it, split into words as by a shell, without one; `{checkpoint}` and `{port}` are filled in.
        model: The model's name there; by default the checkpoint's directory, as vLLM and `transformers serve` have it.
        requests: How many are under way at once.
        max_new_tokens: How long an answer may become.
        start_seconds: How long it may take until it answers `/health` or `/v1/models`.
        timeout_seconds: How long an answer is waited for.
        version: The server's, or whatever tells it from others: a part of the key of scores.

    Raises:
        EvaluatorError: no command, one without a placeholder, or one that can't be split into words.
    """

    def __init__(
        self,
        settings: EvalSettings,
        *,
        command: str = "",
        model: str | None = None,
        requests: PositiveInt = 32,
        max_new_tokens: PositiveInt = 2048,
        start_seconds: PositiveFloat = 1800,
        timeout_seconds: PositiveFloat = 600,
        version: str | None = None,
    ) -> None:
        if missing := [name for name in PLACEHOLDERS if name not in command]:
            raise EvaluatorError(
                f"{option_name('engine')} serve: needs {option_name('engine_args', 'engine-arg')} command='...' with "
                f"{' and '.join(missing)} in it, e.g. command='vllm serve {{checkpoint}} --port {{port}}'."
            )
        try:
            self._words = shlex.split(command)
        except ValueError as reason:  # of a quotation that does not end
            raise EvaluatorError(f"{option_name('engine_args', 'engine-arg')} command={command}: {reason}.") from None
        self._command, self._model, self._version = command, model, version
        self._requests, self.max_new_tokens = requests, max_new_tokens
        self._start_seconds, self._timeout_seconds = start_seconds, timeout_seconds
        self._server: ChildProcess | None = None
        self._port_lock: FileLock | None = None
        self._endpoint: ChatEndpoint | None = None
        self._served = ""

    def identity(self) -> Mapping[str, object]:
        """Return the command and the decoding; what the server's version is nobody says but the user."""
        facts = {"engine": "serve", "command": self._command, "decoding": "greedy"}
        version = {} if self._version is None else {"version": str(self._version)}
        return {**facts, **version, "max_new_tokens": self.max_new_tokens}

    def check(self, checkpoint: Path) -> None:
        """Look at nothing: only the server knows what it can load."""

    def open(self, candidate: Candidate) -> None:
        """Start a server on the candidate's directory, and wait until it answers."""
        directory = candidate.directory()
        port, self._port_lock = _reserved_port()
        values = {"{checkpoint}": str(directory), "{port}": str(port)}
        words = [_filled(word, values) for word in self._words]
        log = candidate.logs / f"serve-{os.getpid()}.log"
        self._endpoint = ChatEndpoint(f"http://127.0.0.1:{port}/v1", "", "port", self._timeout_seconds)
        self._served = self._model or str(directory)
        atexit.register(self.close)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as log_file:
                log_file.write(f"$ {without_secrets(shlex.join(words))}\n")
            self._server = ChildProcess(words, log)
            self._wait(self._server, self._endpoint)
        except BaseException:
            self.close()
            raise

    def swap(self, candidate: Candidate) -> None:
        """Start another server in the place of this one."""
        self.close()
        self.open(candidate)

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Answer prompts by several requests at once."""
        assert self._server is not None
        assert self._endpoint is not None
        try:
            return ask_endpoint(
                self._endpoint,
                self._served,
                prompts,
                on_batch,
                requests=self._requests,
                max_new_tokens=self.max_new_tokens,
            )
        except EvaluatorError as reason:
            code = self._server.exit_code()
            ended = "" if code is None else f" It ended with exit code {code}."
            raise EvaluatorError(
                f"The server of {option_name('engine')} serve: {reason}.{ended}{self._end()}"
            ) from None

    def close(self) -> None:
        """Stop the server, and all that it started."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._port_lock is not None:
            self._port_lock.release()
            self._port_lock = None
        atexit.unregister(self.close)

    def _wait(self, server: ChildProcess, endpoint: ChatEndpoint) -> None:
        until = time.monotonic() + self._start_seconds
        # One that went into the background ended well; whoever answers for one that ended badly is another's.
        patience_seconds = min(READY_SECONDS, self._start_seconds)
        while not (endpoint.is_up(*READY_PATHS, timeout_seconds=patience_seconds) and not server.exit_code()):
            if (code := server.exit_code()) is not None:
                raise EvaluatorError(f"The server ended with exit code {code} before it was ready.{self._end()}")
            if time.monotonic() > until:
                raise EvaluatorError(
                    f"The server was not ready within {pluralize(self._start_seconds, 'second')}: {endpoint.host} "
                    f"answered neither {' nor '.join(READY_PATHS)}. Does it listen on {{port}}?{self._end()}"
                )
            time.sleep(POLL_SECONDS)

    def _end(self) -> str:
        return log_tail(self._server.log) if self._server is not None else ""


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _reserved_port() -> tuple[int, FileLock]:
    """Return a port that nobody listens on, and the lock that keeps other runs of soup from it.

    A server may load for minutes before it listens, and then the port is free for others: the one that comes second
    would end, or its run would ask the first one's server.
    """
    while True:
        port = _free_port()
        with suppress(PermissionError):  # another user's
            if lock := FileLock.take(Path(tempfile.gettempdir(), f"soup-port-{port}.lock"), temporary=True):
                return port, lock


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
