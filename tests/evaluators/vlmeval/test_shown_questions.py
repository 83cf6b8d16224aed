"""What models answered is found again by the prompts that they were asked, with no model loaded."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from evaluators.vlmeval.harness import VLMEval
from soup.errors import EvaluatorError
from soup.evaluation.api import AskedModel, Benchmark
from soup.evaluation.settings import EvalSettings
from tests.helpers.scripted_models import SCRIPTED, scripted
from tests.helpers.toy_test_sets import CIRCLE, mmbench_rows, right, write_tsv

MMBENCH = Benchmark("mmbench", "vlmeval", "mmbench")
SECOND = 2 + CIRCLE  # the second rotation of the second question


@pytest.fixture
def rows(tmp_path, monkeypatch):
    made = mmbench_rows(4)
    write_tsv(tmp_path / "LMUData" / "MMBench_DEV_EN.tsv", made)
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    return made


@pytest.fixture
def models(rows, tmp_path):
    """One that answers all right, and one that is wrong on the second rotation of the second question."""
    file = tmp_path / "model.py"
    file.write_text(SCRIPTED)
    answers = right(rows)
    wrong = {**answers, SECOND: "D" if answers[SECOND] != "D" else "C"}
    settings = EvalSettings(model=f"{file}:Scripted", batch_size=7)
    asked = []
    for name, replies in {"good": answers, "bad": wrong}.items():
        candidate = scripted(tmp_path, replies, name=name)
        harness = VLMEval(settings)
        harness.evaluate(candidate, MMBENCH)
        asked.append(AskedModel(candidate.digest, candidate.kept, harness.identity(MMBENCH)))
    return asked


def test_the_rotation_is_shown_that_models_answered_differently(rows, models):
    shown = VLMEval(EvalSettings()).show(MMBENCH, ["2", "3"], models)  # by another engine's harness: none is asked
    [row] = [row for row in rows if row["index"] == SECOND]
    [first] = [row for row in rows if row["index"] == 2]
    assert [*shown] == ["2", "3"]
    assert f"<{SECOND}> What is it" in shown["2"].text
    assert shown["2"].reference == row["answer"] == shown["2"].answers[0] != shown["2"].answers[1]
    assert shown["2"].images == (base64.b64decode(first["image"]),)
    assert "<3> What is it" in shown["3"].text
    assert len({*shown["3"].answers}) == 1


def test_answers_that_were_not_kept_are_none(models, tmp_path):
    gone = replace(models[1], kept=tmp_path / "nowhere")
    assert VLMEval(EvalSettings()).show(MMBENCH, ["2"], [models[0], gone])["2"].answers[1] is None


def test_another_file_than_the_one_that_was_asked_is_refused(models, tmp_path):
    write_tsv(tmp_path / "LMUData" / "MMBench_DEV_EN.tsv", mmbench_rows(5))
    with pytest.raises(EvaluatorError, match="not the file that the models were asked"):
        VLMEval(EvalSettings()).show(MMBENCH, ["2"], models)


def test_categories_are_those_that_vlmeval_reports_by(rows):
    names = VLMEval(EvalSettings()).categories(MMBENCH)
    assert names == {"1": "logic_reasoning", "2": "coarse_perception", "3": "logic_reasoning", "4": "coarse_perception"}
