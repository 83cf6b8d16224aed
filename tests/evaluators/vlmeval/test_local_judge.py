"""A checkpoint as the LLM judge: loaded when answers are there, asked by many threads at once, its replies shared."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace

import pytest
import torch

from evaluators.answering.endpoint import map_at_once
from evaluators.answering.engines.transformers import LanguageModel
from evaluators.answering.local_judge import LocalJudge
from evaluators.vlmeval.benchmarks import BENCHMARKS
from evaluators.vlmeval.harness import VLMEval
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark
from soup.evaluation.settings import EvalSettings
from soup.support.plugins import ENGINES
from tests.helpers.scripted_models import SCRIPTED, grade, scripted
from tests.helpers.toy_test_sets import mmvet_rows, write_tsv
from tests.helpers.vlm_families import TEXT, character_tokenizer, save_family

MMVET = Benchmark("mmvet", "vlmeval", "mmvet")
SERVED = {"command": "serve {checkpoint} {port}"}
TEMPLATE = (
    "{% for message in messages %}Q: {{ message['content'] }}{% endfor %}{% if add_generation_prompt %}\nA: {% endif %}"
)


@pytest.fixture
def model(tmp_path):
    return save_language_model(tmp_path / "a-judge", 0)


def save_language_model(directory, seed):
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = character_tokenizer()
    tokenizer.chat_template = TEMPLATE
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**TEXT, **ids)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def settings(judge):
    return EvalSettings(judge_model=str(judge))


def test_what_threads_ask_at_once_is_answered_together_and_as_alone(model, monkeypatch):
    sizes = []
    answer = LanguageModel.answer
    monkeypatch.setattr(LanguageModel, "answer", lambda self, batch: sizes.append(len(batch)) or answer(self, batch))
    judge = LocalJudge(settings(model), lambda: None)
    questions = [f"How right is {number}? {'x' * (number % 7)}" for number in range(24)]
    at_once = map_at_once(lambda question: judge.ask(question, 0, 12), questions, 8, threading.Event())
    assert max(sizes) > 1
    assert len(sizes) < 24
    alone = LanguageModel(model)
    alone.max_new_tokens = 12
    assert at_once == [answer(alone, [[{"type": "text", "value": question}]])[0] for question in questions]
    assert len(set(at_once)) > 5
    assert all(len(reply) <= 12 for reply in at_once)
    assert len(judge.ask(questions[0], 0, 3)) <= 3


def test_the_identity_is_the_content_and_not_the_place(model, tmp_path):
    shutil.copytree(model, tmp_path / "elsewhere")
    first = LocalJudge(settings(model), lambda: None).identity()
    assert LocalJudge(settings(tmp_path / "elsewhere"), lambda: None).identity() == first
    assert str(tmp_path) not in str(first)
    other = LocalJudge(settings(save_language_model(tmp_path / "other", 1)), lambda: None).identity()
    assert other["checkpoint"] != first["checkpoint"]


def test_a_checkpoint_that_can_not_be_asked_is_told_before_any_question(model):
    (model / "chat_template.jinja").unlink()
    with pytest.raises(EvaluatorError, match="no chat template"):
        LocalJudge(settings(model), lambda: None)
    words = (
        r"needs both .* alone may be the directory of a checkpoint, with its config.json: no-such-directory is none\."
    )
    with pytest.raises(EvaluatorError, match=words):
        VLMEval(EvalSettings(judge_model="no-such-directory"))


def test_a_checkpoint_that_is_no_language_model_is_told_before_any_question(tmp_path):
    save_family("internvl", tmp_path / "vlm", 0)
    words = r"^`judge_model`: .*vlm: expected a language model, found the model_type internvl, which transformers' Auto"
    with pytest.raises(EvaluatorError, match=words):
        LocalJudge(settings(tmp_path / "vlm"), lambda: None)
    LocalJudge(replace(settings(tmp_path / "vlm"), judge_engine="serve", judge_engine_args=SERVED), lambda: None)


def test_what_the_judge_s_engine_can_t_do_is_told_by_the_judge_s_flag(model, monkeypatch):
    wanted = EvalSettings(judge_model=str(model), judge_engine_args={"dtype": "float16"})
    with pytest.raises(EvaluatorError, match="`judge_engine_args` dtype: the engine transformers has no such argument"):
        LocalJudge(wanted, lambda: None)
    with pytest.raises(EvaluatorError, match="`judge_engine_args` requests: Input should be greater than 0"):
        LocalJudge(replace(wanted, judge_engine="serve", judge_engine_args={"requests": 0}), lambda: None)
    words = (
        r"^`judge_engine` serve: .* needs `engine_args` .* For a judge say `judge_engine` and `judge_engine_args`, or"
    )
    with pytest.raises(EvaluatorError, match=words):
        LocalJudge(replace(wanted, judge_engine="serve", judge_engine_args={}), lambda: None)
    with pytest.raises(
        EvaluatorError, match=r"needs `engine_url`\. For a judge .*, or `judge_url` where one is served"
    ):
        LocalJudge(replace(wanted, judge_engine="openai", judge_engine_args={}), lambda: None)
    monkeypatch.setitem(ENGINES.registered, "absent", lambda settings: AbsentEngine([], None))
    with pytest.raises(EvaluatorError, match=r"^`judge_engine` absent: `engine` absent needs more\. For a judge say"):
        LocalJudge(replace(wanted, judge_engine="absent", judge_engine_args={}), lambda: None)
    monkeypatch.setitem(ENGINES.registered, "grading", lambda settings: GradingEngine([], None))
    LocalJudge(replace(wanted, judge_engine="grading", judge_engine_args={}), lambda: None)
    monkeypatch.delattr(GradingEngine, "max_new_tokens")
    with pytest.raises(EvaluatorError, match="`judge_engine` grading: it has no max_new_tokens, by which a judge's"):
        LocalJudge(replace(wanted, judge_engine="grading", judge_engine_args={}), lambda: None)


class GradingEngine:
    """An engine that grades as VLMEvalKit expects, and notes what is done with it."""

    max_new_tokens = 2048

    def __init__(self, notes, fits, fits_at_work=lambda: True):
        self.notes, self.fits, self.fits_at_work = notes, fits, fits_at_work

    def identity(self):
        return {"engine": "grading"}

    def check(self, checkpoint): ...

    def swap(self, candidate): ...

    def open(self, candidate):
        self.notes.append("open")
        assert candidate.names == ("a-judge",)
        assert candidate.directory() == candidate.template == candidate.path
        if not self.fits():
            raise MemoryError("out of memory")

    def answer(self, prompts, on_batch):
        if not self.fits_at_work():
            raise RuntimeError("CUDA out of memory")
        self.notes.append(f"answer {len(prompts)} of {self.max_new_tokens}")
        return [grade(prompt[-1]["value"], temperature=0.5) for prompt in prompts]

    def close(self):
        self.notes.append("close")


class AbsentEngine(GradingEngine):
    def identity(self):
        raise EvaluatorError("`engine` absent needs more.")


@pytest.fixture
def scene(model, tmp_path, monkeypatch):
    """mmvet, candidates that answer from a file, and a judge by an engine that notes what is done with it."""
    write_tsv(tmp_path / "LMUData" / f"{BENCHMARKS['mmvet'].data_set}.tsv", mmvet_rows(24))
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    (tmp_path / "model.py").write_text(SCRIPTED)
    notes, room = [], [True]

    def engine(settings):
        return GradingEngine(notes, lambda: room[0], lambda: room[-1])

    monkeypatch.setitem(ENGINES.registered, "grading", engine)
    scripted_model = f"{tmp_path / 'model.py'}:Scripted"
    harness = VLMEval(EvalSettings(model=scripted_model, judge_model=str(model), judge_engine="grading"))
    return harness, notes, room


def candidate(tmp_path, name, extra=""):
    return scripted(tmp_path / "run", {index: f"It is {index}.{extra}" for index in range(24)}, name)


def test_pictures_are_shown_to_a_judge_that_sees_some_and_are_an_error_of_one_that_does_not(model, scene, tmp_path):
    graded = scene[0]._judging.judge.ask("Give a correctness score.\n<1> | 5 | 5 | ", 0, 3, images=["a.png"])
    assert graded == "1.0"
    with pytest.raises(EvaluatorError, match="`judge_images`: a-judge is a language model of transformers, which sees"):
        LocalJudge(settings(model), lambda: None).ask("Is it 5?", 0, 3, images=["a.png"])


def test_it_is_loaded_after_the_answers_and_its_replies_serve_all_candidates(scene, tmp_path):
    harness, notes, _ = scene
    harness.check(MMVET, candidate(tmp_path, "first").path)
    assert notes == []
    score = harness.evaluate(candidate(tmp_path, "a"), MMVET)
    assert notes[0] == "open"
    assert {note.rpartition(" ")[2] for note in notes[1:]} == {"3"}  # tokens: as VLMEvalKit has it for mmvet
    asked = len(notes)
    assert harness.evaluate(candidate(tmp_path, "b"), MMVET) == score  # the same answers: nothing is graded twice
    assert len(notes) == asked
    harness.evaluate(candidate(tmp_path, "c", " No."), MMVET)
    assert len(notes) > asked


def test_the_replies_of_an_earlier_run_serve_too(scene, tmp_path):
    harness, notes, _ = scene
    score = harness.evaluate(candidate(tmp_path, "a"), MMVET)
    asked = len(notes)
    again = VLMEval(harness.settings)
    assert again.evaluate(candidate(tmp_path, "b"), MMVET) == score
    assert len(notes) == asked


@pytest.mark.parametrize("when", ["opened", "asked"])
def test_where_both_do_not_fit_the_candidate_s_engine_makes_room_and_gets_it_back(
    when, scene, tmp_path, monkeypatch, caplog
):
    harness, notes, room = scene
    close = harness._engine.close

    def closing():
        notes.append("candidate closed")
        room[:] = [True]
        close()

    monkeypatch.setattr(harness._judging.judge, "_release", closing)
    room[:] = [False] if when == "opened" else [True, False]
    harness.evaluate(candidate(tmp_path, "a"), MMVET)
    assert notes[:4] == ["open", "close", "candidate closed", "open"]
    assert "out of memory" in caplog.text
    before = len(notes)
    harness.evaluate(candidate(tmp_path, "b", " No."), MMVET)
    assert notes[before : before + 2] == ["close", "open"]  # the judge went before the candidate came


def test_a_judge_that_fails_without_it_too_is_told_and_the_rerun_asks_only_for_the_rest(scene, tmp_path):
    harness, notes, _ = scene
    soup = candidate(tmp_path, "a")
    harness._judging.judge._engine.fits_at_work = lambda: len(notes) < 3
    words = (
        r"mmvet: the judge a-judge at .* stopped answering after \d+ replies: RuntimeError: CUDA out of memory\n.* kept"
    )
    with pytest.raises(EvaluatorError, match=words):
        harness.evaluate(soup, MMVET)
    assert [note for note in notes if "answer" not in note] == ["open", "close", "open", "close"]
    VLMEval(harness.settings).evaluate(soup, MMVET)
    replies = [json.loads(line) for line in (soup.kept / "mmvet.jsonl").read_text().splitlines()]
    assert sum(int(note.split()[1]) for note in notes if "answer" in note) == len(replies) - 24  # and 24 answers
