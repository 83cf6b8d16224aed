"""`import soup` as a user of Python meets it: names, wrong arguments, functions as benchmarks, workers."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import soup
from soup.errors import EvaluatorError, PoolError, RecipeError, SoupError
from soup.merging import plan as plan_module
from soup.search import preparation
from soup.search import run as run_module
from tests.helpers.toy_pools import calls, make_judge, make_pool

ROOT = Path(soup.__file__).parents[1]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_pool(tmp_path / "ckpts")
    make_judge(tmp_path / "judge")
    return tmp_path


def test_dir_and_help_list_the_public_names_one_line_each():
    assert dir(soup) == soup.__all__
    lines = [line.split() for line in soup.__doc__.splitlines() if line.startswith("    ") and len(line.split()) > 1]
    described = {words[0] for words in lines}
    assert {*soup.__all__} - {"__version__"} <= described


@pytest.mark.parametrize("function", [soup.cook, soup.merge, soup.evaluate, soup.check], ids=lambda f: f.__name__)
def test_a_public_function_has_at_most_twelve_parameters_and_says_what_each_is(function):
    names = list(inspect.signature(function).parameters)
    assert len(names) <= 12
    args = inspect.getdoc(function).partition("Args:")[2].partition("Raises:")[0]
    assert [name for name in names if f"    {name}:" not in args] == []


def test_one_word_means_one_thing_in_all_public_functions():
    functions = [soup.cook, soup.merge, soup.evaluate, soup.check, soup.sweep]
    types = {}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            types.setdefault(name, set()).add(parameter.annotation)
    shared = ("eval", "base", "exclude", "run_dir", "merge", "write", "progress")
    assert {
        name: types[name] for name in shared if len({text.removesuffix(" | None") for text in types[name]}) > 1
    } == {}
    by_type = {}
    for name, texts in types.items():
        for text in texts:
            by_type.setdefault(text, set()).add(name)
    assert by_type["MergeOptions | None"] == {"merge"}
    assert by_type["WriteOptions | None"] == {"write"}
    assert by_type["Progress | None"] == {"progress"}
    assert not any("Callable" in text for text in by_type), "who hears of a run hears it by `progress`"


def test_a_merge_tells_its_progress_what_speaks_against_it_and_how_far_it_is(here):
    soup.cook("average", "ckpts", out="out", merge=soup.MergeOptions(drop=["nothing.*"]))
    heard, phases, read = [], [], []

    def on_phase(*phase):
        phases.append(phase)

    progress = soup.Progress(on_warning=heard.append, on_phase=on_phase, on_bytes=read.append)
    soup.merge("out/recipe.yaml", "again", progress=progress)
    assert heard == ["`drop` nothing.*: no tensor has such a name"]
    assert phases == [("merging", sum(read))]


def test_a_pool_opens_by_its_name(here):
    with soup.Pool("ckpts/") as pool:
        assert pool.names == ("a", "b", "c", "d")
        assert (pool["b"].name, len(pool), pool.base) == ("b", 4, None)
    with soup.Pool(["ckpts/a", "ckpts/b"], base="ckpts/c") as pool:
        assert (pool.names, pool.base.name) == (("a", "b"), "base")
    with pytest.raises(PoolError, match="no such ingredient"):
        soup.Pool("ckpts", exclude=["nobody"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: soup.cook("average", 7), r"pool: expected str or Path or Sequence, found 7 \(int\)"),
        (
            lambda: soup.cook("average", "ckpts", merge="linear"),
            r"merge: expected MergeOptions or None, found 'lin",
        ),
        (
            lambda: soup.cook("average", "ckpts", write=True),
            r"write: expected WriteOptions or None, found True",
        ),
        (lambda: soup.cook("average", "ckpts", out=3.0), r"out: expected str or Path or None, found 3\.0"),
        (lambda: soup.cook("average", "ckpts", exclude="a"), r"exclude: expected list or tuple, found 'a'"),
        (lambda: soup.cook("average", "ckpts", eval=3), r"benchmarks: expected the names of benchmarks, found 3"),
        (lambda: soup.cook("average", "ckpts", eval=[3]), r"benchmarks: expected the names of benchmarks, found \[3\]"),
        (lambda: soup.cook("average", "ckpts", strategy_args=[1]), r"strategy_args: expected Mapping or None"),
        (lambda: soup.cook(None, "ckpts"), r"Strategy strategy: expected a function of a pool and a score, found None"),
        (lambda: soup.EvalConfig("x", split="half"), r"split: expected float or int or None, found 'half'"),
        (lambda: soup.EvalConfig("x", workers="two"), r"workers: expected int, found 'two'"),
        (lambda: soup.EvalConfig("x", objective={"a": 2}), r"objective: expected Objective, found"),
        (lambda: soup.MergeOptions(drop="lm_head.*"), r"drop: expected a list of patterns, found 'lm_head\.\*'"),
        (lambda: soup.MergeOptions(dtype=16), r"dtype: expected str or None, found 16"),
        (lambda: soup.WriteOptions(max_shard_bytes="5GB"), r"max_shard_bytes: expected int or None, found '5GB'"),
        (lambda: soup.merge(3, "out"), r"recipe: expected Recipe or Path or str, found 3"),
        (lambda: soup.merge("r.yaml", "out", write=1), r"write: expected WriteOptions or None, found 1"),
        (lambda: soup.merge("r.yaml", "out", merge=1), r"merge: expected MergeOptions or None, found 1"),
        (lambda: soup.check(None), r"pool: expected str or Path or Sequence, found None"),
        (lambda: soup.check("ckpts", exclude=[3]), r"exclude: expected names of ingredients, found 3"),
        (
            lambda: soup.cook("average", "ckpts", progress=print),
            r"progress: expected Progress or None, found <built-in",
        ),
        (lambda: soup.check("ckpts", progress=True), r"progress: expected Progress or None, found True"),
        (lambda: soup.evaluate("ckpts", eval="x", run_dir=3), r"run_dir: expected str or Path or None, found 3"),
        (lambda: soup.evaluate("ckpts", eval="x", merge="ties"), r"merge: expected MergeOptions or None, found 'ties'"),
        (lambda: soup.Journal(3), r"path: expected str or Path, found 3"),
        (lambda: soup.Objective([2]), r"weights: expected Mapping, found \[2\]"),
        (lambda: soup.Objective({"a": "2"}), r"`weights`: expected a number from 1e-06 to 1e\+06 for a, found '2'"),
        (lambda: soup.Objective({"a": 0}), r"`weights`: expected a number from 1e-06 to 1e\+06 for a, found 0"),
        (lambda: soup.Objective(guards=("a>=-1",)), r"guards: expected Guard\(benchmark, margin\), found 'a>=-1'"),
        (lambda: soup.Pool(3), r"pool: expected str or Path or Sequence, found 3"),
    ],
)
def test_an_argument_of_a_wrong_type_is_an_error_of_soup_s_in_the_words_of_python(here, call, words):
    with pytest.raises(SoupError, match=words) as caught:
        call()
    assert "--" not in str(caught.value)


def test_errors_speak_of_python_s_arguments(here):
    with pytest.raises(EvaluatorError, match=r'pass `eval`, e\.g\. eval="mmbench,ocrbench"'):
        soup.cook("greedy", "ckpts")
    with pytest.raises(SoupError, match="Choose another `out`"):
        soup.cook("average", "ckpts", out="ckpts/out")
    soup.cook("average", "ckpts", out="out")
    with pytest.raises(RecipeError, match="`dtype`: is the recipe's to say"):
        soup.merge("out/recipe.yaml", "again", merge=soup.MergeOptions(dtype="float16"))


def closeness(checkpoint):
    """A function as a benchmark."""
    from safetensors.numpy import load_file

    return 100 - float(abs(load_file(Path(checkpoint) / "model.safetensors")["head"] - [1, 2, 3, 4]).mean())


def test_a_function_is_a_benchmark_and_its_scores_are_remembered(here):
    made = soup.cook("greedy", "ckpts", eval=closeness, out="out")
    assert made.chosen == ("b", "c")
    assert set(made.trials[0].scores) == {"closeness"}
    again = soup.cook("greedy", "ckpts", eval=[closeness], out="out")
    assert all(trial.seconds is None for trial in again.trials)
    (trial,) = soup.evaluate("ckpts/b", eval=closeness)
    assert trial.overall == closeness("ckpts/b")
    with pytest.raises(EvaluatorError, match=r"closeness: a function of this process, which workers don't have"):
        soup.cook("greedy", "ckpts", eval=soup.EvalConfig(closeness, workers=1), out="out2")


def test_results_have_short_reprs_and_are_tables_of_pandas(here):
    made = soup.cook("greedy", "ckpts", eval=closeness, out="out")
    assert repr(made) == "<Soup by greedy: the mean of b + c, in out>"
    assert repr(made.trials[0]).startswith("<Trial of a: 9")
    frame = made.to_pandas()
    assert list(frame.columns) == ["ingredients", "closeness", "overall", "accepted"]
    assert list(frame[frame.accepted].ingredients) == ["b", "b + c"]
    assert "<table" in made._repr_html_()


def test_a_soup_that_is_written_is_planned_once(here, monkeypatch):
    plans = []

    def plan_merge(recipe, *others):
        plans.append(recipe.names)
        return plan_module.plan_merge(recipe, *others)

    for module in (preparation, run_module):
        monkeypatch.setattr(module, "plan_merge", plan_merge)
    soup.cook("average", "ckpts", out="average")
    assert plans == [("a", "b", "c", "d")], "the plan that was checked is the plan that is written"
    plans.clear()
    soup.cook("greedy", "ckpts", eval=closeness, out="greedy")
    assert plans == [("a", "b", "c", "d"), ("b", "c")]


WORKERS = """
import soup
soup.cook("greedy", "ckpts", eval=soup.EvalConfig("python:judge/judge.py:score", workers=2), out="out")
"""


@pytest.mark.parametrize("way", ["script", "heredoc", "-c"])
def test_workers_need_no_guard_in_a_script_a_heredoc_or_a_line(here, way):
    (here / "script.py").write_text(WORKERS)
    line = {"script": ["script.py"], "heredoc": ["-"], "-c": ["-c", WORKERS]}[way]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *line], input=WORKERS, cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert soup.Recipe.read(here / "out/recipe.yaml").names == ("b", "c")
    assert len(calls(here / "judge/judge.py")) >= 6


METHOD = """
from dataclasses import dataclass
import soup
from soup.merging.methods import Method

@soup.method("halved")
@dataclass(frozen=True)
class Halved(Method):
    def __call__(self, block):
        return sum(block) / len(block)
"""


def test_a_method_known_to_a_script_alone_is_refused_for_workers_and_one_of_a_module_is_not(here):
    merge = WORKERS.replace(', out="out"', ', out="out", merge=soup.MergeOptions(method="halved")')
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    (here / "halved.py").write_text(METHOD)
    for head, code in ((METHOD, 1), ("import halved\n", 0)):
        done = subprocess.run(
            [sys.executable, "-c", head + merge], cwd=here, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert code == 0 or "method 'halved' is known to this process alone" in done.stderr
