"""Losses of many answers, against a plain loop over transformers' own logits; the same on any number of processes."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from evaluators.answering.answer_losses import answer_losses
from soup.errors import EvaluatorError
from soup.evaluation.answer_loss import AnswerTask
from tests.helpers.vlm_families import noise, save_family

pytestmark = [pytest.mark.usefixtures("one_thread")]
ANSWERS = ["B, a tree", "xq 88-1", "a", "a red house by the sea", ""]


@pytest.fixture
def tasks(tmp_path):
    def task(i, answer):
        path = tmp_path / f"{i}.png"
        noise(path, (40 + i, 60), i, "RGB")
        return AnswerTask(i, [{"type": "image", "value": str(path)}, {"type": "text", "value": "What is it?"}], answer)

    return [task(i, answer) for i, answer in enumerate(ANSWERS)]


def plain_loop(directory, task):
    """The mean of -log softmax in float32 over the tokens of the answer: what stands behind the whole prompt."""
    model, processor = AutoModelForImageTextToText.from_pretrained(directory), AutoProcessor.from_pretrained(directory)
    image = Image.open(task.prompt[0]["value"]).convert("RGB")
    turn = {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What is it?"}]}
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template([turn], add_generation_prompt=True, **options)
    answer = processor.tokenizer(task.answer, add_special_tokens=False, return_tensors="pt")["input_ids"]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.inference_mode():
        logits = model.eval()(**inputs).logits[0].float()
    n = answer.shape[1]
    logs = torch.log_softmax(logits, dim=-1)[-n - 1 : -1]
    return -sum(logs[i, token].item() for i, token in enumerate(answer[0])) / n, n


def test_losses_are_those_of_a_plain_loop_over_logits(tmp_path, tasks):
    directory = save_family("llava", tmp_path / "vlm", 0)
    outcomes = list(answer_losses(tasks, directory))
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3, 4]
    for outcome, task in zip(outcomes[:4], tasks, strict=False):
        loss, tokens = plain_loop(directory, task)
        assert (outcome.loss, outcome.tokens) == (pytest.approx(loss, rel=1e-5), tokens)
    assert "without a token" in outcomes[4].failure


def test_any_number_of_processes_gives_the_same_bits(tmp_path, tasks):
    directory = save_family("llava", tmp_path / "vlm", 0)
    here = list(answer_losses(tasks, directory))
    there = sorted(answer_losses(iter(tasks * 3), directory, workers=2), key=lambda outcome: outcome.index)
    assert there[::3] == there[1::3] == there[2::3] == here


def test_an_answer_that_does_not_fit_is_a_row_without_a_loss(tmp_path, tasks):
    directory = save_family("llava", tmp_path / "vlm", 0)
    long = AnswerTask(9, tasks[0].prompt, "word " * 4000)
    [outcome] = answer_losses([long], directory)
    assert "positions" in outcome.failure


def test_a_model_that_reads_answers_first_stops_it_all(tmp_path, tasks):
    directory = save_family("paligemma", tmp_path / "vlm", 0)
    with pytest.raises(EvaluatorError, match="reads the answer before it is asked for it"):
        list(answer_losses(tasks, directory))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_model_that_can_t_be_loaded_is_told(tmp_path, tasks, workers):
    directory = save_family("llava", tmp_path / "vlm", 0)
    (directory / "config.json").write_text('{"model_type": "no such"}')
    with pytest.raises(EvaluatorError, match="can't be loaded as a model"):
        list(answer_losses(tasks, directory, workers=workers))
