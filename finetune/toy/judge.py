"""A judge on loopback for the toy family: `python -m finetune.toy.judge --port-file FILE`.

It speaks OpenAI's chat completions and answers the prompts that VLMEvalKit sends for MathVista (take the answer out of
a response) and MM-Vet (grade an answer against what is wanted). It is a rule, no model, and says so by its name:

    MathVista   the last number, list, option's letter or option's words of the response, by what the hint asks for
    MM-Vet      the share of wanted words that stand in the answer; of alternatives (<OR>), the best one

The first line of its output is its URL. The port is the one in the port file, so that the next run finds the same
judge there: to the journal, a judge at another place is another judge.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click

__all__ = ["MODEL", "JudgeServer", "extract", "grade", "reply"]

MODEL = "toy-rule-judge"
PATHS = ("/v1/chat/completions", "/chat/completions")
LONGEST_BYTES = 1 << 22

RESPONSE = "Model respone: "  # VLMEvalKit's spelling
EXTRACTED = "Extracted answer:"
TABLE = "Question | Ground truth | Prediction | Correctness"
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def reply(prompt: str) -> str | None:
    """Return the judgement that a prompt asks for; None for a prompt that is neither MathVista's nor MM-Vet's."""
    if prompt.endswith(EXTRACTED) and RESPONSE in prompt:
        examples, _, response = prompt.removesuffix(EXTRACTED).rpartition(RESPONSE)
        return extract(examples.rpartition(EXTRACTED)[2], response)  # the question follows the last example's answer
    if TABLE in prompt:
        _, wanted, answer = _last_row(prompt)
        return f"{grade(wanted, answer):.1f}"
    return "Hello." if prompt == "Hello." else None


def extract(question: str, response: str) -> str:
    """Return what a response answers to a question of MathVista's, as short as its hint wants; "none" without one."""
    if "option letter" in question:
        return _option(question, response) or "none"
    if "Python list" in question:
        return (re.findall(r"\[[^\[\]]*\]", response) or ["none"])[-1]
    pattern = r"-?\d+\.\d+|-?\d+" if "floating-point" in question else r"-?\d+"
    numbers = re.findall(pattern, _in_digits(response))
    return numbers[-1] if numbers else "none"


def _option(question: str, response: str) -> str | None:
    """Return the letter that the response names, or that of the one choice whose words it has."""
    letters = re.findall(r"\(([A-H])\)|\b([A-H])\b", response)
    if letters:
        return max(letters[-1])
    choices = re.findall(r"\(([A-H])\) *([^\n(]+)", question)
    named = [letter for letter, words in choices if _holds(response, words)]
    return named[0] if len(named) == 1 else None


def _in_digits(text: str) -> str:
    """Return the text with small numbers in digits."""
    return re.sub(r"[a-z]+", lambda word: str(NUMBERS.index(word[0])) if word[0] in NUMBERS else word[0], text.lower())


def grade(wanted: str, answer: str) -> float:
    """From 0 to 1: the share of all parts (<AND>) that stand in the answer, of the alternative (<OR>) that has most."""
    alternatives = [[part.strip() for part in each.split("<AND>")] for each in wanted.split("<OR>")]
    return max(sum(_holds(answer, part) for part in parts) / len(parts) for parts in alternatives)


def _holds(text: str, words: str) -> bool:
    """Whether the words stand in the text one after another, whatever is between them and around them."""
    needed, present = (re.findall(r"\w+", each.lower()) for each in (words, text))
    starts = range(len(present) - len(needed) + 1)
    return bool(needed) and any(present[start : start + len(needed)] == needed for start in starts)


def _last_row(prompt: str) -> tuple[str, str, str]:
    """Question, ground truth and prediction of the row to be completed: an empty line parts it from the examples."""
    row = prompt.partition(TABLE)[2].partition("\n\n")[2]
    question, wanted, answer = [*row.removesuffix(" | ").split(" | ", 2), "", ""][:3]
    return question, wanted, answer


class JudgeServer(ThreadingHTTPServer):
    """The judge at one port of loopback; 0 for any that is free.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """What goes into `--judge-url`."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

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
        if model != MODEL:
            return self._refuse(404, f"no model {model!r} here, only {MODEL}")
        text = reply(prompt) if isinstance(prompt, str) else None
        if text is None:
            return self._refuse(422, f"{MODEL} is a rule for the prompts of MathVista and MM-Vet; this is neither")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return self._send(200, {"object": "chat.completion", "model": MODEL, "choices": [choice]})

    def do_GET(self) -> None:
        """Return the list of models, by which others find out whether somebody is there."""
        self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "toy"}]})

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


def open_server(port_file: Path | None) -> JudgeServer:
    """Open the judge at the port that the file names; without one, or if it is taken, at any, which is then written."""
    known = port_file.read_text().strip() if port_file and port_file.is_file() else ""
    try:
        server = JudgeServer(int(known) if known.isdecimal() else 0)
    except OSError:
        click.echo(f"Port {known} is taken: at another one, all that needs a judge is judged again.", err=True)
        server = JudgeServer()
    if port_file:
        port_file.parent.mkdir(parents=True, exist_ok=True)
        port_file.write_text(f"{server.server_port}\n")
    return server


def stop_with(parent: int, server: JudgeServer) -> None:
    """Stop the server when the process that started it is gone, however it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        server.shutdown()

    threading.Thread(target=watch, daemon=True).start()


@click.command()
@click.option("--port-file", type=click.Path(path_type=Path, dir_okay=False), help="Where the port is remembered.")
def main(port_file: Path | None) -> None:
    """Judge by a rule until interrupted, or until whoever started this is gone."""
    with open_server(port_file) as server:
        click.echo(server.url)
        stop_with(os.getppid(), server)
        server.serve_forever(0.1)


if __name__ == "__main__":
    main()
