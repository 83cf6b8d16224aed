"""What tells a function of Python's from another one of the same source."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import soup
from soup.errors import EvaluatorError
from soup.evaluation.function_facts import function_facts
from tests.helpers.toy_pools import make_pool

MODULE = """
import math
MARK = {mark}
DATA = object()

def helper(checkpoint):
    return {helper} + math.pi * 0

def score(checkpoint):
    return helper(checkpoint) + MARK + (0 if DATA else 1) + (0 if checkpoint else score(checkpoint))
"""


def constant(value):
    def score(checkpoint):
        return value

    return score


class Judge:
    def __init__(self, value):
        self.value = value

    def score(self, checkpoint):
        return self.value


@pytest.fixture
def pool(tmp_path):
    return make_pool(tmp_path / "ckpts", {"a": [1, 2, 3, 4]})


def overall(pool, function):
    return soup.evaluate(pool / "a", eval=function, run_dir=pool.parent / "run")[0].overall


def in_file(tmp_path, name, **values):
    """The function of a module in a file of its own."""
    (tmp_path / f"{name}.py").write_text(MODULE.format(**{"mark": 1, "helper": 2, **values}))
    sys.path.insert(0, str(tmp_path))
    try:
        return __import__(name).score
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules[name]


def test_closures_methods_and_lambdas_of_one_source_have_scores_of_their_own(pool):
    assert [overall(pool, constant(value)) for value in (10, 20, 10)] == [10, 20, 10]
    judges = [Judge(30), Judge(40)]
    assert [overall(pool, judge.score) for judge in (*judges, judges[0])] == [30, 40, 30]
    lambdas = [lambda path: 50, lambda path: 60]
    assert [overall(pool, function) for function in lambdas] == [50, 60]


@pytest.mark.parametrize("values", [(1, 2), ("a", "b"), ([1, {"a": 2}], [1, {"a": 3}]), ((1,), [1]), (None, False)])
def test_plain_values_are_told_apart_by_what_they_are(values):
    first, second = (function_facts(constant(value)) for value in values)
    assert first != second
    assert function_facts(constant(values[0])) == first


def test_values_that_show_nothing_are_told_apart_by_which_they_are():
    value = threading.Lock()
    assert function_facts(constant(value)) == function_facts(constant(value))
    assert function_facts(constant(value)) != function_facts(constant(threading.Lock()))


def test_arrays_are_known_by_their_numbers():
    assert function_facts(constant(np.arange(3))) == function_facts(constant(np.arange(3)))
    backward = np.arange(3)[::-1]
    assert function_facts(constant(backward)) == function_facts(constant(backward.copy()))
    assert function_facts(constant(np.arange(3))) != function_facts(constant(backward))
    zeros = [np.zeros(4), np.zeros((2, 2)), np.zeros(4, dtype=np.int64)]
    assert len({function_facts(constant(each))["holds"] for each in zeros}) == 3, "shapes and dtypes differ"


class Client:
    """A judge with a setting, and with something that shows nothing."""

    def __init__(self, temperature):
        self.temperature, self.connection = temperature, threading.Lock()


def test_objects_are_known_by_their_class_and_plain_attributes():
    assert function_facts(constant(Client(0.5))) == function_facts(constant(Client(0.5)))
    assert function_facts(constant(Client(0.5))) != function_facts(constant(Client(0.7)))
    assert function_facts(constant(Client(30))) != function_facts(constant(Judge(30)))


def test_numbers_in_an_objects_arrays_are_seen():
    first, second = (Client(np.full(3, number)) for number in (0.0, 1.0))
    assert function_facts(constant(first)) != function_facts(constant(second))
    assert function_facts(Judge(torch.zeros(2)).score) != function_facts(Judge(torch.ones(2)).score)
    assert function_facts(constant(torch.ones(2))) == function_facts(constant(torch.ones(2)))


class Slotted:
    __slots__ = "value"

    def __init__(self, value):
        self.value = value


def test_objects_with_slots_are_known_by_what_these_hold():
    assert function_facts(constant(Slotted(1))) == function_facts(constant(Slotted(1)))
    assert function_facts(constant(Slotted(1))) != function_facts(constant(Slotted(2)))


NOTEBOOK = """
import functools
import numpy as np

TARGET = np.array([1.0, 2.0])
OF_TASK = {"de": np.array([3.0])}

class Config:
    threshold = 0.5

    def __init__(self):
        self.words = ["a"]
        self.parent = self

    @property
    def least(self):
        return 1

    @functools.cached_property
    def most(self):
        return 2

    @classmethod
    def of(cls):
        return 3

CONFIG = Config()

def inner(checkpoint, number):
    return number

@functools.cache
def remembered(checkpoint):
    return 4

german = functools.partial(inner, number=5)

def score(checkpoint):
    return TARGET, OF_TASK, CONFIG, Config, remembered(checkpoint), german(checkpoint)
"""


def test_a_notebooks_functions_are_the_same_in_the_next_process(tmp_path):
    assert function_facts(notebook(tmp_path, "one")) == function_facts(notebook(tmp_path, "two"))


def test_what_an_object_of_a_notebook_remembers_of_a_run_makes_no_other_function(tmp_path):
    score = notebook(tmp_path, "one")
    facts = function_facts(score)
    score.__globals__["CONFIG"].asked = 3
    score.__globals__["CONFIG"].words.append("b")
    assert function_facts(score) == facts


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ("[1.0, 2.0]", "[1.0, 2.5]"),
        ("[3.0]", "[3.5]"),
        ("threshold = 0.5", "threshold = 0.7"),
        ('["a"]', '["b"]'),
        *[(f"return {number}", f"return {number}0") for number in range(1, 5)],
        ("number=5", "number=6"),
    ],
)
def test_what_a_notebooks_function_names_may_change_its_score(tmp_path, was, is_now):
    facts = function_facts(notebook(tmp_path, "before"))
    assert function_facts(notebook(tmp_path, "after", was, is_now)) != facts


def notebook(tmp_path, name, was="", is_now=""):
    """The function of a module that names arrays, objects and classes of its own."""
    path = tmp_path / name / "cells.py"
    path.parent.mkdir()
    assert was in NOTEBOOK
    path.write_text(NOTEBOOK.replace(was, is_now) if was else NOTEBOOK)
    spec = importlib.util.spec_from_file_location("cells", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.score


def test_a_helper_or_a_value_of_the_module_that_was_edited_is_seen(tmp_path):
    facts = function_facts(in_file(tmp_path, "first"))
    assert function_facts(in_file(tmp_path, "other_name")) == facts
    assert function_facts(in_file(tmp_path, "second", helper=3)) != facts
    assert function_facts(in_file(tmp_path, "third", mark=3)) != facts


def test_a_function_that_holds_nothing_keeps_the_key_that_it_had():
    assert list(function_facts(Judge.score)) == ["code"]


def test_the_next_process_knows_a_function_that_holds_plain_values_and_objects_of_such():
    code = (
        "from soup.evaluation.function_facts import function_facts\n"
        "from tests.evaluation.test_function_facts import Client, constant\n"
        "print(function_facts(constant({'a': {1, 2, 'x', 'y', 'z'}})), function_facts(constant(Client({1: {2}}))))"
    )
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(said) == 1


class Callable(Judge):
    def __call__(self, checkpoint):
        return self.value


def added(checkpoint, first, *, second):
    return first + second


def test_objects_that_are_called_and_partial_functions_are_known_by_what_they_hold(pool):
    makers = [lambda value: Callable(value), lambda value: functools.partial(added, first=1, second=value - 1)]
    makers.append(lambda value: functools.partial(functools.partial(added, second=value - 1), first=1))
    for make in makers:
        assert [overall(pool, make(value)) for value in (10, 20, 10)] == [10, 20, 10]
        assert function_facts(make(10)) == function_facts(make(10)) != function_facts(make(20))
    assert function_facts(functools.partial(added, 1)) != function_facts(functools.partial(added, first=1))
    lock = threading.Lock()
    assert function_facts(functools.partial(added, lock)) == function_facts(functools.partial(added, lock))


def test_what_has_no_source_of_python_s_is_refused_by_its_name(pool):
    with pytest.raises(EvaluatorError, match=r"^len: its source can't be read .* python:FILE\.py:FUNCTION"):
        overall(pool, functools.partial(len))


def test_two_functions_of_one_name_are_refused_before_any_work(pool):
    with pytest.raises(EvaluatorError, match=r"`eval`: several benchmarks have one name: score\. Rename"):
        overall(pool, [constant(1), constant(2)])


def test_functions_of_one_name_in_several_threads_score_their_own_models(tmp_path):
    pool = make_pool(tmp_path / "ckpts")
    first_asked, second_done = threading.Event(), threading.Event()

    def made(value):
        def score(checkpoint):
            if value == 10:
                first_asked.set()
                assert second_done.wait(60)
            return value

        return score

    scores = {}

    def run(name, function):
        trials = soup.evaluate(sorted(map(str, pool.iterdir())), eval=function, run_dir=tmp_path / name)
        scores[name] = [trial.overall for trial in trials]

    thread = threading.Thread(target=run, args=("first", made(10)))
    thread.start()
    assert first_asked.wait(60)
    run("second", made(90))
    second_done.set()
    thread.join()
    assert scores == {"first": [10] * 4, "second": [90] * 4}
