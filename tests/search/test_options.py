"""What a search is asked for is heard, or refused before any work: nothing that a user types is dropped in silence."""

from __future__ import annotations

import importlib.util

import pytest

from soup.errors import EvaluatorError, RecipeError
from soup.evaluation.objective import Objective
from soup.search.strategies import budget
from tests.helpers import flat_arguments as flat
from tests.helpers.forked_cli import Forge
from tests.helpers.toy_pools import calls, make_judge, make_pool

GUARDED = Objective.parse([], ["python:judge/judge.py:score>=-50"])


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_pool(tmp_path / "ckpts")
    return make_judge(tmp_path / "judge")


@pytest.mark.parametrize(
    "wish",
    [{"objective": Objective({"mmbench": 2.0})}, {"split": 0.5}, {"objective": GUARDED}, {"questions": "disputed"}],
)
def test_wishes_about_benchmarks_without_a_benchmark_are_refused(judge, wish, tmp_path):
    with pytest.raises(EvaluatorError, match="`split`, `questions` are about benchmarks: pass `eval`"):
        flat.cook("average", pool="ckpts", out="out", **wish)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", [flat.cook, flat.plan_cook])
def test_a_weight_for_a_misspelt_benchmark_is_refused_before_its_data_are_even_looked_for(judge, call):
    with pytest.raises(EvaluatorError, match="No benchmark 'mmbnch' to weigh"):
        call("greedy", pool="ckpts", eval="mmbench", objective=Objective({"mmbnch": 2.0}), out="out")


def test_a_rule_that_needs_questions_is_refused_after_one_evaluation_and_not_after_all(judge):
    evals = "python:judge/judge.py:score"
    with pytest.raises(EvaluatorError, match="needs the points of each question"):
        flat.cook("greedy", pool="ckpts", eval=evals, strategy_args={"accept": "p>0.9"}, out="out")
    assert len(calls(judge)) == 1


@pytest.mark.skipif(importlib.util.find_spec("vlmeval") is None, reason="VLMEvalKit is not installed")
def test_all_that_a_benchmark_lacks_is_told_at_once(judge, tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path))
    with pytest.raises(EvaluatorError) as caught:
        flat.cook("greedy", pool="ckpts", eval="mmbench,mmvet", out="out")
    said = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in said] == ["mmbench", "mmvet", "mmvet"]
    assert "its data (MMVet of VLMEvalKit) are not here" in said[1]
    assert "graded by a judge, and none is named" in said[2]


def test_a_dry_run_takes_the_strategys_options(judge, tmp_path):
    (tmp_path / "mine.py").write_text("def pick(pool, score, *, name):\n    return [name]\n")
    line = ["cook", "--strategy", "mine.py:pick", "--pool", "ckpts", "-o", "out", "--dry-run", "--strategy-arg"]
    with Forge() as forge:
        assert forge(*line, "name=a", cwd=tmp_path).code == 0
        done = forge(*line, "nmae=a", cwd=tmp_path)
    assert done.code == 1
    assert "error: Strategy mine.py:pick: " in done.stderr


def failing_budget(count):
    raise GeneratorExit("no budget today")


@pytest.mark.parametrize(
    ("most", "said"),
    [(failing_budget, "no budget today"), (lambda count: count + "1", "TypeError"), (lambda count: (1, 2), "(1, 2)")],
)
@pytest.mark.parametrize("call", [flat.cook, flat.plan_cook])
def test_a_budget_that_fails_or_is_none_is_its_strategy_s_fault_and_told_before_any_score(judge, call, most, said):
    def mine(pool, score):
        return list(pool)

    with pytest.raises(RecipeError, match=r"^Strategy mine") as caught:
        call(budget(most)(mine), pool="ckpts", eval="python:judge/judge.py:score", out="out")
    assert said in str(caught.value)
    assert not calls(judge)


@pytest.mark.parametrize("strategy", ["average", "maximum", "greedy"])
@pytest.mark.parametrize("objective", [Objective(), GUARDED])
def test_a_dry_runs_number_of_evaluations_is_the_most_that_can_happen(judge, strategy, objective):
    arguments = {"pool": "ckpts", "eval": "python:judge/judge.py:score", "objective": objective}
    most = flat.plan_cook(strategy, out="out", **arguments)["evaluations_at_most"]
    flat.cook(strategy, out="out", **arguments)
    assert 0 < len(calls(judge)) <= most
    assert strategy == "average" or len(calls(judge)) == most, "and no more than needs be"


def test_a_weighted_soup_is_not_called_a_mean_of_equals(judge):
    chosen = flat.cook(lambda pool, score: {"a": 3, "b": -1.0}, pool="ckpts", out="out")
    assert str(chosen) == "the mean of a (3) + b (-1)"
    assert str(flat.cook("average", pool="ckpts", out="even")) == "the mean of a + b + c + d"


def test_a_dry_run_of_a_merge_looks_at_its_destination(judge, tmp_path):
    flat.cook("average", pool="ckpts", out="out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/work.txt").write_text("years of it")
    with Forge() as forge:
        done = forge("merge", "out/recipe.yaml", "-o", "full", "--dry-run", cwd=tmp_path)
        again = forge("merge", "out/recipe.yaml", "-o", "out", "--dry-run", cwd=tmp_path)
    assert (done.code, "full: exists and is not empty" in done.stderr) == (1, True)
    assert again.code == 0
