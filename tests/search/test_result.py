"""What stays of a run beside its journal, and what a run leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from soup.errors import OutputError, PoolError, RecipeError
from soup.evaluation.api import Score
from soup.evaluation.bootstrap import benchmark_difference, paired_difference
from soup.evaluation.objective import PLAIN, Objective
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import make_checkpoint, make_judge, make_pool


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """The benchmark of a judge of weights, beside a pool."""
    monkeypatch.chdir(tmp_path)
    make_pool("ckpts")
    return f"python:{make_judge(tmp_path / 'judge')}:score"


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_a_strategy_s_outcome_is_kept_as_the_document_that_json_prints(spec):
    made = flat.cook("greedy", pool="ckpts", eval=[spec], out="out")
    kept = read("ckpts.soup/soups/greedy.json")
    document = json.loads(json.dumps(made.as_json()))
    assert {**kept, "warnings": []} == {**document, "warnings": []}
    assert (kept["chosen"], len(kept["trials"])) == (["b", "c"], 7)
    assert not any("report" in trial for trial in kept["trials"])  # there was no split


def test_each_trial_is_held_against_the_best_that_came_before_it_and_was_single_or_accepted(spec):
    made = flat.cook("greedy", pool="ckpts", eval=[spec], out="out")
    best = {"+".join(trial.names): made.best_before(trial) for trial in made.trials}
    named = {name: "+".join(rival.names) if rival else None for name, rival in best.items()}
    assert named == {"a": None, "b": "a", "c": "b", "d": "b", "b+c": "b", "b+c+d": "b+c", "a+b+c": "b+c"}


@pytest.mark.parametrize("wrong", [{"method": "nonsense"}, {"method_args": {"x": 1}}, {"dtype": "int8"}], ids=str)
def test_a_wrong_method_or_dtype_is_told_before_the_pool_is_read(spec, wrong):
    with pytest.raises(RecipeError):
        flat.cook("greedy", pool="ckpts", eval=[spec], out="out", **wrong)
    assert not Path("ckpts.soup").exists()


def test_a_base_that_the_method_does_not_read_is_not_read_and_has_no_digest(spec):
    make_checkpoint("base", 9)
    made = flat.cook("average", pool="ckpts", base="base", eval=[spec], out="out")
    assert made.recipe.base.digest is None
    assert {path.rpartition("/")[2] for path in read("ckpts.soup/digests.json")} == {"a", "b", "c", "d"}


def test_a_dry_run_refuses_a_pool_that_does_not_belong_together_too(spec):
    make_checkpoint("ckpts/e", 5, head=[1, 2, 3, 4, 5])
    with pytest.raises(PoolError, match=r"e: head: expected float32\[4\]"):
        flat.plan_cook("greedy", pool="ckpts", eval=[spec], out="out")


@pytest.mark.parametrize("out", ["ckpts.soup/soups/out", "ckpts.soup/scratch/out", "ckpts.soup"])
def test_a_dry_run_refuses_an_output_among_the_run_s_own_files_too(spec, out):
    with pytest.raises(OutputError, match="is where the run keeps its own files"):
        flat.plan_cook("greedy", pool="ckpts", eval=[spec], out=out)


def test_each_trial_says_by_which_numbers_it_was_accepted_or_refused(spec):
    made = flat.cook("greedy", pool="ckpts", eval=[spec], out="out")
    overall = {"+".join(trial.names): f"{trial.overall:.2f}" for trial in made.trials}
    gain, more, loss = (made.trials[i].overall - made.trials[j].overall for i, j in ((1, 0), (4, 1), (5, 4)))
    why = {"+".join(trial["ingredients"]): trial["why"] for trial in read("ckpts.soup/soups/greedy.json")["trials"]}
    assert why["a"] == f"single: the first, {overall['a']}"
    assert why["b"] == f"accepted: {overall['b']} > {overall['a']} ({spec} {gain:+.1f})"
    assert why["b+c"] == f"accepted: {overall['b+c']} > {overall['b']} ({spec} {more:+.1f})"
    assert why["b+c+d"] == f"refused: {overall['b+c+d']} < {overall['b+c']} ({spec} {loss:+.1f})"


def test_a_better_soup_that_a_strategy_went_on_from_was_passed_over_and_not_refused(spec):
    def last(pool, score):
        for chosen in (["d"], ["b"], ["b", "c"]):
            score(chosen)
        return ["d"]

    made = flat.cook(last, pool="ckpts", eval=[spec], out="out")
    assert made.why(made.trials[2]).startswith("passed over: ")
    assert " > " in made.why(made.trials[2])


def test_what_keeps_the_guards_is_not_held_against_what_breaks_them(spec):
    other = spec.replace(":score", ":other")  # a is far ahead there, and far behind in `score`
    objective = Objective.parse([f"{other}=10"], [f"{spec}>=-1"])
    made = flat.cook("greedy", pool="ckpts", eval=[spec, other], out="out", objective=objective)
    a, b, c, d, *soups = made.trials
    assert (a.allowed, max(made.trials, key=lambda trial: trial.overall)) == (False, a)
    assert [made.best_before(trial) for trial in (b, c, d, *soups[:1])] == [None, b, b, d]
    assert made.why(b) == f"single: the first that keeps the guards, {b.overall:.2f}"
    assert made.why(d).startswith(f"accepted: {d.overall:.2f} > {b.overall:.2f} ")


def with_points(name, count, right):
    return {name: Score(100 * right / count, count, {str(i): float(i < right) for i in range(count)})}


def test_a_trial_is_held_against_the_best_before_it_benchmark_by_benchmark():
    difference = benchmark_difference(*(with_points("x", 400, right)["x"] for right in (210, 250)))
    assert difference.mean == -10
    # 40 of 400 changes of one point: the standard deviation is 0.3, that of their mean 0.015.
    assert difference.low == pytest.approx(-10 - 1.96 * 100 * 0.3 / 20, abs=0.01)
    assert difference.high == pytest.approx(-10 + 1.96 * 100 * 0.3 / 20, abs=0.01)
    assert difference.p_better < 1e-9
    bootstrapped = paired_difference(with_points("x", 400, 210), with_points("x", 400, 250), PLAIN)
    assert bootstrapped.low == pytest.approx(difference.low, abs=0.3)
    assert bootstrapped.high == pytest.approx(difference.high, abs=0.3)
    assert benchmark_difference(Score(1.0), Score(2.0)) is None


def test_the_same_answers_leave_no_doubt():
    same = with_points("x", 10, 4)["x"]
    assert benchmark_difference(same, same).as_json() == {"difference": 0, "low": 0, "high": 0, "p_better": 0}
