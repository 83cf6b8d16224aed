"""The share of answers that are none by their form, beside the score."""

from __future__ import annotations

import pytest

from evaluators.vlmeval.benchmarks import BENCHMARKS
from evaluators.vlmeval.harness import VLMEval
from soup.evaluation.api import Benchmark, Split
from soup.evaluation.settings import EvalSettings
from tests.helpers.scripted_models import SCRIPTED, scripted
from tests.helpers.toy_data_sets import yes_no_rows
from tests.helpers.toy_test_sets import TOYS, right, write_tsv

GIBBERISH = "what lovely weather it is"


@pytest.fixture
def score_of(tmp_path, monkeypatch):
    """The score of a model that answers the first rows that may be spoilt with gibberish, and the others right."""
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    (tmp_path / "model.py").write_text(SCRIPTED)

    def score(name, spoilt, may_spoil=lambda row: True):
        rows = TOYS[name]() if name in TOYS else yes_no_rows(["random"])
        write_tsv(tmp_path / "LMUData" / f"{BENCHMARKS[name].data_set}.tsv", rows)
        answers = right(rows)
        asked = [row["index"] for row in rows if row.get("image") or name != "hallusionbench"]
        answers |= dict.fromkeys(
            [row["index"] for row in rows if row["index"] in asked and may_spoil(row)][:spoilt], GIBBERISH
        )
        settings = EvalSettings(model=f"{tmp_path / 'model.py'}:Scripted", batch_size=7)
        benchmark = Benchmark(name, "vlmeval", name, Split())
        return VLMEval(settings).evaluate(scripted(tmp_path, answers), benchmark), len(asked)

    return score


@pytest.mark.parametrize("name", ["mmstar", "ai2d", "hallusionbench", "pope"])
def test_answers_without_an_option_or_yes_or_no_are_counted(name, score_of):
    score, count = score_of(name, spoilt=3)
    assert score.unparsed == pytest.approx(3 / count)


def test_right_answers_are_all_parsed(score_of):
    assert score_of("mmstar", spoilt=0)[0].unparsed == 0


def test_rotations_that_were_never_asked_count_neither_way(score_of):
    score, _ = score_of("mmbench", spoilt=1000)  # lost in the first rotation
    assert score.unparsed == 1


def test_questions_without_options_count_neither_way(score_of):
    score, _ = score_of("mmmu", spoilt=50, may_spoil=lambda row: not row["A"])
    assert score.value < 100
    assert score.unparsed == 0


def test_a_benchmark_that_takes_any_text_knows_no_form(score_of):
    assert score_of("ocrbench", spoilt=3)[0].unparsed is None
