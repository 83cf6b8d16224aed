"""All eight benchmarks of OpenCompass: our score is VLMEvalKit's own, and what comes with it makes sense."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.vlmeval.benchmarks import BENCHMARKS
from evaluators.vlmeval.harness import VLMEval
from evaluators.vlmeval.light_import import vlmeval_module
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Split
from soup.evaluation.benchmark_names import parse_benchmarks
from soup.evaluation.settings import EvalSettings
from soup.testing import check_evaluator
from tests.helpers.case_parts import some_of
from tests.helpers.scripted_models import SCRIPTED, JudgeServer, plain_vlmeval, scripted
from tests.helpers.toy_test_sets import TOYS, predictions, random_predictions, right, write_tsv
from tests.helpers.vlm_families import save_family

KINDS = ["all right", "half right", "noise", "sentences"]


@pytest.fixture(autouse=True)
def nothing_leaves_this_machine(monkeypatch):
    connect = socket.socket.connect

    def only_here(self, address):
        assert address[0] == "127.0.0.1", "the network was asked"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The rows of all toy test sets by benchmark; the files lie where LMUData says."""
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    return {name: put(tmp_path, name, make()) for name, make in TOYS.items()}


def put(tmp_path, name, rows):
    write_tsv(tmp_path / "LMUData" / f"{BENCHMARKS[name].data_set}.tsv", rows)
    return rows


@pytest.fixture
def judge():
    with JudgeServer() as server:
        yield server


@pytest.fixture
def settings(tmp_path, judge):
    file = tmp_path / "model.py"
    file.write_text(SCRIPTED)
    return EvalSettings(model=f"{file}:Scripted", batch_size=7, judge_url=judge.url, judge_model="a-judge")


def of(name, split=None):
    return Benchmark(name, "vlmeval", name, split or Split())


def test_the_eight_are_the_eight():
    assert [benchmark.name for benchmark in parse_benchmarks(["opencompass"])] == [*TOYS]
    assert [name for name in BENCHMARKS if name not in TOYS] == [
        "scienceqa",
        "mme",
        "llavabench",
        "realworldqa",
        "pope",
    ]
    judged = {name for name, benchmark in BENCHMARKS.items() if benchmark.needs_judge}
    assert judged == {"mathvista", "mmvet", "llavabench"}
    for benchmark in BENCHMARKS.values():
        assert benchmark.data_set in benchmark.data_set_class().DATASET_URL
        assert benchmark.data_set in benchmark.data_set_class().DATASET_MD5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TOYS)
def test_the_score_is_what_vlmevals_own_evaluate_says(name, kind, data, settings, tmp_path, monkeypatch):
    answers = predictions(kind, data[name])
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), of(name))
    theirs = plain_vlmeval(BENCHMARKS[name], answers, tmp_path / "o", monkeypatch)
    assert score.value == pytest.approx(theirs, abs=1e-9)
    assert len(score.questions) == score.n
    mean = 100 * sum(score.questions.values()) / score.n
    if name == "hallusionbench":
        assert score.value <= mean  # figures and questions count only if all of them is right
    else:
        assert score.value == pytest.approx(mean)
    if kind == "all right":
        # VLMEvalKit compares a list with the word "None", so that no list is ever right.
        assert score.value == (75 if name == "mathvista" else 100)
    if kind == "half right":
        assert 10 < score.value < 70


@pytest.mark.parametrize("seed", some_of(range(3), 3))
@pytest.mark.parametrize("name", TOYS)
def test_no_answer_at_random_tells_the_two_apart(name, seed, data, settings, tmp_path, monkeypatch):
    answers = random_predictions(seed, data[name])
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), of(name))
    theirs = plain_vlmeval(BENCHMARKS[name], answers, tmp_path / "o", monkeypatch)
    assert score.value == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in TOYS if not BENCHMARKS[name].needs_judge])
def test_what_is_known_of_earlier_candidates_changes_no_score_of_a_later_one_and_is_not_found_out_again(
    name, data, settings, tmp_path, monkeypatch
):
    first, second = random_predictions(0, data[name]), random_predictions(1, data[name])
    mixed = {index: (first if number % 3 else second)[index] for number, index in enumerate(first)}
    harness, matched = VLMEval(settings), []
    library = vlmeval_module("dataset.utils.multiple_choice")
    matching = library.can_infer
    monkeypatch.setattr(library, "can_infer", lambda *words: matched.append(words) or matching(*words))
    scores = []
    for model, answers in {"first": first, "mixed": mixed, "second": second, "mixed again": mixed}.items():
        alone = VLMEval(settings).evaluate(scripted(tmp_path / "alone", answers, model), of(name))
        matched.clear()
        scores.append(harness.evaluate(scripted(tmp_path, answers, model), of(name)))
        assert scores[-1] == alone
    assert len({str(score.questions) for score in scores}) == 3
    assert not matched, "the last one said nothing new"


@pytest.mark.parametrize("name", TOYS)
def test_each_benchmark_meets_the_suite_of_plug_ins(name, data, settings, tmp_path):
    candidate = scripted(tmp_path, predictions("half right", data[name]))
    failing = scripted(tmp_path, {}, name="failing")  # its model knows no answer
    score = check_evaluator(VLMEval, of(name), candidate, settings=settings, failing=failing)
    assert 0 < score.value < 100


def test_figures_and_questions_of_a_set_are_never_divided(data, settings, tmp_path):
    candidate = scripted(tmp_path, right(data["hallusionbench"]))
    judge, groups = VLMEval(settings), {}
    for part in ("selection", "report"):
        score = judge.evaluate(candidate, of("hallusionbench", Split(part, 0.5)))
        groups[part] = {question.partition("/")[0] for question in score.questions}
        assert score.value == 100
        for group in groups[part]:
            assert sum(question.startswith(f"{group}/") for question in score.questions) == 4
    assert not groups["selection"] & groups["report"]
    assert len(groups["selection"] | groups["report"]) == 12


def test_rows_without_an_image_are_not_asked(data, settings, tmp_path):
    answers = {index: answer for index, answer in right(data["hallusionbench"]).items() if "_0_" not in index[3:11]}
    shown = {row["index"] for row in data["hallusionbench"] if row["image"]}
    score = VLMEval(settings).evaluate(scripted(tmp_path, {**answers, **right_of(data, shown)}), of("hallusionbench"))
    assert {question.partition("/")[2] for question in score.questions} == shown


def right_of(data, indices):
    return {index: answer for index, answer in right(data["hallusionbench"]).items() if index in indices}


def test_development_rows_of_mmmu_are_neither_asked_nor_counted(data, settings, tmp_path):
    counts = {row["index"] for row in data["mmmu"] if row["split"] == "validation"}
    answers = {index: answer for index, answer in right(data["mmmu"]).items() if index in counts}
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), of("mmmu"))
    assert (score.value, score.n, {*score.questions}) == (100, 40, {str(index) for index in counts})


def test_several_images_stand_where_the_text_names_them(data, settings):
    data_set = VLMEval(settings)._data_set(BENCHMARKS["mmmu"], of("mmmu"))
    row = next(row for row in data_set.data.to_dict("records") if row["index"] == 12)
    prompt = data_set.build_prompt(row)
    assert [part["type"] for part in prompt] == ["text", "image", "text", "image", "text"]
    assert prompt[1]["value"] != prompt[3]["value"]
    assert prompt[2]["value"].startswith(" show?")
    assert prompt[2]["value"].endswith("B. ")


def test_the_points_of_mmvet_are_grades(data, settings, tmp_path):
    score = VLMEval(settings).evaluate(scripted(tmp_path, {i: f"It is {i}." for i in range(40)}), of("mmvet"))
    assert {index: score.questions[index] for index in "012"} == {"0": 0.0, "1": 0.5, "2": 0.0}


def test_a_part_without_some_capability_has_a_score_all_the_same(data, settings, tmp_path):
    rows = [{**row, "category": "rec"} for row in data["mmvet"]]
    put(tmp_path, "mmvet", rows)
    assert VLMEval(settings).evaluate(scripted(tmp_path, right(rows)), of("mmvet")).value == 100


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("mmmu", {"question": "<1> <image 3>?"}, r"row 50: VLMEvalKit can't make its prompt \(IndexError"),
        ("mmmu", {"question": "<1> <image one>?"}, r"row 50: VLMEvalKit can't make its prompt \(AssertionError"),
        ("mathvista", {"skills": "open('MARKER', 'w')"}, "row 40: skills .* is no Python list of texts"),
        ("mathvista", {"skills": " open('MARKER', 'w')"}, "row 40: skills .* is no Python list of texts"),
        ("mathvista", {"question_type": "multi_choice", "choices": "[open('MARKER', 'w')]"}, "row 40: choices "),
        ("mathvista", {"task": None}, "row 40: task is empty"),
        ("mmvet", {"category": None}, "row 39: category is empty"),
        ("mmvet", {"question": None}, "row 39: question is empty"),
        ("mmvet", {"index": "open('MARKER', 'w')"}, "an index is a whole number or a plain name"),
        ("hallusionbench", {"index": "7"}, "row '7': an index is a plain name like VS_chart_1_0_3_1"),
        ("hallusionbench", {"index": "VS_chart_1_0"}, "an index is a plain name like"),
        ("ai2d", {"image_path": "[open('MARKER', 'w')]"}, "row 39: image_path .* is no Python list"),
        ("ai2d", {"image_path": None}, "can't be evaluated by VLMEvalKit"),
    ],
)
def test_cells_that_vlmeval_would_execute_or_trip_over_are_refused(name, damage, words, data, settings, tmp_path):
    marker = tmp_path / "executed"
    damage = {key: value and value.replace("MARKER", str(marker)) for key, value in damage.items()}
    rows = data[name]
    put(tmp_path, name, [*rows[:-1], {**rows[-1], **damage}])
    with pytest.raises(EvaluatorError, match=words):
        VLMEval(settings).identity(of(name))
    assert not marker.exists()


def test_a_skill_that_is_a_plain_text_is_taken_as_vlmeval_takes_it(data, settings, tmp_path, monkeypatch):
    rows = [{**row, "skills": "statistical reasoning"} for row in data["mathvista"]]
    put(tmp_path, "mathvista", rows)
    answers = right(rows)
    score = VLMEval(settings).evaluate(scripted(tmp_path, answers), of("mathvista"))
    assert score.value == plain_vlmeval(BENCHMARKS["mathvista"], answers, tmp_path / "o", monkeypatch)


def test_a_test_set_whose_rows_all_belong_to_another_part_is_refused(data, settings, tmp_path):
    put(tmp_path, "mmmu", [{**row, "split": "dev"} for row in data["mmmu"]])
    with pytest.raises(EvaluatorError, match="no rows with an image whose split is validation"):
        VLMEval(settings).identity(of("mmmu"))


def test_the_identity_of_each_is_json_and_of_the_judged_ones_names_the_judge(data, settings):
    for name in TOYS:
        benchmark = BENCHMARKS[name]
        identity = VLMEval(settings).identity(of(name))
        assert json.loads(json.dumps(identity)) == identity
        assert ("judge" in identity) == benchmark.needs_judge
        assert identity["dataset"] == benchmark.data_set


def test_a_run_that_stopped_midway_asks_only_for_the_rest(data, settings, tmp_path):
    answers = right(data["mmstar"])
    half = dict([*answers.items()][:20])
    first = scripted(tmp_path, half)
    with pytest.raises(EvaluatorError):
        VLMEval(settings).evaluate(first, of("mmstar"))
    known = len((first.kept / "mmstar.jsonl").read_text().splitlines())
    assert 0 < known <= 20
    (first.path / "answers.json").write_text(json.dumps({str(index): answer for index, answer in answers.items()}))
    assert VLMEval(settings).evaluate(first, of("mmstar")).value == 100
    notes = Path(settings.model.rpartition(":")[0]).with_suffix(".notes").read_text().splitlines()
    again = notes[notes.index("built m", 1) :]
    assert sum(int(note.split()[1]) for note in again if note.startswith("asked")) == 40 - known
    assert VLMEval(settings).evaluate(first, of("mmstar")).value == 100
    assert notes == Path(settings.model.rpartition(":")[0]).with_suffix(".notes").read_text().splitlines()


def test_kept_answers_are_another_models_never(data, settings, tmp_path):
    first = scripted(tmp_path, right(data["mmstar"]))
    assert VLMEval(settings).evaluate(first, of("mmstar")).value == 100
    second = scripted(tmp_path, dict.fromkeys(right(data["mmstar"]), "?"), name="other")
    second.scratch = first.scratch  # the same place by mistake
    assert second.kept == first.kept
    assert VLMEval(settings).evaluate(second, of("mmstar")).value == 0


def test_a_torn_line_of_kept_answers_is_asked_again(data, settings, tmp_path):
    candidate = scripted(tmp_path, right(data["mmstar"]))
    VLMEval(settings).evaluate(candidate, of("mmstar"))
    file = candidate.kept / "mmstar.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert VLMEval(settings).evaluate(candidate, of("mmstar")).value == 100
    notes = Path(settings.model.rpartition(":")[0]).with_suffix(".notes").read_text().splitlines()
    assert notes[-1] == "asked 1"
    file.write_bytes(file.read_bytes() + b'["no record"]\nno json\n')
    assert VLMEval(settings).evaluate(candidate, of("mmstar")).value == 100


# What is known before the first question


def test_a_judge_that_does_not_answer_is_told_before_any_question_of_any_benchmark(
    data, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr("evaluators.answering.endpoint.FIRST_PAUSE_SECONDS", 0.0)
    harness = VLMEval(replace(settings, judge_url="http://127.0.0.1:9/v1"))
    harness.identity(of("mmvet"))
    with pytest.raises(EvaluatorError, match="does not answer"):
        harness.check(of("mmbench"), tmp_path)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return save_family("llava", tmp_path_factory.mktemp("family") / "llava", 0)


def with_template(llava, tmp_path, template):
    """The files around the model's weights, with another chat template; none where it is None."""
    path = tmp_path / "checkpoint"
    shutil.copytree(llava, path, ignore=shutil.ignore_patterns("*.safetensors", "chat_template*"))
    for file in path.glob("*.json"):
        document = json.loads(file.read_text())
        if document.pop("chat_template", None) is not None:
            file.write_text(json.dumps(document))
    if template is not None:
        (path / "chat_template.jinja").write_text(template)
    return path


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "needs a processor with an image processor and a chat template"),
        ("{{ messages[0].nothing.at_all }}", "its chat template fails on a question with an image: UndefinedError"),
        (
            "{% for message in messages %}USER: <image> ASSISTANT:{% endfor %}",
            "its chat template leaves the question out",
        ),
    ],
    ids=["none", "fails", "drops the question"],
)
def test_a_chat_template_that_makes_no_prompt_is_told_without_any_weights(template, words, llava, data, tmp_path):
    harness = VLMEval(EvalSettings())
    harness.check(of("mmbench"), llava)
    with pytest.raises(EvaluatorError, match=words):
        harness.check(of("mmbench"), with_template(llava, tmp_path, template))


def test_a_processor_that_can_not_be_opened_is_told_without_any_weights(llava, data, tmp_path):
    broken = with_template(llava, tmp_path, "{{ messages }}")
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(EvaluatorError, match="its processor can't be opened"):
        VLMEval(EvalSettings()).check(of("mmbench"), broken)


def test_an_image_that_is_no_base64_is_told_before_any_question(data, settings, tmp_path):
    put(tmp_path, "mmstar", [{**row, "image": row["image"][:-3]} for row in data["mmstar"]])
    with pytest.raises(EvaluatorError, match="is neither base64 nor the index of a row"):
        VLMEval(settings).identity(of("mmstar"))
