"""What a trial says of its evaluations, and which choices can be scored at all."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from soup.errors import RecipeError
from soup.evaluation.api import Score
from soup.evaluation.progress import Progress
from soup.evaluation.score_remarks import score_remarks
from soup.merging.pool import Pool
from soup.merging.shares import shares_of
from soup.support.plugins import EVALUATORS
from tests.helpers import flat_arguments as flat
from tests.helpers.toy_pools import make_pool


class Slow:
    """An evaluator that takes its time, and twice as long for the questions that only report."""

    def __init__(self, settings):
        pass

    def identity(self, benchmark):
        return {"version": 1}

    def evaluate(self, candidate, benchmark):
        chooses = benchmark.split.part == "selection"
        time.sleep(0.01 if chooses else 0.02)
        return Score(40.0 if chooses else 60.0, 7)


@pytest.fixture
def cook(tmp_path, monkeypatch):
    """Runs a greedy search over two models on two benchmarks, half of the questions choosing; its trials by names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(EVALUATORS.registered, "slow", Slow)
    make_pool("ckpts", {"a": [1, 2, 3, 4], "b": [2, 3, 4, 5]})

    def cook():
        made = flat.cook("greedy", pool="ckpts", eval=["slow:first", "slow:second"], out="out", split=0.5)
        return {"+".join(trial.names): trial for trial in made.trials}

    return cook


JOURNAL = Path("ckpts.soup/journal.jsonl")


def journal():
    """The journal's lines."""
    return [json.loads(line) for line in JOURNAL.read_text().splitlines()]


def seconds(names, *parts):
    """The seconds that the journal has of a soup's evaluations over these parts of the questions."""
    lines = [line for line in journal() if "+".join(line["ingredients"]) == names and line["split"] in parts]
    assert len(lines) == 2 * len(parts)  # of two benchmarks
    return sum(line["seconds"] for line in lines)


def forget(part):
    """Leave the scores over one part of the questions out of the journal."""
    kept = [line for line in JOURNAL.read_text().splitlines(keepends=True) if json.loads(line)["split"] != part]
    JOURNAL.write_text("".join(kept))


def test_a_trial_s_seconds_are_those_of_both_halves_of_the_questions(cook):
    for names, trial in cook().items():
        assert trial.seconds == pytest.approx(seconds(names, "selection", "report"))
        assert trial.seconds >= 2 * 0.03
        assert (trial.overall, trial.report_overall) == (40, 60)


def test_a_trial_that_was_remembered_took_no_seconds(cook):
    cook()
    assert [trial.seconds for trial in cook().values()] == [None] * 3


@pytest.mark.parametrize("part", ["selection", "report"])
def test_seconds_count_for_the_half_that_was_made_now_alone(cook, part):
    cook()
    forget(part)
    for names, trial in cook().items():
        assert trial.seconds == pytest.approx(seconds(names, part))


@pytest.fixture
def pool(tmp_path):
    with Pool(make_pool(tmp_path / "ckpts")) as pool:
        yield pool


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, True, "1", None, 1j], ids=str)
def test_a_weight_that_is_no_finite_number_is_refused_with_the_ingredient(pool, weight):
    with pytest.raises(RecipeError, match=f"finite numbers, and not all 0; found b: {weight!r}\\.".replace("(", "\\(")):
        shares_of(pool, {"a": 1, "b": weight})


def test_weights_that_are_all_zero_are_refused(pool):
    with pytest.raises(RecipeError, match="not all 0; found"):
        shares_of(pool, {"a": 0, "b": 0.0})


def test_any_finite_weight_is_taken_as_it_is_and_numpy_s_too(pool):
    shares = shares_of(pool, {"d": np.float32(0.5), "a": -2, "b": 0})
    assert [(share.name, share.weight) for share in shares] == [("a", -2.0), ("b", 0.0), ("d", 0.5)]


def test_a_choice_without_weights_is_a_uniform_mean_in_the_pool_s_order(pool):
    assert [(share.name, share.weight) for share in shares_of(pool, ["c", pool[0]])] == [("a", 0.5), ("c", 0.5)]


@pytest.mark.parametrize("chosen", [[], {}, ["a", "a"]], ids=str)
def test_no_ingredient_or_one_twice_is_refused(pool, chosen):
    with pytest.raises(RecipeError, match="at least one ingredient, and each once"):
        shares_of(pool, chosen)


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Searches greedily over three models that a function scores; the soup, and the warnings on the way."""
    monkeypatch.chdir(tmp_path)
    make_pool("ckpts", {"a": [1, 2, 3, 4], "b": [2, 3, 4, 5], "c": [3, 4, 5, 6]})

    def search(*lines):
        Path("judge.py").write_text("\n".join(["def score(checkpoint):", *(f"    {line}" for line in lines)]))
        warnings = []
        progress = Progress(on_warning=warnings.append)
        made = flat.cook("greedy", pool="ckpts", eval=["python:judge.py:score"], out="out", progress=progress)
        return made, warnings

    return search


def test_scores_of_zero_are_told_with_the_first_of_them_and_the_choice_as_one_by_no_evidence(search):
    made, warnings = search("return 0.0")
    assert warnings[0].startswith("python:judge.py:score: a scores 0.00, nothing is right.")
    assert [text for text in warnings if "no evidence" in text] == warnings[-1:]
    assert tuple(warnings) == made.warnings


def test_scores_that_are_all_the_same_are_told_as_soon_as_all_single_models_have_them(search):
    remark = "models have the same scores so far (python:judge.py:score 25.00), which say nothing of which is better."
    made, warnings = search("return 25.0")
    assert warnings == [f"All 3 {remark}", f"All 5 {remark} The soup was chosen by no evidence."]
    assert made.as_json()["warnings"] == warnings


def test_scores_that_differ_are_no_matter_of_a_warning(search):
    assert search("return 20.0 + len(checkpoint) % 7 + (hash(checkpoint) % 1000) / 500")[1] == []


def test_a_function_that_gives_shares_of_one_is_told_once_that_scores_are_0_to_100(search):
    _, warnings = search("return {'easy': 0.73 + (hash(checkpoint) % 1000) / 5000, 'hard': 40.0}")
    assert len(warnings) == 1
    assert warnings[0].startswith("easy: a scores 0.")
    assert "scores are 0 to 100" in warnings[0]


def test_one_small_score_beside_larger_ones_is_no_share(search):
    Path("count").write_text("")
    count = "import pathlib; p = pathlib.Path('count'); n = len(p.read_text()); p.write_text('x' * (n + 1))"
    assert search(count, "return [40.0, 0.5, 60.0, 61.0, 62.0][n]")[1] == []


def test_models_that_are_asked_different_questions_are_told_once():
    first, second = Score(50, questions={"1": 0.5}), Score(50, questions={"1": 0.5, "2": 0.5})
    (remark,) = score_remarks(["b"], {"mine": second}, [{"mine": first}])
    assert remark[1].startswith("mine: b was asked other questions than the model before it (2 and 1)")
    assert list(score_remarks(["b"], {"mine": first}, [{"mine": first}])) == []
    assert list(score_remarks(["b"], {"mine": Score(50)}, [{"mine": first}])) == []


def test_the_pace_of_a_search_counts_models_of_all_at_most_and_the_time_left_by_the_journal_s_seconds(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(EVALUATORS.registered, "slow", Slow)
    make_pool("ckpts", {"a": [1, 2, 3, 4], "b": [2, 3, 4, 5]})
    paces = []
    flat.cook("greedy", pool="ckpts", eval=["slow:first"], out="out", progress=Progress(on_pace=paces.append))
    assert [(pace.done, pace.total) for pace in paces] == [(0, 3), (1, 3), (2, 3)]
    assert paces[0].seconds_left is None
    spent = [line["seconds"] for line in journal()]
    assert paces[1].seconds_left == pytest.approx(2 * spent[0])
    assert paces[2].seconds_left == pytest.approx((spent[0] + spent[1]) / 2)


def test_a_likelihood_near_zero_is_no_share_and_no_failure():
    likelihoods = {"mmstar likelihood": Score.of_loss([13.3]), "ai2d likelihood": Score.of_loss([math.inf])}
    assert list(score_remarks(["a"], likelihoods, [])) == []
    assert [subject for subject, _ in score_remarks(["a"], {"mine": Score(0.7)}, [])] == ["mine is a share"]
