"""A bound in time: what it interrupts, and that it leaves the process as it was."""

from __future__ import annotations

import contextlib
import signal
import threading
import time

import pytest

from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Split
from soup.evaluation.settings import EvalSettings
from soup.evaluation.suite import BenchmarkSuite, SuiteEntry, _failure, build_suite, deadline
from soup.support.plugins import EVALUATORS


class Asked:
    """A harness that counts how often it is asked which questions there are."""

    count = 0

    def identity(self, benchmark):
        self.count += 1
        return {"part": benchmark.split.part}


def test_a_harness_is_asked_once_which_questions_a_part_has():
    harness, report = Asked(), Split("report", 0.5)
    suite = BenchmarkSuite((SuiteEntry.ask(Benchmark("toy", "toy", "toy"), harness),))
    parts = [suite.on(report) for _ in range(3)]
    assert harness.count == 2
    assert {part.split for part in parts} == {report}
    assert parts[0].entries[0].identity == {"part": "report"}
    assert suite.on(Split("selection", 0.5)).entries[0].identity == {"part": "selection"}
    assert suite.on(suite.split) is suite


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_bound_that_is_no_time_is_refused_before_any_work(seconds):
    with pytest.raises(EvaluatorError, match="`timeout_seconds` must be a number of seconds above 0"):
        build_suite([], EvalSettings(timeout_seconds=seconds))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (EvalSettings(engine="vllm"), "`engine`: no engine is asked for demo:colour"),
        (EvalSettings(model="mine.py:Model"), "`model`: no engine is asked for demo:colour"),
        (EvalSettings(engine_args={"x": 1}, batch_size=8), "`engine_args`, `batch_size`: no engine is asked for"),
        (
            EvalSettings(engine="openai", engine_url="http://localhost:8000/v1"),
            "`engine`, `engine_url`: no engine is asked for demo:colour. Leave it out",
        ),
    ],
)
def test_an_engine_that_would_answer_nothing_is_refused(settings, words):
    """A score by other means would be taken for one of what stands behind it."""
    with pytest.raises(EvaluatorError, match=words):
        build_suite([Benchmark("demo:colour", "demo", "colour")], settings)


@pytest.mark.parametrize("asked", ["127.0.0.1:8000/v1", None])
def test_an_address_that_the_engine_does_not_ask_is_refused(asked, monkeypatch):
    """An engine that asks an endpoint names it in its identity."""

    class Harness:
        def identity(self, benchmark):
            return {"answering": {"engine": "serve", "url": asked}}

    monkeypatch.setattr(EVALUATORS, "get", lambda name: lambda settings: Harness())
    settings = EvalSettings(engine="serve", engine_url="http://127.0.0.1:8000/v1/")
    with (
        contextlib.nullcontext()
        if asked
        else pytest.raises(EvaluatorError, match="`engine_url`: nobody asks it; say `engine`")
    ):
        build_suite([Benchmark("toy", "toy", "toy")], settings)


@pytest.mark.parametrize("name", ["vlmeval:POPE", "POPE"])
def test_a_failure_names_its_benchmark_once(name, tmp_path):
    told = _failure(EvaluatorError(f"{name}: no answer"), Benchmark("vlmeval:POPE", "vlmeval", "POPE"), tmp_path)
    assert told.startswith("no answer\nThe whole trace: ")


def test_a_failure_is_told_where_no_log_can_be_kept(tmp_path):
    told = _failure(EvaluatorError("no answer"), Benchmark("POPE", "vlmeval", "POPE"), tmp_path / "removed")
    assert told == "no answer\nScores so far are kept: mend the cause and type the same command."


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ({"judge_url": "http://127.0.0.1:1/v1", "judge_model": "a-judge"}, "`judge_url`, `judge_model`"),
        ({"judge_engine": "vllm"}, "`judge_engine`"),
        ({"judge_engine_args": {"requests": 2}}, "`judge_engine_args`"),
        ({"judge_images": True}, "`judge_images`"),
    ],
)
def test_a_judge_that_would_grade_nothing_is_refused(typed, names):
    settings, benchmark = EvalSettings(**typed), Benchmark("demo:colour", "demo", "colour")
    with pytest.raises(EvaluatorError, match=f"^{names}: no judge is asked for demo:colour. Leave it out, or name"):
        build_suite([benchmark], settings)
    assert build_suite([benchmark], settings.without_judge()).entries


@pytest.mark.parametrize(("prompts", "shown"), [("grades 1", False), ("compares 1, with pictures", True)])
def test_pictures_for_a_judge_that_is_shown_none_are_refused(prompts, shown, monkeypatch):
    class Harness:
        def identity(self, benchmark):
            return {"voters": {"judge": {"model": "a", "prompts": prompts}}}

    monkeypatch.setattr(EVALUATORS, "get", lambda name: lambda settings: Harness())
    settings = EvalSettings(judge_url="http://127.0.0.1:1/v1", judge_model="a", judge_images=True)
    with contextlib.nullcontext() if shown else pytest.raises(EvaluatorError, match=r"`judge_images`: .* no pictures"):
        build_suite([Benchmark("toy", "toy", "toy")], settings)


@pytest.mark.parametrize("identity", [{"judge": {"model": "a"}}, {"voters": {"judge": {"model": "a"}}}])
def test_a_judge_that_grades_one_of_the_benchmarks_is_taken(identity, monkeypatch):
    class Harness:
        def identity(self, benchmark):
            return identity if benchmark.name == "graded" else {}

    monkeypatch.setattr(EVALUATORS, "get", lambda name: lambda settings: Harness())
    settings = EvalSettings(judge_url="http://127.0.0.1:1/v1", judge_model="a")
    benchmarks = [Benchmark(name, "toy", name) for name in ("matched", "graded")]
    assert build_suite(benchmarks, settings).entries
    with pytest.raises(EvaluatorError, match="no judge is asked for matched"):
        build_suite(benchmarks[:1], settings)


@pytest.mark.parametrize("late", [False, True], ids=["in time", "too late"])
def test_the_process_s_own_alarm_is_put_back_and_none_is_left_running(late):
    def alarm(number, frame):
        raise AssertionError("nobody set it")

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        if late:
            with (
                pytest.raises(
                    EvaluatorError, match=r"no answer within 0\.05 seconds \(`timeout_seconds`\); it was in "
                ),
                deadline(0.05),
            ):
                time.sleep(10)
        else:
            with deadline(10):
                pass
        assert signal.getsignal(signal.SIGALRM) is alarm
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("seconds", [1e-9, 1e-5])
def test_a_time_that_is_up_before_the_work_begins_is_told_like_any_other(seconds):
    before = signal.getsignal(signal.SIGALRM)
    for _ in range(20):
        with pytest.raises(EvaluatorError, match="no answer within"), deadline(seconds):
            time.sleep(0.001)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_score_that_came_too_late_because_the_interrupt_was_caught_is_none():
    with pytest.raises(EvaluatorError, match="caught the interrupt and went on"), deadline(0.05):
        _catch_all(10)


def _catch_all(seconds):
    with contextlib.suppress(BaseException):
        time.sleep(seconds)


@pytest.mark.parametrize(
    ("seconds", "ended"), [(0.01, "no answer within 0.01 seconds (`timeout_seconds`)."), (10, None)]
)
def test_where_no_alarm_can_interrupt_lateness_is_told_afterwards(seconds, ended):
    """In a thread that is not the main one."""
    messages = []

    def work():
        try:
            with deadline(seconds):
                time.sleep(0.05)
            messages.append(None)
        except EvaluatorError as error:
            messages.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert messages == [ended]
