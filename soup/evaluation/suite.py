"""The benchmarks of a run with their evaluators, and one evaluation: bounded in time, its failures told with a log."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Benchmark, EvalSettings, Evaluator, Score, Split
from soup.evaluation.candidate import SoupCandidate
from soup.support.plugins import EVALUATORS

__all__ = ["BenchmarkSuite", "build_suite", "deadline", "evaluate_once"]


@dataclass(frozen=True)
class BenchmarkSuite:
    """The benchmarks of a run, each with its evaluator and that evaluator's identity for it: ready before any work."""

    seats: tuple[tuple[Benchmark, Evaluator, Mapping[str, Any]], ...]
    timeout_seconds: float | None = None

    @property
    def part(self) -> str:
        """Which of the questions are asked: all, those that choose, or those that report."""
        return self.seats[0][0].split.part

    def on(self, split: Split) -> BenchmarkSuite:
        """The same benchmarks over another part of their questions."""
        if all(benchmark.split == split for benchmark, _, _ in self.seats):
            return self
        seats = [(replace(benchmark, split=split), evaluator) for benchmark, evaluator, _ in self.seats]
        return BenchmarkSuite(tuple((b, e, e.identity(b)) for b, e in seats), self.timeout_seconds)


def build_suite(benchmarks: Sequence[Benchmark], settings: EvalSettings) -> BenchmarkSuite:
    """Build each harness once and ask it about its benchmarks.

    Raises:
        EvaluatorError: a harness is not installed, its data are not here, or it can't split; all are listed.
    """
    if settings.timeout_seconds is not None and not settings.timeout_seconds > 0:
        raise EvaluatorError(f"--timeout must be a number of seconds above 0; found {settings.timeout_seconds}.")
    built: dict[str, Evaluator] = {}
    seats, failed = [], []
    for benchmark in benchmarks:
        try:
            if benchmark.harness not in built:
                built[benchmark.harness] = EVALUATORS.get(benchmark.harness)(settings)
            evaluator = built[benchmark.harness]
            seats.append((benchmark, evaluator, evaluator.identity(benchmark)))
        except EvaluatorError as error:
            failed.append(str(error))
    if failed:
        raise EvaluatorError("\n".join(dict.fromkeys(failed)))
    return BenchmarkSuite(tuple(seats), settings.timeout_seconds)


def evaluate_once(
    evaluator: Evaluator, candidate: SoupCandidate, benchmark: Benchmark, timeout_seconds: float | None
) -> tuple[Score, float]:
    """A candidate's score on a benchmark, and the seconds that it took.

    Raises:
        EvaluatorError: the harness failed, gave no score, or took too long; with the place of its log.
    """
    began = time.monotonic()
    what = f"{'+'.join(candidate.names)} on {benchmark.name}"
    with candidate.evaluation(f"{benchmark.name}-{benchmark.split.part}") as scratch:
        try:
            with deadline(timeout_seconds), redirect_stdout(sys.stderr):  # stdout is for the answer
                score = evaluator.evaluate(candidate, benchmark)
            if not isinstance(score, Score):
                raise EvaluatorError(f"expected a soup.evaluation.Score, found {score!r:.80}.")
        except (Exception, SystemExit) as error:  # a harness may call sys.exit
            if isinstance(error, SoupError) and not isinstance(error, EvaluatorError):
                raise
            raise EvaluatorError(f"{what}: {_failure(error, benchmark, scratch)}") from error
    return score, time.monotonic() - began


def _failure(error: BaseException, benchmark: Benchmark, scratch: Path) -> str:
    """What went wrong, and the log where the whole of it stands: a harness's own, or else the trace."""
    if isinstance(error, EvaluatorError):
        text = str(error).removeprefix(f"{benchmark.name}: ").rstrip()  # the name is told already
    else:
        text = f"the harness failed:\n{''.join(traceback.format_exception(error)[-3:]).rstrip()}"
    if str(scratch) not in text:
        for log in sorted(scratch.glob("*.log")):
            text += f"\nLog: {log}, which ends:\n{log.read_bytes()[-2000:].decode(errors='replace').rstrip()}"
        log = scratch / "error.log"
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        text += f"\nThe whole trace: {log}"
    return f"{text}\nScores told so far are kept: mend the cause and type the same command."


class _TimeUp(BaseException):
    """Raised into an evaluator that took too long. No Exception, or a harness that catches those would swallow it."""


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Interrupt what runs within after so many seconds, by a timer signal; where there is none, tell afterwards.

    Raises:
        EvaluatorError: the time is up.
    """
    message = f"no answer within --timeout {seconds:g} seconds" if seconds else ""
    began = time.monotonic()
    can_interrupt = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not can_interrupt:
        yield
        if seconds is not None and time.monotonic() - began > seconds:
            raise EvaluatorError(f"{message}.")
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    # And again each second, for code that swallows it once; for longer than the clock can count is for ever.
    signal.setitimer(signal.ITIMER_REAL, min(seconds, 1e8), 1.0)
    try:
        yield
    except _TimeUp as up:
        *_, place, _ring = traceback.extract_tb(up.__traceback__)
        raise EvaluatorError(f"{message}; it was in {place.name} ({place.filename}:{place.lineno}).") from up
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
