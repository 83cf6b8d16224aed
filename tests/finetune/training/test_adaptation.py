"""A mixture that follows the model in training: told, logged, resumed to the sample."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from finetune.jobs import read_state
from finetune.training.job import run
from finetune.training.train import prepare, train_job
from finetune.training.trainer import StopRequest
from soup.errors import FinetuneError
from tests.helpers.training_basics import Notes, make_job, write_rows

pytestmark = pytest.mark.usefixtures("one_thread")

ADAPT = {"mixture": {"adapt": {"every": 2, "held_out": 0.25}}, "steps": 8, "checkpoint_every": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return [write_rows(folder / "a", count=12), write_rows(folder / "b", count=8, pictures=(0,))]


def adapting(folder, data, name="job", **settings):
    job = make_job(folder, data, name=name, **{**ADAPT, **settings})
    object.__setattr__(job, "data", (job.data[0], job.data[1].model_copy(update={"category": "text"})))
    job.write("d")
    return job


def lines(job):
    return [json.loads(line) for line in (job.folder / "loss.jsonl").read_text().splitlines()]


def test_a_killed_job_goes_on_with_the_very_rows_and_shares(data, tmp_path):
    whole, cut = adapting(tmp_path, data, "whole"), adapting(tmp_path, data, "cut")
    assert run(whole.folder) == 0
    with pytest.raises(KeyboardInterrupt):
        train_job(cut, "d", StopRequest(), Notes(killed_at=5))
    assert run(cut.folder) == 0
    kept = [[{k: v for k, v in line.items() if "second" not in k} for line in lines(job)] for job in (whole, cut)]
    assert kept[0] == kept[1]
    mixture_lines = [line for line in kept[0] if "mixture/text" in line]
    assert [line["step"] for line in mixture_lines] == [2, 4, 6]
    assert len({line["mixture/text"] for line in mixture_lines}) == 3
    state = read_state(whole.folder)
    assert state.shares_step == 6
    assert state.shares == {"general": mixture_lines[-1]["mixture/general"], "text": mixture_lines[-1]["mixture/text"]}
    some, others = (load_file(next(job.out.glob("*.safetensors"))) for job in (whole, cut))
    assert all(torch.equal(tensor, others[name]) for name, tensor in some.items())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mixture": {"adapt": {"every": 1}}}, r"mixture\.adapt\.every: batches are read ahead; expected 2 or more"),
        ({"mixture": {"adapt": {"every": 2, "reference": {"maths": 1.0}}}}, "reference: no rows are of maths"),
    ],
)
def test_what_can_t_be_is_told_before_the_first_step(data, tmp_path, settings, words):
    with pytest.raises(FinetuneError, match=words):
        prepare(adapting(tmp_path, data, **settings), "d", StopRequest())


def test_one_category_alone_is_told(data, tmp_path):
    with pytest.raises(FinetuneError, match="all rows are of the category general"):
        prepare(make_job(tmp_path, data, **ADAPT), "d", StopRequest())
