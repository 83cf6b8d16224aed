from __future__ import annotations

import math
import os
import sys

import numpy
import pytest
import torch

from evaluators.python import PythonFunction
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Evaluator, Split
from soup.evaluation.functions import to_score
from soup.evaluation.settings import EvalSettings
from soup.support.plugins import load_object
from soup.testing import check_evaluator
from tests.helpers.scripted_models import ToyCandidate

FILE = """
import pathlib

def score(checkpoint):
    assert isinstance(checkpoint, str)
    return float(pathlib.Path(checkpoint, "value").read_text())

def several(checkpoint):
    return {"one": 10, "two": 30.5}

def explode(checkpoint):
    raise ValueError("no such language")

def hang_up(checkpoint):
    raise KeyboardInterrupt

def broken(checkpoint):
    return BROKEN

number = 5
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "judge.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def candidate(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "value").write_text("61.8")
    return ToyCandidate(tmp_path / "checkpoint", tmp_path / "scratch", "digest")


def benchmark(target, **rest):
    return Benchmark(f"python:{target}", "python", str(target), **rest)


def evaluator():
    return PythonFunction(EvalSettings())


def test_a_function_gets_the_candidates_directory_and_its_number_is_the_score(file, candidate):
    assert isinstance(evaluator(), Evaluator)
    score = evaluator().evaluate(candidate, benchmark(f"{file}:score"))
    assert (score.value, score.n, score.questions, score.parts) == (61.8, None, None, {})
    assert candidate.calls == ["directory"]


def test_each_number_of_a_dict_is_a_part_and_their_mean_the_value(file, candidate):
    score = evaluator().evaluate(candidate, benchmark(f"{file}:several"))
    assert score.value == 20.25
    assert score.parts == {"one": 10, "two": 30.5}


def test_a_function_of_a_package_is_found_by_its_module(file, candidate, monkeypatch):
    package = file.parent / "soup_toy_judges"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(FILE)
    monkeypatch.syspath_prepend(str(file.parent))
    target = benchmark("soup_toy_judges.one:score")
    assert evaluator().evaluate(candidate, target).value == 61.8
    assert evaluator().identity(target)["code"] == evaluator().identity(benchmark(f"{file}:score"))["code"]


def test_the_identity_changes_with_the_code_and_not_with_the_place(file):
    before = evaluator().identity(benchmark(f"{file}:score"))
    assert before["function"] == "judge.py:score"
    moved = file.parent / "elsewhere" / "judge.py"
    moved.parent.mkdir()
    moved.write_text(FILE)
    assert evaluator().identity(benchmark(f"{moved}:score")) == before
    moved.write_text(FILE + "\n# stricter")
    assert evaluator().identity(benchmark(f"{moved}:score")) != before


def test_an_edited_file_runs_as_it_is_now_and_nothing_is_written_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "judge.py"
    for value in (1, 2):  # of one size and one date, by which Python's cache would take the second for the first
        path.write_text(f"value = {value}\n")
        os.utime(path, (10**9, 10**9))
        assert load_object(f"{path}:value", "evaluator", EvaluatorError) == value
    assert [path.name for path in tmp_path.iterdir()] == ["judge.py"]


def test_a_split_is_refused_before_any_work(file, candidate):
    target = benchmark(f"{file}:score", split=Split("selection", 0.5))
    for work in (lambda: evaluator().identity(target), lambda: evaluator().evaluate(candidate, target)):
        with pytest.raises(EvaluatorError, match="can't be split; leave `split` out"):
            work()
    assert candidate.calls == []


def test_a_function_of_which_only_the_first_score_shows_that_it_tells_no_questions_is_refused_then(file, candidate):
    file.write_text(FILE + "# it asks many questions")
    target = benchmark(f"{file}:score", split=Split("selection", 0.5))
    evaluator().identity(target)
    with pytest.raises(EvaluatorError, match="can't be split; leave `split` out"):
        evaluator().evaluate(candidate, target)


QUESTIONS = """
def score(checkpoint):
    return {"questions": {str(index): index % 3 / 2 for index in range(30)}}
"""


def test_points_of_questions_are_scored_by_their_mean_and_the_halves_of_a_split_are_the_whole(file, candidate):
    file.write_text(QUESTIONS)
    whole = check_evaluator(PythonFunction, benchmark(f"{file}:score"), candidate)
    assert (whole.value, whole.n, whole.questions["2"]) == (50, 30, 1)
    split = Split("selection", 0.5)
    half = evaluator().evaluate(candidate, benchmark(f"{file}:score", split=split))
    assert half.questions == {index: points for index, points in whole.questions.items() if split.holds(index)}
    assert half.value == pytest.approx(100 * sum(half.questions.values()) / half.n)


def test_a_split_that_leaves_no_question_is_told(file, candidate):
    file.write_text("def score(checkpoint):\n    return {'questions': {'7': True}}\n")
    empty = "report" if Split("selection", 0.5).holds("7") else "selection"
    for part in ("selection", "report"):  # of both at once: the other would be found empty after the search
        with pytest.raises(EvaluatorError, match=f"none of its 1 questions is in the {empty} part"):
            evaluator().evaluate(candidate, benchmark(f"{file}:score", split=Split(part, 0.5)))


def test_points_may_be_truth_values_and_scalars_of_numpy():
    score = to_score({"questions": {1: True, 2: numpy.float32(0.5), "c": numpy.bool_(False)}}, "x")
    assert score.questions == {"1": 1.0, "2": 0.5, "c": 0.0}
    assert score.value == 50


def test_a_part_may_be_called_questions():
    assert to_score({"questions": 61.8, "answers": 40}, "x").parts == {"questions": 61.8, "answers": 40}


def test_a_function_that_raises_is_told_with_the_end_of_its_traceback(file, candidate):
    with pytest.raises(EvaluatorError) as caught:
        evaluator().evaluate(candidate, benchmark(f"{file}:explode"))
    for words in ("ValueError: no such language", "judge.py", "in explode", "Call it with a checkpoint's directory"):
        assert words in str(caught.value)


def test_ctrl_c_is_not_the_functions_failure(file, candidate):
    with pytest.raises(KeyboardInterrupt):
        evaluator().evaluate(candidate, benchmark(f"{file}:hang_up"))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "61.8",
        True,
        math.nan,
        math.inf,
        -0.1,
        100.1,
        [50],
        {},
        {"a": None},
        {"a": math.nan},
        {"a": True},
        {3: 4},
        {"questions": {}},
        {"questions": {"a": 2}},
        {"questions": {"a": math.nan}},
        {"questions": {"a": "1"}},
        {"questions": {1: 0.5, "1": 1.0}},
        {"questions": {"a": 1}, "score": 50},
        {"questions": {"\ud83d": 1}},
        {"\ud83d": 50},
        1j,
    ],
    ids=ascii,
)
def test_what_is_no_score_is_an_error_and_never_a_zero(value):
    with pytest.raises(EvaluatorError, match=r"python:judge\.py:f"):
        to_score(value, "python:judge.py:f")


@pytest.mark.parametrize("value", [50, 50.0, numpy.float32(50), numpy.int64(50), numpy.array(50.0), torch.tensor(50.0)])
def test_scalars_of_numpy_and_torch_are_numbers(value):
    assert to_score(value, "x").value == 50
    assert type(to_score({"a": value}, "x").parts["a"]) in (int, float)


@pytest.mark.parametrize(("value", "score"), [(100.00000000000001, 100), (-1e-12, 0), (numpy.float32(100.00001), 100)])
def test_a_score_beyond_the_ends_by_rounding_is_the_end(value, score):
    assert to_score(value, "mine").value == score
    assert to_score({"part": value}, "mine").parts == {"part": score}
    points = to_score({"questions": {"q": value / 100}}, "mine").questions
    assert points == {"q": score / 100}


def test_zero_has_no_sign():
    assert str(to_score(-0.0, "mine").value) == "0.0"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("{file}:scoer", "Did you mean 'score'"),
        ("{file}.py:score", "no such file"),
        ("{file}:number", "expected a function, found 5"),
        ("{file}", "expected FILE.py:NAME"),
        ("no.such.package:score", "no.such.package"),
    ],
)
def test_a_function_that_is_not_there_is_told_before_any_work(target, words, file):
    with pytest.raises(EvaluatorError, match=words):
        evaluator().identity(benchmark(target.format(file=file)))


def test_a_file_that_can_not_be_imported_is_told(file):
    file.write_text("import no_such_package_of_ours")
    with pytest.raises(EvaluatorError, match="no_such_package_of_ours"):
        evaluator().identity(benchmark(f"{file}:score"))
