"""The likelihood of VLMEvalKit's reference answers: of each question once, beside scores that keep their keys."""

from __future__ import annotations

import ast
import math

import pytest

from evaluators.vlmeval.benchmarks import BENCHMARKS
from evaluators.vlmeval.harness import VLMEval
from soup.evaluation.api import Benchmark, Split
from soup.evaluation.settings import EvalSettings
from tests.helpers.scripted_models import SCRIPTED, ToyCandidate
from tests.helpers.toy_test_sets import TOYS, write_tsv
from tests.helpers.vlm_families import save_family

pytestmark = [pytest.mark.usefixtures("one_thread")]


def of(name, split=None):
    return Benchmark(name, "vlmeval", name, split or Split())


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    made = {name: TOYS[name]() for name in ("mmbench", "ocrbench", "mmvet")}
    for name, each in made.items():
        write_tsv(tmp_path / "LMUData" / f"{BENCHMARKS[name].data_set}.tsv", each)
    return made


@pytest.fixture
def candidate(tmp_path):
    return ToyCandidate(save_family("llava", tmp_path / "m", 0), tmp_path / "scratch", digest="digest")


@pytest.mark.parametrize("name", ["mmbench", "ocrbench"])
def test_each_question_s_first_answer_counts_once(name, rows, candidate, monkeypatch):
    evaluator, asked = VLMEval(EvalSettings()), []
    engine = evaluator._engine.model_for(candidate, "vlmeval")
    monkeypatch.setattr(engine, "loss", lambda prompt, answer: asked.append(answer) or len(asked) / 10)
    score = evaluator.evaluate(candidate, of(name).likelihood)
    first = [row for row in rows[name] if name != "mmbench" or int(row["index"]) < 1_000_000]
    answers = [str(row["answer"]) for row in first]
    assert asked == ([ast.literal_eval(text)[0] for text in answers] if name == "ocrbench" else answers)
    assert score.loss == pytest.approx((len(first) + 1) / 20)
    assert score.n == len(first) == evaluator.count(of(name))
    assert candidate.progress[-1] == (len(first), len(first))


def test_it_is_the_engine_s_own_loss_and_halves_are_of_different_questions(rows, candidate):
    evaluator = VLMEval(EvalSettings())
    whole = evaluator.evaluate(candidate, of("ocrbench").likelihood)
    halves = [evaluator.evaluate(candidate, of("ocrbench", Split(p, 0.5)).likelihood) for p in ("selection", "report")]
    assert sum(half.n for half in halves) == whole.n
    assert math.fsum(half.loss * half.n for half in halves) / whole.n == pytest.approx(whole.loss)
    assert 1 < whole.loss < 20


def test_its_key_is_another_and_that_of_the_score_stays(rows):
    evaluator = VLMEval(EvalSettings())
    score, likelihood = (evaluator.identity(each) for each in (of("ocrbench"), of("ocrbench").likelihood))
    assert "measures" not in score
    assert likelihood == {**score, "measures": likelihood["measures"]}


def test_what_has_no_likelihood_says_why(rows, tmp_path):
    (tmp_path / "model.py").write_text(SCRIPTED)
    own = VLMEval(EvalSettings(model=f"{tmp_path / 'model.py'}:Scripted"))
    assert own.why_no_likelihood(of("ocrbench")).endswith("model.py:Scripted gives answers alone")
    evaluator = VLMEval(EvalSettings())
    assert evaluator.why_no_likelihood(of("ocrbench")) is None
    assert evaluator.why_no_likelihood(of("MMBench-Video")).startswith("its answers have no one wording")
    assert evaluator.why_no_likelihood(of("mmvet")) == "its answers have no one wording that is known here"
