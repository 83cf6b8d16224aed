"""Losses on held-out rows: equal to a plain loop's, harmless, the best model kept, resumed to the byte, told."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from finetune.config import DataSet, TrainSettings
from finetune.data import Collator, Corpus, FeatureCache, RowTokenizer
from finetune.data.held_out import HeldOutRows, hold_out, training_row
from finetune.data.row_scan import RowScanner, scan_rows
from finetune.jobs import JobStatus, read_stamp, read_state
from finetune.launching.digests import Digests
from finetune.points.tiny import tiny_processor
from finetune.training import validation
from finetune.training.best_model import best_folder, best_step
from finetune.training.job import run
from finetune.training.train import prepare, train_job
from finetune.training.trainer import StopRequest
from soup.errors import FinetuneError
from soup.hf.processors import open_processor
from tests.helpers.training_basics import Notes, make_job, write_rows

pytestmark = pytest.mark.usefixtures("one_thread")

HELD = {"validation": 0.25, "validate_every": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows")


def told(job, digest="d"):
    notes = Notes()
    assert train_job(job, digest, StopRequest(), notes)
    return notes.all_losses


def weights(folder):
    return load_file(next(folder.glob("*.safetensors")))


def lines(job):
    return [json.loads(line) for line in (job.folder / "loss.jsonl").read_text().splitlines()]


def scan_of(corpus):
    return scan_rows(corpus, RowScanner(None, 4096))


def test_a_share_of_each_data_set_is_held_out_whatever_the_others_are(data, tmp_path):
    other = write_rows(tmp_path / "other", count=10, pictures=(0,))
    alone, both = (Corpus([DataSet(path=str(path)) for path in paths]) for paths in ([data], [data, other]))
    (held,), learnt = hold_out(alone, scan_of(alone), [0.25])
    (held_of_both,), learnt_of_both = hold_out(both, scan_of(both), [0.25])
    assert len(held) == 6
    assert learnt.sum() == 18
    assert list(held_of_both[:6]) == list(held)
    (held_of_other,), _ = hold_out(of_other := Corpus([DataSet(path=str(other))]), scan_of(of_other), [0.25])
    assert list(held_of_both[6:] - 24) == list(held_of_other)
    assert len(held_of_other) == 2
    assert not learnt_of_both[held_of_both].any()


def test_rows_serve_one_purpose_and_a_small_share_is_one_row(data):
    corpus = Corpus([DataSet(path=str(data))])
    scan = scan_of(corpus)
    scan.good[:4] = False
    (first, second, none), learnt = hold_out(corpus, scan, [0.01, 0.5, 0.0])
    assert (len(first), len(second), len(none), int(learnt.sum())) == (1, 10, 0, 9)
    assert not {*first} & {*second}
    assert not learnt[[*range(4), *first, *second]].any()


def test_rows_to_look_at_stand_by_category_and_the_first_comes_after_the_last(data):
    sets = [DataSet(path=str(data), category=name) for name in "ba"]
    rows = HeldOutRows(Corpus(sets), np.array([3, 30, 1, 25]), RowTokenizer(tiny_processor()))
    assert (rows.indices, rows.categories) == ([25, 30, 1, 3], ["a", "a", "b", "b"])
    assert [rows.after(rows[n])["where"] for n in (0, 3)] == [rows[1]["where"], rows[0]["where"]]


def test_what_says_the_same_as_a_held_out_row_is_not_learnt(tmp_path):
    rows = [[{"from": "human", "value": f"say {i % 10}"}, {"from": "gpt", "value": "so"}] for i in range(40)]
    (tmp_path / "rows.json").write_text(json.dumps([{"conversations": turns} for turns in rows]))
    corpus = Corpus([DataSet(path=str(tmp_path / "rows.json"))])
    (held,), learnt = hold_out(corpus, scan_of(corpus), [0.05])
    assert len(held) == 2
    assert not {int(i) % 10 for i in held} & {int(i) % 10 for i in np.flatnonzero(learnt)}
    assert learnt.sum() == 40 - 4 * len({int(i) % 10 for i in held})


def loop(job, data):
    """The ingredient's loss over all tokens that are learnt of the rows held out of data sets, one row at a time."""
    model = AutoModelForImageTextToText.from_pretrained(job.out).eval()
    processor, corpus = open_processor(job.out), Corpus(data)
    (held,), _ = hold_out(corpus, scan_of(corpus), [0.25])
    collate, total, count = Collator(processor, FeatureCache()), 0.0, 0
    for i in held:
        batch = collate([training_row(corpus, int(i), RowTokenizer(processor), 0)])
        with torch.no_grad():
            logits = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits[0, :-1]
        wanted = batch["labels"][0, 1:]
        lost = torch.nn.functional.cross_entropy(logits.double(), wanted, ignore_index=-100, reduction="sum")
        total, count = total + lost.item(), count + int((wanted != -100).sum())
    return total / count


@pytest.mark.parametrize("more", [{}, {"micro_batch": 1}, {"packing": True, "max_length": 200}])
def test_the_loss_is_that_of_a_plain_loop_over_the_rows(data, tmp_path, more):
    job = make_job(tmp_path, data, steps=2, global_batch_size=2, **HELD, **more)
    losses = told(job)
    assert losses == {2: pytest.approx(loop(job, job.data), rel=1e-5)}


def test_to_look_changes_nothing_of_the_training(data, tmp_path):
    other = write_rows(tmp_path / "other", count=4)
    plain = make_job(tmp_path, data, name="plain", lora={"rank": 2, "dropout": 0.5}, steps=4)
    looked = make_job(
        *(tmp_path, data, "looked"),
        lora={"rank": 2, "dropout": 0.5},
        steps=4,
        validation=[str(other)],
        validate_every=1,
    )
    told(plain)
    assert sorted(told(looked)) == [1, 2, 3, 4]
    assert all(torch.equal(tensor, weights(looked.out)[name]) for name, tensor in weights(plain.out).items())


def scripted(monkeypatch, losses):
    """The losses that are measured, one after another."""
    script = iter(losses)
    make = validation.HeldOutLosses
    monkeypatch.setattr("finetune.training.train.measure_losses", lambda *args: make(next(script), {"general": 0.0}))


def test_the_best_model_is_the_ingredient_on_request(data, tmp_path, monkeypatch):
    scripted(monkeypatch, [3.0, 1.0, 2.0])
    job = make_job(tmp_path, data, keep_best=True, keep_every=2, **HELD)
    assert run(job.folder) == 0
    at_4, last = job.out.with_name("out-job-step4"), job.out
    assert all(torch.equal(tensor, weights(at_4)[name]) for name, tensor in weights(last).items())
    stamp, state = read_stamp(job.out), read_state(job.folder)
    assert (stamp["step"], stamp["validation_loss"], stamp["steps"]) == (4, 1.0, 6)
    assert (state.validation_loss, state.validated_step, state.best_step) == (2.0, 6, 4)
    assert not list(job.folder.glob("best*"))


def test_training_stops_early_when_nothing_gets_better(data, tmp_path, monkeypatch):
    scripted(monkeypatch, [3.0, 1.0, 2.0, 1.0, 0.0])
    job = make_job(tmp_path, data, steps=10, early_stopping=2, checkpoint_every=2, **HELD)
    assert run(job.folder) == 0
    assert read_stamp(job.out)["steps"] == 8
    assert read_state(job.folder).phase == JobStatus.DONE


def test_a_job_that_goes_on_ends_as_one_that_was_left_alone(data, tmp_path, monkeypatch):
    keys = {"keep_best": True, "checkpoint_every": 2, **HELD, "steps": 8}
    whole, cut = make_job(tmp_path, data, name="whole", **keys), make_job(tmp_path, data, name="cut", **keys)
    losses = told(whole)
    with pytest.raises(KeyboardInterrupt):
        train_job(cut, "d", StopRequest(), Notes(killed_at=7))
    for path in cut.folder.glob("best*"):  # as where the arithmetic is not the same twice
        if path != best_folder(cut.folder, best_step(lines(cut)[:-1]) or 0):
            shutil.rmtree(path)
    assert told(cut) == {8: losses[8]}
    assert all(torch.equal(tensor, weights(cut.out)[name]) for name, tensor in weights(whole.out).items())

    def same(job):
        return [(line["step"], line.get("loss"), line.get("validation/loss")) for line in lines(job)]

    assert same(cut) == same(whole)
    assert sorted(step for step, _, loss in same(whole) if loss is not None) == [2, 4, 6, 8]
    assert sorted(step for step, loss, _ in same(whole) if loss is not None) == list(range(1, 9))


def test_categories_have_losses_of_their_own(data, tmp_path):
    other = write_rows(tmp_path / "other", count=12, pictures=(0,))
    job = make_job(tmp_path, [data, other], steps=2, **HELD)
    sets = (job.data[0], job.data[1].model_copy(update={"category": "text"}))
    object.__setattr__(job, "data", sets)
    told(job)
    (line,) = [line for line in lines(job) if "validation/loss" in line]
    of_sets = {f"validation/loss/{data_set.category}": loop(job, [data_set]) for data_set in sets}
    assert {name: line[name] for name in of_sets} == pytest.approx(of_sets, rel=1e-5)
    assert line["validation/loss"] == pytest.approx(loop(job, sets), rel=1e-5), "over all tokens, whosever they are"


def test_a_data_set_of_which_nothing_would_be_left_is_told(tmp_path):
    data = write_rows(tmp_path / "rows", count=1)
    with pytest.raises(FinetuneError, match="of its 1 rows 1 would be held out"):
        prepare(make_job(tmp_path, data, **HELD), "d", StopRequest())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"validation": 0.1}, "validation and validate_every go together"),
        ({"validate_every": 3}, "validation and validate_every go together"),
        ({"keep_best": True}, "keep_best and early_stopping need validation"),
        ({"validation": 0.7, "validate_every": 2}, "less than or equal to 0.5"),
    ],
)
def test_what_does_not_go_together_is_told(settings, words):
    with pytest.raises(ValidationError, match=words):
        TrainSettings(lr=1, steps=3, **settings)


def test_digests_tell_what_makes_another_model(data, tmp_path):
    other = write_rows(tmp_path / "other", count=4)
    digests = Digests()

    def digest(**settings):
        return digests.job(make_job(tmp_path, data, **settings))

    looks = {"validation": [str(other)], "validate_every": 2}
    assert digest() == digest(**looks)
    assert digest(**looks) != digest(**looks, keep_best=True)
    assert digest() != digest(**HELD)
    assert digest(**HELD) == digest(**{**HELD, "validate_every": 3})
    moved = shutil.copytree(other, tmp_path / "moved")
    assert digest(**looks, keep_best=True) == digest(**{**looks, "validation": [str(moved)]}, keep_best=True)
    settings = TrainSettings(lr=1, steps=3, **looks)
    assert TrainSettings.from_stored(json.loads(json.dumps(settings.as_stored()))) == settings
    assert "validation" not in TrainSettings(lr=1, steps=3).as_stored()
