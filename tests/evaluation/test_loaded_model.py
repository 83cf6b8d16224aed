"""A model that is loaded already is evaluated where it is: the numbers of the checkpoint that it would be saved as."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import soup
from evaluators.answering.engines import transformers
from evaluators.answering.engines.transformers import TransformersModel
from soup.errors import EvaluatorError
from soup.evaluation.journal import Journal
from tests.helpers.toy_data_sets import answers_rows
from tests.helpers.toy_test_sets import ai2d_rows, write_tsv
from tests.helpers.training_basics import tiny_model


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Whether a letter is in the answer, another letter for each question, so that chance tells models apart."""
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    rows = answers_rows(lambda i: "etaoinshr"[i % 9], category=lambda i: "de")
    write_tsv(tmp_path / "LMUData" / "MTVQA_TEST.tsv", rows)
    write_tsv(tmp_path / "LMUData" / "AI2D_TEST.tsv", ai2d_rows(8))
    monkeypatch.setattr(transformers, "MAX_NEW_TOKENS", 12)
    monkeypatch.setitem(transformers.TransformersModel.__init__.__kwdefaults__, "max_new_tokens", 12)


def saved_scores(model, processor, tmp_path):
    """The points of each question, of the checkpoint that the model is saved as."""
    path = tmp_path / "saved"
    model.save_pretrained(path)
    processor.save_pretrained(path)
    soup.evaluate(path, eval=["MTVQA_TEST", "ai2d"], run_dir=tmp_path / "run")
    with Journal(tmp_path / "run" / "journal.jsonl") as journal:
        return {entry.benchmark: entry.score for entry in journal}


def test_the_numbers_are_those_of_the_saved_checkpoint_question_by_question(data, tmp_path):
    model, processor = tiny_model(seed=3)
    scores = soup.evaluate(model=model, processor=processor, eval=["MTVQA_TEST", "ai2d"])
    theirs = saved_scores(model, processor, tmp_path)
    assert 0 < scores["MTVQA_TEST"].value < 100
    assert set(scores) == {"MTVQA_TEST", "ai2d"}
    for name, score in scores.items():
        assert dict(score.questions) == dict(theirs[name].questions)
        assert score.value == theirs[name].value


def test_the_model_is_left_as_it_was(data):
    model, processor = tiny_model()
    model.train()
    next(model.children()).eval()  # frozen parts may be in evaluation mode while others train
    modes = [part.training for part in model.modules()]
    wrapped = model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)  # as accelerate wraps it
    generation, random = model.generation_config, torch.get_rng_state()
    soup.evaluate(model=model, processor=processor, eval="ai2d")
    assert [part.training for part in model.modules()] == modes
    assert model.forward is wrapped
    assert model.generation_config is generation
    assert torch.equal(torch.get_rng_state(), random)


def test_weights_that_changed_are_asked_anew(data):
    model, processor = tiny_model(seed=3)
    first = soup.evaluate(model=model, processor=processor, eval="MTVQA_TEST")["MTVQA_TEST"]
    other, _ = tiny_model(seed=4)
    model.load_state_dict(other.state_dict())
    again = soup.evaluate(model=model, processor=processor, eval="MTVQA_TEST")["MTVQA_TEST"]
    fresh = soup.evaluate(model=other, processor=processor, eval="MTVQA_TEST")["MTVQA_TEST"]
    assert dict(again.questions) == dict(fresh.questions) != dict(first.questions)


def test_a_function_gets_a_checkpoint_all_the_same(data):
    model, processor = tiny_model()
    scores = soup.evaluate(model=model, processor=processor, eval=lambda path: float(len(path) > 0 and 61))
    assert [score.value for score in scores.values()] == [61]


def test_a_function_gets_the_model_s_own_way_of_generating_whatever_was_asked_before(data):
    model, processor = tiny_model()
    model.generation_config.update(repetition_penalty=1.5, max_length=7)
    seen = []

    def look(path):
        seen.append(json.loads((Path(path) / "generation_config.json").read_text()))
        return 61.0

    soup.evaluate(model=model, processor=processor, eval=["ai2d", look])
    assert [(each["repetition_penalty"], each["max_length"]) for each in seen] == [(1.5, 7)]


@pytest.mark.parametrize("convert", [torch.nn.Module.half, torch.nn.Module.bfloat16])
def test_a_converted_module_is_asked_with_the_buffers_of_a_loaded_one(convert, data, monkeypatch):
    model, processor = tiny_model()
    theirs = {name: buffer.clone() for name, buffer in model.named_buffers() if "inv_freq" in name}
    convert(model)
    before = dict(model.named_buffers())
    seen = []
    ask = TransformersModel.answer

    def answer(self, prompts, /):
        seen.append(dict(self.module.named_buffers()))
        return ask(self, prompts)

    monkeypatch.setattr(TransformersModel, "answer", answer)
    soup.evaluate(model=model, processor=processor, eval="ai2d")
    assert seen
    assert theirs
    assert all(torch.equal(asked[name], buffer) for asked in seen for name, buffer in theirs.items())
    assert all(buffer is before[name] for name, buffer in model.named_buffers())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
def test_a_model_that_peft_wraps_is_asked_without_its_own_limits_of_length(data, monkeypatch):
    model, processor = tiny_model()
    model.generation_config.update(min_new_tokens=9, repetition_penalty=1.5)
    module = get_peft_model(model, LoraConfig(r=2, target_modules=r".*llm.*q_proj"))
    before, seen = model.generation_config, []
    ask = TransformersModel.answer

    def answer(self, prompts, /):
        seen.append((model.generation_config.min_new_tokens, model.generation_config.repetition_penalty))
        return ask(self, prompts)

    monkeypatch.setattr(TransformersModel, "answer", answer)
    soup.evaluate(model=module, processor=processor, eval="ai2d")
    assert {*seen} == {(None, 1.5)}
    assert model.generation_config is before
    assert "generation_config" not in vars(module)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"eval": soup.EvalConfig("ai2d", model="x.py:X")}, "leave `model` and `engine` of the settings out"),
        ({"eval": soup.EvalConfig("ai2d", workers=2)}, "evaluated where it is: leave `workers` and `ray` out"),
        ({"eval": []}, "`eval` names no benchmark"),
        ({"eval": "ai2d", "run_dir": "r"}, "leave checkpoints, run_dir and merge out"),
        ({"eval": "ai2d", "processor": None}, "expected a model of transformers and its processor"),
    ],
)
def test_what_does_not_go_together_is_told(arguments, words, data):
    model, processor = tiny_model()
    with pytest.raises(EvaluatorError, match=words):
        soup.evaluate(**{"model": model, "processor": processor, **arguments})


def test_a_wrapper_and_a_tokenizer_are_told_with_what_to_pass_in_their_place(data):
    model, processor = tiny_model()
    with pytest.raises(EvaluatorError, match=r"found DataParallel and .*accelerator\.unwrap_model\(model\)"):
        soup.evaluate(model=torch.nn.DataParallel(model), processor=processor, eval="ai2d")
    with pytest.raises(EvaluatorError, match="processor: ai2d asks with the whole one, as AutoProcessor gives it"):
        soup.evaluate(model=model, processor=processor.tokenizer, eval="ai2d")
    scores = soup.evaluate(model=model, processor=processor.tokenizer, eval=lambda path: 61.0)
    assert [score.value for score in scores.values()] == [61]
