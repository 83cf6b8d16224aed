"""A rule at one port of loopback that speaks OpenAI's chat completions, as a model does.

The first line of its output is its URL. The port is the one in the port file, so that the next run finds the same rule
there: to a journal, a model at another place is another one.
"""

from __future__ import annotations

import json
import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click

__all__ = ["RuleServer", "serve"]

PATHS = ("/v1/chat/completions", "/chat/completions")
LONGEST_BYTES = 1 << 22


class RuleServer(ThreadingHTTPServer):
    """A rule at one port of loopback; 0 for any that is free. `prompts` says which it answers.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64
    model: str
    prompts: str

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)

    @abstractmethod
    def reply(self, prompt: str) -> str | None:
        """Answer a prompt; None for one that the rule is not about."""

    @property
    def url(self) -> str:
        """What goes into `--judge-url` and the like."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _rule(self) -> RuleServer:
        assert isinstance(self.server, RuleServer), "nobody else makes one"
        return self.server

    def do_POST(self) -> None:
        """One chat completion."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.path not in PATHS or not 0 < length <= LONGEST_BYTES:
            return self._refuse(404, f"expected a chat completion at {PATHS[0]}")
        try:
            body = json.loads(self.rfile.read(length))
            model, prompt = body["model"], body["messages"][-1]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return self._refuse(400, f"no chat completion is asked for ({error!r})")
        rule = self._rule
        if model != rule.model:
            return self._refuse(404, f"no model {model!r} here, only {rule.model}")
        if isinstance(prompt, list):  # parts, of which the only one is a text
            prompt = "".join(str(part.get("text", "")) for part in prompt)
        text = rule.reply(prompt) if isinstance(prompt, str) else None
        if text is None:
            return self._refuse(422, f"{rule.model} is a rule for {rule.prompts}; this is none of them")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return self._send(200, {"object": "chat.completion", "model": rule.model, "choices": [choice]})

    def do_GET(self) -> None:
        """Return the list of models, by which others find out whether somebody is there."""
        self._send(200, {"object": "list", "data": [{"id": self._rule.model, "object": "model", "owned_by": "toy"}]})

    def _refuse(self, status: int, words: str) -> None:
        self.close_connection = True  # what is left of the request is not read
        self._send(status, {"error": {"message": words}})

    def _send(self, status: int, answer: dict[str, object]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing: a line for each of thousands of questions helps nobody."""


def open_server(kind: Callable[[int], RuleServer], port_file: Path | None) -> RuleServer:
    """Open a server at the port that the file names; without one, or if it is taken, at any, which is then written."""
    known = port_file.read_text().strip() if port_file and port_file.is_file() else ""
    try:
        server = kind(int(known) if known.isdecimal() else 0)
    except OSError:
        click.echo(f"Port {known} is taken: what was asked there is asked again at another one.", err=True)
        server = kind(0)
    if port_file:
        port_file.parent.mkdir(parents=True, exist_ok=True)
        port_file.write_text(f"{server.server_port}\n")
    return server


def stop_with(parent: int, server: RuleServer) -> None:
    """Stop the server when the process that started it is gone, however it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        server.shutdown()

    threading.Thread(target=watch, daemon=True).start()


def serve(kind: Callable[[int], RuleServer], port_file: Path | None) -> None:
    """Answer until interrupted, or until whoever started this is gone."""
    with open_server(kind, port_file) as server:
        click.echo(server.url)
        stop_with(os.getppid(), server)
        server.serve_forever(0.1)
