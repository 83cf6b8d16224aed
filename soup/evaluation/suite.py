"""The benchmarks of a run with their evaluators, and one evaluation: bounded in time, its failures told with a log."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Benchmark, Evaluator, Score, Split
from soup.evaluation.candidate import SoupCandidate
from soup.evaluation.harnesses import check, target_of, total, why_no_likelihood
from soup.evaluation.run_directory import ERROR_LOG
from soup.evaluation.settings import ENGINE_OPTIONS, JUDGE_OPTIONS, EvalSettings
from soup.merging.pool import Pool
from soup.support.extras import missing_extra
from soup.support.foreign_code import INTERRUPTIONS, Interruption, foreign_code
from soup.support.log_ends import log_tail
from soup.support.options import option_name, options_of
from soup.support.plugins import EVALUATORS
from soup.support.text import pluralize

__all__ = [
    "BenchmarkSuite",
    "SuiteEntry",
    "bounded",
    "build_suite",
    "check_entries",
    "deadline",
    "evaluate_once",
    "evaluate_within",
    "likelihood_suite",
    "time_is_up",
]


@dataclass(frozen=True)
class SuiteEntry:
    """A benchmark with its evaluator, and that evaluator's identity for it."""

    benchmark: Benchmark
    evaluator: Evaluator
    identity: Mapping[str, object]

    @classmethod
    def ask(cls, benchmark: Benchmark, evaluator: Evaluator) -> SuiteEntry:
        """Return the entry of a benchmark, its evaluator asked for its identity."""
        return cls(benchmark, evaluator, evaluator.identity(benchmark))

    def asking(self, only: frozenset[str] | None) -> SuiteEntry:
        """Return the entry of the same benchmark, of which no more than these questions are asked."""
        return self if only is None else replace(self, benchmark=replace(self.benchmark, only=only))

    def total(self, points: Mapping[str, float]) -> float:
        """Return the score that the points of all questions come to, by the benchmark's own rule."""
        return total(self.evaluator, self.benchmark, points)


@dataclass(frozen=True)
class BenchmarkSuite:
    """The benchmarks of a run with their evaluators, ready before any work.

    Args:
        entries: At least one, all over the same part of the questions.
        timeout_seconds: Bounds one evaluation of one candidate on one benchmark.
    """

    entries: tuple[SuiteEntry, ...]
    timeout_seconds: float | None = None
    _parts: dict[Split, BenchmarkSuite] = field(default_factory=dict, repr=False, compare=False)

    @property
    def split(self) -> Split:
        """Which of the questions are asked."""
        return self.entries[0].benchmark.split

    @property
    def notes(self) -> dict[str, str]:
        """What belongs beside a score on a model card, by benchmark: whether another run may answer otherwise."""
        answering = {entry.benchmark.name: entry.identity.get("answering") for entry in self.entries}
        return {
            name: f"batches {facts['batches']}: a rerun may differ in a few answers"
            for name, facts in answering.items()
            if isinstance(facts, Mapping) and "batches" in facts
        }

    def on(self, split: Split) -> BenchmarkSuite:
        """Return the same benchmarks over another part of their questions."""
        if all(entry.benchmark.split == split for entry in self.entries):
            return self
        if split not in self._parts:  # a harness goes through all questions to say which they are
            moved = (SuiteEntry.ask(replace(entry.benchmark, split=split), entry.evaluator) for entry in self.entries)
            self._parts[split] = BenchmarkSuite(tuple(moved), self.timeout_seconds)
        return self._parts[split]


def likelihood_suite(suite: BenchmarkSuite) -> tuple[BenchmarkSuite | None, dict[str, str]]:
    """Return the same benchmarks for the likelihood of their answers, and why some have none; None where none has."""
    reasons = {e.benchmark.name: why_no_likelihood(e.evaluator, e.benchmark) for e in suite.entries}
    able = [entry for entry in suite.entries if reasons[entry.benchmark.name] is None]
    entries = tuple(SuiteEntry.ask(entry.benchmark.likelihood, entry.evaluator) for entry in able)
    silent = {name: reason for name, reason in reasons.items() if reason is not None}
    return (BenchmarkSuite(entries, suite.timeout_seconds) if entries else None), silent


def build_suite(benchmarks: Sequence[Benchmark], settings: EvalSettings) -> BenchmarkSuite:
    """Build each harness once and ask it about its benchmarks.

    Raises:
        EvaluatorError: a harness is not installed, its data are not here, or it can't split; all are listed.
    """
    if settings.timeout_seconds is not None and not settings.timeout_seconds > 0:
        raise EvaluatorError(
            f"{option_name('timeout_seconds', 'timeout')} must be a number of seconds above 0; found "
            f"{settings.timeout_seconds}."
        )
    built: dict[str, Evaluator] = {}
    entries, failures = [], []
    for benchmark in benchmarks:
        try:
            if benchmark.harness not in built:
                built[benchmark.harness] = EVALUATORS.get(benchmark.harness)(settings)
            entries.append(SuiteEntry.ask(benchmark, built[benchmark.harness]))
            if settings.shots and "shots" not in entries[-1].identity:
                raise EvaluatorError(
                    f"{benchmark.name}: {option_name('shots')}: its harness puts no examples before questions."
                )
        except EvaluatorError as error:
            failures.append(str(error))
    if failures:
        raise EvaluatorError("\n".join(dict.fromkeys(failures)))
    _refuse_idle_engine(entries, settings)
    _refuse_unevaluated(benchmarks, settings.judge_for)
    _refuse_idle_judge(entries, settings)
    return BenchmarkSuite(tuple(entries), settings.timeout_seconds)


def _refuse_idle_engine(entries: Sequence[SuiteEntry], settings: EvalSettings) -> None:
    """Refuse an engine and what belongs to it where nothing is answered: the scores would be taken for its own."""
    typed = _typed(ENGINE_OPTIONS, settings)
    answering = [entry.identity["answering"] for entry in entries if "answering" in entry.identity]
    if typed and entries and not answering:
        names = ", ".join(entry.benchmark.name for entry in entries)
        raise EvaluatorError(f"{', '.join(typed)}: no engine is asked for {names}. Leave it out.")
    # What can change an answer stands in the identity: an address that does not is asked by nobody.
    if entries and settings.engine_url and urlsplit(settings.engine_url).netloc not in str(answering):
        raise EvaluatorError(f"{option_name('engine_url')}: nobody asks it; say {option_name('engine')} openai.")


def _typed(names: Sequence[str], settings: EvalSettings) -> list[str]:
    """Return those of some settings that are not the defaults, as the user names them."""
    options = options_of(EvalSettings)
    return [option_name(n, options[n][1].flag) for n in names if getattr(settings, n) != options[n][0]]


def _refuse_idle_judge(entries: Sequence[SuiteEntry], settings: EvalSettings) -> None:
    """Refuse a judge that grades nothing: the scores would be taken for its grades."""
    typed = _typed(JUDGE_OPTIONS, settings)
    judges = [judge for entry in entries for judge in _judges(entry.identity)]
    names = ", ".join(entry.benchmark.name for entry in entries)
    if entries and typed and not judges:
        raise EvaluatorError(
            f"{', '.join(typed)}: no judge is asked for {names}. Leave it out, or name what is to "
            f"use it: {option_name('judge_for')}."
        )
    if entries and settings.judge_images and not any("with pictures" in str(judge) for judge in judges):
        raise EvaluatorError(
            f"{option_name('judge_images')}: the judge of {names} is shown no pictures, as that of an arena is. "
            "Leave it out."
        )


def _judges(facts: object) -> list[object]:
    """Return what an identity says of its judges, at any depth."""
    if not isinstance(facts, Mapping):
        return []
    return [judge for key, value in facts.items() for judge in ([value] if key == "judge" else _judges(value))]


def _refuse_unevaluated(benchmarks: Sequence[Benchmark], judge_for: Sequence[str]) -> None:
    """Refuse a judge for benchmarks that are not evaluated: one that was meant would be scored without it."""
    names = {name for each in benchmarks for name in (each.name, *_targets(each.harness, each.target))}
    idle = [n for n in judge_for if not any(names & _targets(each.harness, n) for each in benchmarks)]
    if idle:
        raise EvaluatorError(
            f"{option_name('judge_for')}: not evaluated: {', '.join(idle)}. Add them to {option_name('eval')}, or "
            f"leave them out. Evaluated: {', '.join(each.name for each in benchmarks)}."
        )


def _targets(harness: str, name: str) -> set[str]:
    """Return a name of a benchmark, and what the harness calls it."""
    return {name, target_of(harness, name) or name}


def check_entries(entries: Iterable[SuiteEntry], pool: Pool) -> None:
    """Have harnesses look for what would stop an evaluation, on all files that candidates of the pool may have.

    Raises:
        EvaluatorError: a benchmark can't be evaluated on candidates with some ingredient's files; all are listed.
    """
    leads = [pool.base] if pool.base else list(pool)
    failures: dict[str, None] = {}
    for entry in entries:
        for lead in leads:
            try:
                check(entry.evaluator, entry.benchmark, lead.checkpoint.path)
            except EvaluatorError as error:
                failures[str(error)] = None
    if failures:
        raise EvaluatorError("\n".join(failures))


def evaluate_once(entry: SuiteEntry, candidate: SoupCandidate, timeout_seconds: float | None) -> tuple[Score, float]:
    """Return a candidate's score on a benchmark, and the seconds that it took.

    Raises:
        EvaluatorError: the harness failed, gave no score, or took too long; with the path of its log.
    """
    began = time.monotonic()
    return evaluate_within(bounded(timeout_seconds), entry, candidate), time.monotonic() - began


@contextmanager
def bounded(seconds: float | None, of_seconds: float | None = None) -> Iterator[None]:
    """Bound a harness's work: so many seconds, and what `foreign_code` keeps of the process. See `deadline`."""
    with foreign_code(), deadline(seconds, of_seconds):
        yield


def evaluate_within(bounds: AbstractContextManager[None], entry: SuiteEntry, candidate: SoupCandidate) -> Score:
    """Return a candidate's score on a benchmark, its harness's work within some bounds.

    Raises:
        EvaluatorError: see `evaluate_once`.
    """
    benchmark = entry.benchmark
    title = f"{'+'.join(candidate.names)} on {benchmark.name}"
    with candidate.evaluation(f"{benchmark.name}-{benchmark.split.part}") as scratch:
        try:
            with bounds:
                score = entry.evaluator.evaluate(candidate, benchmark)
            if not isinstance(score, Score):
                raise EvaluatorError(f"expected a soup.evaluation.Score, found {score!r:.80}.")
            candidate.refuse_changed()
        except INTERRUPTIONS:
            raise
        except BaseException as error:  # a harness may call sys.exit
            if isinstance(error, SoupError) and not isinstance(error, EvaluatorError):
                raise
            raise EvaluatorError(f"{title}: {_failure(error, benchmark, scratch)}") from error
    return score


def _failure(error: BaseException, benchmark: Benchmark, scratch: Path) -> str:
    """Return what went wrong, and the path of the log that holds all of it: a harness's own, or else the trace."""
    if isinstance(error, EvaluatorError):
        text = str(error).rstrip()
        for name in (benchmark.name, benchmark.target):  # it stands before the text
            text = text.removeprefix(f"{name}: ")
    elif missing := missing_extra(error):
        text = missing
    else:
        text = f"the harness failed:\n{''.join(traceback.format_exception(error)[-3:]).rstrip()}"
    if str(scratch) not in text:
        with suppress(OSError):  # a full disk, or a folder that the harness removed, must not hide what failed
            for log in sorted(scratch.glob("*.log")):
                text += f"\n{log_tail(log).lstrip()}"
            log = scratch / ERROR_LOG
            log.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
            text += f"\nThe whole trace: {log}"
    return f"{text}\nScores so far are kept: mend the cause and type the same command."


def time_is_up(seconds: float) -> str:
    """Say that an evaluation took longer than the user allowed."""
    return f"no answer within {pluralize(seconds, 'second')} ({option_name('timeout_seconds', 'timeout')})"


class _TimeUp(Interruption):
    """Raised into an evaluator that took too long."""


@contextmanager
def deadline(seconds: float | None, of_seconds: float | None = None) -> Iterator[None]:
    """Interrupt what runs within after so many seconds, by a timer signal; where there is none, raise afterwards.

    Args:
        seconds: How long it may take; None: for ever.
        of_seconds: What the user allowed, where some of it is spent already.

    Raises:
        EvaluatorError: the time is up.
    """
    message = time_is_up(of_seconds or seconds or 0)
    began = time.monotonic()
    can_interrupt = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not can_interrupt:
        yield
        if seconds is not None and time.monotonic() - began > seconds:
            raise EvaluatorError(f"{message}.")
        return

    is_over = False

    def ring(number: int, frame: FrameType | None) -> None:
        if not is_over:
            raise _TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # And again each second, for code that swallows it once; for longer than the clock can count is for ever. Not
        # before the work within begins: in between nobody would catch it.
        signal.setitimer(signal.ITIMER_REAL, min(max(seconds, 0.01), 1e8), 1.0)
        yield
        is_over = True
    except _TimeUp as up:
        is_over = True
        *_, frame, _ring = traceback.extract_tb(up.__traceback__)
        raise EvaluatorError(f"{message}; it was in {frame.name} ({frame.filename}:{frame.lineno}).") from up
    finally:
        is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if time.monotonic() - began > seconds:
        raise EvaluatorError(f"{message}; what ran caught the interrupt and went on.")
