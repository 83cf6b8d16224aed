"""What compares formulas that a model wrote has a limit of time, so that no answer can hold up a score."""

from __future__ import annotations

import os

import pytest

from evaluators.vlmeval import limited_calls
from evaluators.vlmeval.limited_calls import LimitedCalls

IS_EQUAL = "dataset.utils.lens.is_equal"
ENDLESS = r"\binom{1000000000}{500000000}"


@pytest.fixture
def is_equal(tmp_path, monkeypatch):
    pytest.importorskip("latex2sympy2_extended")
    monkeypatch.setattr(limited_calls, "SECONDS", 3.0)
    with LimitedCalls(tmp_path) as calls:
        yield calls.functions([IS_EQUAL])["is_equal"]


def test_a_comparison_that_does_not_end_is_not_equal_is_told_and_holds_up_no_other(tmp_path, monkeypatch, caplog):
    pytest.importorskip("latex2sympy2_extended")
    monkeypatch.setattr(limited_calls, "SECONDS", 3.0)
    with LimitedCalls(tmp_path) as calls:
        is_equal = calls.functions([IS_EQUAL])["is_equal"]
        values = [is_equal(answer, "3") for answer in (r"\frac{6}{2}", ENDLESS, ENDLESS, "4", "3", r"\frac{9}{3}")]
    assert values == [True, False, False, False, True, True]
    assert "Of comparisons of formulas 1 took more than 3 s or too much memory" in caplog.text


def test_a_comparison_runs_nothing_that_a_model_wrote(is_equal, tmp_path):
    assert not is_equal(f"open({str(tmp_path / 'made')!r}, 'w').close() or 3", "3")
    assert not (tmp_path / "made").exists()
    assert not is_equal("len('abc')", "3")  # which `eval` would have found equal
    assert is_equal("1 + 2", "3")  # arithmetic of numbers runs nothing


def test_what_a_comparison_raises_is_raised(is_equal, tmp_path):
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        is_equal("3")
    assert is_equal("3", "3")


def test_the_process_that_compares_is_gone_afterwards(tmp_path):
    pytest.importorskip("latex2sympy2_extended")
    with LimitedCalls(tmp_path) as calls:
        assert calls.functions([IS_EQUAL])["is_equal"]("3", "3")
        number = calls._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
