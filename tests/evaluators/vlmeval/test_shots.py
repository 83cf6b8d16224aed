"""Examples before a question: which, with which answers, in whose keys, and where there can be none."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from evaluators.vlmeval.catalog import known_benchmark
from evaluators.vlmeval.harness import VLMEval
from evaluators.vlmeval.shots import add_examples
from soup.errors import EvaluatorError
from soup.evaluation.api import AskedModel, Benchmark, Split
from soup.evaluation.config import EvalConfig
from soup.evaluation.settings import EvalSettings
from soup.evaluation.suite import build_suite
from tests.helpers.scripted_models import SCRIPTED, scripted
from tests.helpers.toy_test_sets import CIRCLE, hallusionbench_rows, mmbench_rows, ocrbench_rows, png, right, write_tsv

MMBENCH = Benchmark("mmbench", "vlmeval", "mmbench")
OCRBENCH = Benchmark("ocrbench", "vlmeval", "ocrbench")

# It answers the last question of a prompt, and writes each prompt down.
NOTING = (
    SCRIPTED
    + """
class Noting(Scripted):
    def marker(self, prompt):
        with NOTES.with_suffix(".prompts").open("a") as file:
            file.write(json.dumps(prompt) + "\\n")
        return re.findall("<([0-9A-Za-z_]+)>", "".join(part["value"] for part in prompt))[-1]
"""
)


@pytest.fixture
def data(tmp_path, monkeypatch):
    rows = {"mmbench": mmbench_rows(12), "ocrbench": ocrbench_rows(20)}
    write_tsv(tmp_path / "LMUData" / "MMBench_DEV_EN.tsv", rows["mmbench"])
    write_tsv(tmp_path / "LMUData" / "OCRBench.tsv", rows["ocrbench"])
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    return rows


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.py").write_text(NOTING)
    return f"{tmp_path / 'model.py'}:Noting"


def asked(model, benchmark, candidate, shots):
    """The score, and the prompts that the model got, by the index of the question."""
    notes = Path(model.rpartition(":")[0]).with_suffix(".prompts")
    notes.unlink(missing_ok=True)
    score = VLMEval(EvalSettings(model=model, shots=shots)).evaluate(candidate, benchmark)
    prompts = [json.loads(line) for line in notes.read_text().splitlines()]
    return score, {markers(prompt)[-1]: prompt for prompt in prompts}


def markers(prompt):
    return [int(marker) for marker in re.findall("<([0-9]+)>", "".join(part["value"] for part in prompt))]


def test_other_questions_with_their_pictures_and_answers_stand_before_each_question(data, model, tmp_path):
    rows = {row["index"]: row for row in data["ocrbench"]}
    candidate = scripted(tmp_path, right(data["ocrbench"]))
    plain_score, plain = asked(model, OCRBENCH, candidate, 0)
    score, prompts = asked(model, OCRBENCH, scripted(tmp_path, right(data["ocrbench"]), "again"), 2)
    assert (score.value, score.n) == (plain_score.value, plain_score.n) == (100, 20)
    kinds = [[part["type"] for part in prompt] for prompt in prompts.values()]
    assert kinds == [["image", "text", "text"] * 2 + ["image", "text"]] * 20
    for index, prompt in prompts.items():
        examples = markers(prompt)[:-1]
        assert len({*examples, index}) == 3, "never the question itself"
        for place, example in enumerate(examples):
            answer = {"type": "text", "value": f"\nAnswer: Text {rows[example]['index']}!\n\n"}
            assert prompt[3 * place : 3 * place + 3] == [*_names(plain[example], prompt[3 * place]), answer]
        assert [part["value"] for part in prompt[-1:]] == [part["value"] for part in plain[index][-1:]]
    counts = Counter(example for prompt in prompts.values() for example in markers(prompt)[:-1])
    assert set(counts.values()) == {2}, "each is an example as often as any other"


def _names(parts, image):
    """The parts of a plain prompt; pictures lie in another folder, under the same name."""
    assert Path(parts[0]["value"]).name == Path(image["value"]).name
    return [image, *parts[1:]]


def test_rotations_of_a_question_have_the_same_examples_and_none_of_themselves(data, model, tmp_path):
    score, prompts = asked(model, MMBENCH, scripted(tmp_path, right(data["mmbench"])), 3)
    assert score.value == 100
    examples = {}
    for index, prompt in prompts.items():
        seen = tuple(markers(prompt)[:-1])
        assert len({marker % CIRCLE for marker in seen} | {index % CIRCLE}) == 4
        assert examples.setdefault(index % CIRCLE, seen) == seen
        assert all(re.search(r"\nAnswer: [A-D]\n\n$", part["value"]) for part in prompt[2:-1:3])


def test_questions_that_count_together_are_no_examples_of_each_other(data, model, tmp_path):
    rows = hallusionbench_rows(2)  # of each set four questions with a figure, of two figures
    write_tsv(tmp_path / "LMUData" / "HallusionBench.tsv", rows)
    benchmark = Benchmark("hallusionbench", "vlmeval", "hallusionbench")
    notes = tmp_path / "model.prompts"
    VLMEval(EvalSettings(model=model, shots=4)).evaluate(scripted(tmp_path, right(rows)), benchmark)
    for line in notes.read_text().splitlines():
        sets = [mark.split("_")[1] for mark in re.findall("<([A-Za-z_0-9]+)>", line)]
        assert len(sets) == 5
        assert sets.count(sets[-1]) == 1, "all examples are of the other set"
    with pytest.raises(EvaluatorError, match=r"`shots` 5: question chart_0/\w+ finds 4 others|figure_0/\w+ finds 4"):
        VLMEval(EvalSettings(model=model, shots=5)).identity(benchmark)


def test_the_examples_depend_neither_on_the_order_of_rows_nor_on_the_split(data, model, tmp_path):
    answers = right(data["ocrbench"])
    _, whole = asked(model, OCRBENCH, scripted(tmp_path, answers, "whole"), 2)
    half = Benchmark("ocrbench", "vlmeval", "ocrbench", split=Split("selection", 0.5))
    _, part = asked(model, half, scripted(tmp_path, answers, "half"), 2)
    assert 0 < len(part) < 20
    assert {index: markers(prompt) for index, prompt in part.items()}.items() <= {
        index: markers(prompt) for index, prompt in whole.items()
    }.items()
    write_tsv(tmp_path / "LMUData" / "OCRBench.tsv", data["ocrbench"][::-1])
    _, turned = asked(model, OCRBENCH, scripted(tmp_path, answers, "turned"), 2)
    assert {i: markers(prompt) for i, prompt in turned.items()} == {i: markers(prompt) for i, prompt in whole.items()}


def test_a_question_about_the_same_picture_is_no_example(data, model, tmp_path):
    rows = ocrbench_rows(6)
    for row in rows[:5]:
        row["image"] = png((1, 2, 3))
    write_tsv(tmp_path / "LMUData" / "OCRBench.tsv", rows)
    _, prompts = asked(model, OCRBENCH, scripted(tmp_path, right(rows)), 1)
    assert all(markers(prompts[index]) == [5, index] for index in range(5))
    with pytest.raises(EvaluatorError, match=r"`shots` 2: question \d finds 1 others with an answer"):
        VLMEval(EvalSettings(model=model, shots=2)).identity(OCRBENCH)


def test_a_question_without_an_answer_is_no_example(data, model, tmp_path):
    rows = mmbench_rows(4)
    for row in rows:
        if row["index"] % CIRCLE != 3:
            row["answer"] = None
    write_tsv(tmp_path / "LMUData" / "MMBench_DEV_EN.tsv", rows)
    with pytest.raises(EvaluatorError, match="question 3 finds 0 others"):
        VLMEval(EvalSettings(model=model, shots=1)).identity(MMBENCH)


def test_a_score_with_examples_has_a_key_of_its_own_and_one_without_keeps_its_key(data, model):
    plain, none, two = (
        VLMEval(EvalSettings(model=model, **more)).identity(OCRBENCH) for more in ({}, {"shots": 0}, {"shots": 2})
    )
    assert "shots" not in plain
    assert plain == none
    assert two == {**plain, "shots": {"count": 2, "from": two["shots"]["from"]}}


def test_a_question_is_shown_with_the_examples_that_the_model_saw(data, model, tmp_path):
    candidate, harness = scripted(tmp_path, right(data["ocrbench"])), VLMEval(EvalSettings(model=model, shots=1))
    harness.evaluate(candidate, OCRBENCH)
    seen = AskedModel(candidate.digest, candidate.kept, harness.identity(OCRBENCH))
    shown = VLMEval(EvalSettings()).show(OCRBENCH, ["7"], [seen])["7"]
    assert "Answer: Text" in shown.text
    assert shown.answers == ("Text 7!",)
    assert len(shown.images) == 2


@pytest.mark.parametrize("name", ["mmvet", "RefCOCO", "MathVision"])
def test_where_answers_have_no_one_wording_there_are_no_examples(name):
    entry = known_benchmark(Benchmark(name, "vlmeval", name))
    with pytest.raises(EvaluatorError, match=f"{name}: `shots`: no examples can be given, as its answers have no one"):
        add_examples(entry, None, 1)


def test_a_harness_without_examples_refuses_to_be_asked_for_them(tmp_path):
    (tmp_path / "score.py").write_text("def score(path):\n    return 1.0\n")
    config = EvalConfig(benchmarks=f"python:{tmp_path / 'score.py'}:score", shots=1)
    with pytest.raises(EvaluatorError, match="`shots`: its harness puts no examples before questions"):
        build_suite(config.parse(), config.settings)
