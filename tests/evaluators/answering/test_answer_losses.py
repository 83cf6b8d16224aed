"""Losses of many answers, against a plain loop over transformers' own logits; the same on any number of workers."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from evaluators.answering import answer_losses as module
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


def kill(word):
    """Kill those of this process' descendants that have a word in their command line; Ray's have it first."""
    children = psutil.Process().children(recursive=True)
    workers = [child for child in children if word in "".join(child.cmdline()[:4])]
    for worker in workers:
        worker.kill()
    return len(workers)


@pytest.mark.parametrize(
    ("ray", "word"),
    [
        pytest.param(None, "soup.search.workers", id="local"),
        pytest.param("local", "ray::_Worker", marks=pytest.mark.slow),
    ],
)
def test_workers_that_are_killed_change_no_bit(tmp_path, tasks, ray, word):
    if ray:
        pytest.importorskip("ray")
    directory = save_family("llava", tmp_path / "vlm", 0)
    here = list(answer_losses(tasks, directory))
    losses = answer_losses(iter(tasks * 4), directory, workers=2, ray=ray)
    outcomes = [next(losses)]
    assert kill(word) >= 2
    outcomes += losses
    assert sorted(outcomes, key=lambda outcome: outcome.index) == [loss for loss in here for _ in range(4)]


def test_an_answer_at_which_two_workers_died_is_told_by_its_name_with_the_log(tmp_path, tasks, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/transformers.py").write_text(
        "import os, signal\nprint('last words', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    directory = save_family("llava", tmp_path / "vlm", 0)
    task = AnswerTask(7, tasks[0].prompt, "so", "in.jsonl, line 8")
    with pytest.raises(EvaluatorError, match=r"^in\.jsonl, line 8: the worker .* ended twice, killed") as told:
        list(answer_losses([task], directory, workers=1))
    [log] = tmp_path.glob("soup-losses-*/worker-0.log")
    assert str(log) in str(told.value)
    assert "last words" in str(told.value)


class DistantWorkers:
    """A worker on another machine: a folder of this one is not there while it works."""

    size, free = 1, (0,)

    def __init__(self, directory, folder):
        self.worker, self.folder, self.events = module._LossWorker(directory, False), folder, []

    def give(self, number, job):
        self.folder.rename(self.folder.with_name("hidden"))
        self.worker.work(job, self.events.append)
        self.folder.with_name("hidden").rename(self.folder)

    def wait(self):
        events, self.events = self.events, []
        return events

    def close(self):
        pass


def test_pictures_that_a_worker_does_not_see_are_sent_to_it(tmp_path, tasks):
    directory = save_family("llava", tmp_path / "vlm", 0)
    here = list(answer_losses(tasks, directory))
    folder = tmp_path / "pictures"
    folder.mkdir()
    moved = []
    for task in tasks:
        path = shutil.copy(task.prompt[0]["value"], folder)
        prompt = [{"type": "image", "value": str(path)}, task.prompt[1]]
        moved.append(AnswerTask(task.index, prompt, task.answer))
    workers = DistantWorkers(directory, folder)
    assert list(module._over_workers(workers, moved)) == here
    Path(moved[0].prompt[0]["value"]).unlink()
    [outcome] = module._over_workers(workers, moved[:1])
    assert "0.png" in outcome.failure


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
