"""Strategies beside greedy in real runs: stopped and started again, with parameters written, within their budgets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import soup
from soup.errors import RecipeError, SoupError
from soup.evaluation.objective import Guard, Objective
from soup.evaluation.progress import Progress
from soup.report.tables import run_table
from soup.search.strategies import Choice
from soup.support.plugins import STRATEGIES
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import make_checkpoint, make_pool, tree

HEADS = {
    "s10": [1, 2, 3, 6],
    "s20": [1, 5, 3, 4.5],
    "s30": [1, 2, 8, 4],
    "s40": [4, 2, 3, 3],
    "s50": [1, 2.5, 3, 1],
}
OPTIONS = {
    "cma": {"evaluations": 12},
    "exhaustive": {},
    "forward-backward": {"steps": 2},
    "mixture": {"samples": 20},
    "prune": {},
    "scale": {},
    "soce": {},
    "trajectory": {},
}


class Judge:
    """Scores each entry of `head` by its distance to a target; fails at a call if told so."""

    def __init__(self, stop_at=None):
        self.asked, self.stop_at = [], stop_at

    def __call__(self, checkpoint):
        head = load_file(f"{checkpoint}/model.safetensors")["head"]
        self.asked.append(head.tobytes())
        if len(self.asked) == self.stop_at:
            raise ValueError("the power is gone")
        return {f"entry {i}": 100 - 5 * float(abs(value - i - 1)) for i, value in enumerate(head)}


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_checkpoint(tmp_path / "base", 9, head=[0, 0, 0, 0])
    return make_pool(tmp_path / "ckpts", HEADS)


RUN = {}
"""Who judges in the run of now; a function's key does not look at objects of its module."""


def score(checkpoint):
    return RUN["judge"](checkpoint)


def cook(name, judge, out, **more):
    RUN["judge"] = judge
    return flat.cook(name, "ckpts", base="base", eval=score, out=out, strategy_args=OPTIONS[name], **more)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_search_that_was_stopped_goes_on_and_asks_nothing_twice(pool, name):
    whole = Judge()
    made = cook(name, whole, "whole", run_dir="whole.soup")
    assert len(whole.asked) == len(set(whole.asked))
    stop_at = len(whole.asked) // 2 + 1
    stopped, resumed = Judge(stop_at), Judge()
    with pytest.raises(SoupError, match="the power is gone"):
        cook(name, stopped, "again", run_dir="again.soup")
    again = cook(name, resumed, "again", run_dir="again.soup")
    assert stopped.asked[:-1] + resumed.asked == whole.asked
    assert (again.chosen, again.recipe.digest) == (made.chosen, made.recipe.digest)
    assert tree("again")["model.safetensors"] == tree("whole")["model.safetensors"]
    assert [trial.label for trial in again.trials] == [trial.label for trial in made.trials]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("objective", [Objective(), Objective(guards=(Guard("entry 0", -50.0),))])
def test_a_dry_run_and_the_run_tell_a_budget_that_holds(pool, name, objective):
    judge, starts = Judge(), []
    arguments = {"base": "base", "eval": lambda path: judge(path), "objective": objective, "out": "out"}
    arguments["strategy_args"] = OPTIONS[name]
    most = flat.plan_cook(name, "ckpts", **arguments)["evaluations_at_most"]
    progress = Progress(on_search=lambda start: starts.append((start.title, start.evaluations, len(judge.asked))))
    flat.cook(name, "ckpts", **arguments, progress=progress)
    assert starts == [(name, most, 0)]
    assert 0 < len(judge.asked) <= most
    if name in ("exhaustive", "mixture"):
        assert len(judge.asked) == most, "and no more than needs be"


def test_scale_ships_what_it_scored_with_its_parameter_in_the_recipe(pool):
    heads = []

    def judge(checkpoint):  # half-way from the base to the mean of all is best
        heads.append(load_file(f"{checkpoint}/model.safetensors")["head"])
        return 100 - float(abs(heads[-1] - np.float32([0.8, 1.35, 2.0, 1.85])).mean())

    made = flat.cook("scale", "ckpts", base="base", eval=judge, out="out", strategy_args={"start": "average"})
    recipe = yaml.safe_load(Path("out/recipe.yaml").read_text())
    assert (recipe["method"], recipe["params"]) == ("task-arithmetic", {"scale": 0.5})
    assert str(made) == "task-arithmetic of s10 + s20 + s30 + s40 + s50, scale=0.5"
    shipped = load_file("out/model.safetensors")["head"]
    assert any(np.array_equal(shipped, head) for head in heads)
    assert np.allclose(shipped, [0.8, 1.35, 2.0, 1.85], atol=0.01)
    assert [trial.label.partition(", ")[2] for trial in made.trials if made.accepted(trial)] == ["", "scale=0.5"]
    shown = json.loads((pool.parent / "ckpts.soup/soups/scale.json").read_text())
    assert [trial["accepted"] for trial in shown["trials"]] == [True, False, True, False, False, False]
    assert "task-arithmetic with scale" in shown["notes"][0]
    soup.merge("out/recipe.yaml", "again", merge=None)
    assert tree("again")["model.safetensors"] == tree("out")["model.safetensors"]


def test_a_scaled_single_model_is_no_single_model_in_tables(pool):
    def judge(checkpoint):  # half of s10 alone is best
        head = load_file(f"{checkpoint}/model.safetensors")["head"]
        return 100 - float(abs(head - np.float32([0.5, 1, 1.5, 3])).sum())

    def first(pool, score):
        score([pool[0]])
        return STRATEGIES.get("scale")(pool[:1], score, grid={"scale": [0.5, 0.75]})

    made = flat.cook(first, "ckpts", base="base", eval=judge, out="out")
    assert [trial.is_single for trial in made.trials] == [True, False, False]
    assert made.why(made.trials[2]).startswith("refused: ")
    rows = [(row.label, row.remark) for row in run_table(pool.parent / "ckpts.soup").rows]
    assert rows == [("s10", ""), ("first", "s10, scale=0.5")]


@pytest.mark.parametrize(
    ("args", "base", "said"),
    [
        ({}, None, "needs the base that the ingredients were tuned from: pass `base`"),
        ({"method": "task-aritmetic"}, "base", "Did you mean 'task-arithmetic'"),
        ({"grid": {"scael": [1.2]}}, "base", "does not take these params:\n  - scael"),
        ({"grid": {"scale": ["much"]}}, "base", "scale: Input should be a valid number"),
        ({"grid": {"scale": [0.5, 5.0]}}, "base", "scale: expected a number from -1 to 2, found 5"),
    ],
)
def test_scale_says_before_the_first_score_what_its_method_does_not_take(pool, args, base, said):
    judge = Judge()
    arguments = {"base": base, "eval": lambda path: judge(path), "out": "out", "strategy_args": args}
    for run in (flat.plan_cook, flat.cook):
        with pytest.raises(RecipeError) as caught:
            run("scale", "ckpts", **arguments)
        assert said in str(caught.value)
    assert judge.asked == []


def test_soce_says_that_benchmarks_are_too_few_where_their_names_are_known_before_the_first_score(pool):
    with pytest.raises(RecipeError, match=r"Strategy soce: soce needs at least 3 benchmarks .* found 2"):
        flat.plan_cook("soce", "ckpts", eval="mmbench,ocrbench", out="out")


def test_soce_says_that_benchmarks_are_too_few_after_the_first_score_where_that_alone_tells_them(pool):
    judge = Judge()
    with pytest.raises(RecipeError, match=r"at least 3 benchmarks .* found 2"):
        flat.cook("soce", "ckpts", eval=lambda path: dict([*judge(path).items()][:2]), out="out")
    assert len(judge.asked) == 1


def test_a_varied_method_reads_the_base_into_its_digest_and_others_keep_theirs(pool):
    def both(pool, score):
        plain = score(pool[:2])
        varied = score(pool[:2], "task-arithmetic", {"scale": 0.5})
        assert plain.recipe.digest != varied.recipe.digest
        assert (plain.recipe.base.digest, varied.recipe.base.digest is None) == (None, False)
        return Choice(pool[:2], params={})

    judge = Judge()
    made = flat.cook(both, "ckpts", base="base", eval=lambda path: judge(path), out="out")
    assert (made.recipe.method, made.recipe.params) == ("linear", {})


def test_params_go_beside_those_of_the_runs_own_method(pool):
    def pick(pool, score):
        return Choice(pool[:1], params={"scale": 0.5})

    common = {"base": "base", "method": "task-arithmetic", "method_args": {"normalize": False}}
    made = flat.cook(pick, "ckpts", **common, out="out")
    assert made.recipe.params == {"normalize": False, "scale": 0.5}


def snapshots(pool, rates=(1.0, 0.9, 0.6, 0.3, 0.05)):
    history = [{"step": 10 * (i + 1), "learning_rate": rate} for i, rate in enumerate(rates)]
    for i, name in enumerate(HEADS):
        state = {"global_step": 10 * (i + 1), "log_history": history[: i + 1]}
        (pool / name / "trainer_state.json").write_text(json.dumps(state))


def test_trajectory_reads_the_steps_and_says_that_the_learning_rate_had_decayed(pool):
    snapshots(pool)
    made = cook("trajectory", Judge(), "out")
    assert "fallen to 5% of its peak" in made.notes[0]
    assert made.trials[0].names == ("s50",)
    snapshots(pool, rates=(1.0,) * 5)
    assert cook("trajectory", Judge(), "out2").notes == ()
    for name, step in zip(HEADS, (5, 4, 3, 2, 1), strict=True):
        (pool / name / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    assert cook("trajectory", Judge(), "out3").trials[0].names == ("s10",)


@pytest.mark.parametrize("kind", ["history", "digest"])
def test_trajectory_refuses_snapshots_of_two_runs(pool, kind):
    snapshots(pool)
    if kind == "history":
        state = {"global_step": 30, "log_history": [{"step": 10, "learning_rate": 0.5}]}
        (pool / "s30" / "trainer_state.json").write_text(json.dumps(state))
    else:
        for name in HEADS:
            (pool / name / "finetune.json").write_text(json.dumps({"digest": "a" if name < "s30" else "b"}))
    judge = Judge()
    with pytest.raises(RecipeError, match="s20 and s30 are of different runs"):
        cook("trajectory", judge, "out")
    assert judge.asked == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cma", "forward-backward", "prune"])
def test_workers_choose_what_one_process_chooses(pool, name, tmp_path):
    (tmp_path / "judge.py").write_text(
        "from safetensors.numpy import load_file\n\n\ndef score(checkpoint):\n"
        "    head = load_file(f'{checkpoint}/model.safetensors')['head']\n"
        "    return 100 - 5 * float(sum(abs(value - i - 1) for i, value in enumerate(head)))\n"
    )
    common = {"base": "base", "eval": [f"python:{tmp_path}/judge.py:score"], "strategy_args": OPTIONS[name]}
    alone = flat.cook(name, "ckpts", out="alone", run_dir="alone.soup", **common)
    crew = flat.cook(name, "ckpts", out="crew", run_dir="crew.soup", workers=2, **common)
    assert crew.recipe.digest == alone.recipe.digest
    assert [trial.label for trial in crew.trials] == [trial.label for trial in alone.trials]
