"""A bound in time: what it interrupts, and that it leaves the process as it was."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from soup.errors import EvaluatorError
from soup.evaluation.settings import EvalSettings
from soup.evaluation.suite import build_suite, deadline


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_bound_that_is_no_time_is_refused_before_any_work(seconds):
    with pytest.raises(EvaluatorError, match="`timeout_seconds` must be a number of seconds above 0"):
        build_suite([], EvalSettings(timeout_seconds=seconds))


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
