"""A shell command as a benchmark: `command:TEMPLATE`, where `{checkpoint}` is the candidate's directory.

The last line that it writes to stdout is a number from 0 to 100, a JSON object of them, or the points of each question,
0 to 1, as `{"questions": {"q1": 1.0, ...}}`, which `--split` can divide. Any other program thus judges soups without a
line of Python.

Card, tables and journal show the template. A key belongs into the environment (`--key "$JUDGE_KEY"`); what looks like
one is shown as ***.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Candidate, Harness, Score
from soup.evaluation.functions import counting_part, refuse_split, to_score
from soup.evaluation.settings import EvalSettings
from soup.support.child_process import end_group
from soup.support.json_text import parse_json
from soup.support.log_ends import log_tail
from soup.support.options import option_name
from soup.support.text import pluralize, without_secrets

__all__ = ["Command"]

PLACEHOLDER = "{checkpoint}"
LOG_NAME = "command.log"
END_BYTES = 1_000_000  # of stdout, for its last line
GRACE_SECONDS = 2.0


class Command(Harness):
    """Runs the user's command, and everything that it starts, in a process group of its own.

    Args:
        settings: The time limit.
    """

    target_hint = "TEMPLATE"
    target_syntax = "rest"

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return the template: what the command itself depends on is not known to soup."""
        _template(benchmark)
        return {"evaluator": "command", "command": without_secrets(benchmark.target)}

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Return the score on the last line of the command's output, all of which is in the scratch's command.log."""
        candidate.scratch.mkdir(parents=True, exist_ok=True)
        log = candidate.scratch / LOG_NAME
        with _filled(_template(benchmark), candidate.directory(), benchmark.name) as line:
            status, output = _run(line, log, self.settings.timeout_seconds, benchmark.name)
        if status != 0:
            outcome = f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
            raise EvaluatorError(f"{benchmark.name}: the command {outcome}.{log_tail(log)}")
        score = _score(output, log, benchmark.name)
        if score.questions is None:
            refuse_split(benchmark)
        return counting_part(score, benchmark)


def _template(benchmark: Benchmark) -> str:
    if PLACEHOLDER not in benchmark.target:
        raise EvaluatorError(
            f"{benchmark.name}: the command has no {PLACEHOLDER}, so that every candidate would get the same score; "
            f"put it where the checkpoint's directory belongs, without quotes."
        )
    return benchmark.target


@contextlib.contextmanager
def _filled(template: str, directory: Path, name: str) -> Iterator[str]:
    """Put the directory into a template, quoted for the shell.

    Within quotes of the template's own, or of a shell in a shell, no quoting is right for every path: for one that is
    not plain a link stands there, for as long as the command runs.
    """
    if _is_plain(directory) or not any(quote in template for quote in "'\"`\\"):
        yield template.replace(PLACEHOLDER, shlex.quote(str(directory)))
        return
    with TemporaryDirectory(prefix="soup-") as folder:
        link = Path(folder) / (re.sub(r"[^\w.-]", "_", directory.name, flags=re.ASCII) or "checkpoint")
        if not _is_plain(link):
            raise EvaluatorError(
                f"{name}: the path {str(directory)!r} can't stand within quotes. Write {PLACEHOLDER} without quotes, "
                "or rename the folder."
            )
        link.symlink_to(directory.absolute(), target_is_directory=True)
        yield template.replace(PLACEHOLDER, str(link))


def _is_plain(path: Path) -> bool:
    return shlex.quote(str(path)) == str(path)


def _run(line: str, log: Path, timeout_seconds: float | None, name: str) -> tuple[int, bytes]:
    """Run a shell's line; return its exit status and the end of stdout. No process of the group outlives the call."""
    log.unlink(missing_ok=True)
    with log.open("ab", buffering=0) as log_file:  # appending: two writers share it
        log_file.write(f"$ {without_secrets(line)}\n".encode(errors="surrogateescape"))
        process, reader, end = None, None, bytearray()
        try:  # a signal may raise an exception as soon as the process is there
            process = subprocess.Popen(
                line,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log_file,
                start_new_session=True,
            )
            reader = threading.Thread(target=_copy, args=(process.stdout, log_file, end), daemon=True)
            reader.start()
            status = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as cause:
            raise EvaluatorError(
                f"{name}: the command did not end within {pluralize(cause.timeout, 'second')} "
                f"({option_name('timeout_seconds', 'timeout')}).{log_tail(log)}"
            ) from cause
        finally:
            if process is not None:
                end_group(process)
            if reader is not None and reader.ident is not None:
                reader.join(GRACE_SECONDS)
    return status, bytes(end)


def _copy(stdout: IO[bytes], log_file: IO[bytes], end: bytearray) -> None:
    """Write what comes into the log at once, and keep the end of it."""
    with stdout:
        while chunk := os.read(stdout.fileno(), 65536):
            with contextlib.suppress(ValueError):  # the log is closed: a process that left the group is still talking
                log_file.write(chunk)
            end += chunk
            del end[:-END_BYTES]


def _score(output: bytes, log: Path, name: str) -> Score:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    try:
        return to_score(parse_json(lines[-1] if lines else "", "the last line", EvaluatorError), name)
    except (ValueError, EvaluatorError) as cause:
        last_line = f"{lines[-1]!r:.200}" if lines else "nothing"
        raise EvaluatorError(
            f"{name}: expected the last line of the command's stdout to be a number from 0 to 100, or a JSON object "
            f"of them or of questions; found {last_line} ({cause}).{log_tail(log)}"
        ) from cause
