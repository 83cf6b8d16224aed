"""Scores on the way: those of the snapshot of that step, and the training that there would be without them."""

from __future__ import annotations

import json
from ast import literal_eval

import pytest
import torch
from safetensors.torch import load_file

import soup
from evaluators.answering.engines import transformers
from finetune.config import TrainSettings
from finetune.jobs import read_state
from finetune.launching.digests import Digests
from finetune.training.evaluation import as_written
from finetune.training.job import run
from finetune.training.train import prepare, train_job
from finetune.training.trainer import StopRequest
from soup.errors import EvaluatorError, FinetuneError
from soup.evaluation.journal import Journal
from tests.helpers.toy_data_sets import answers_rows
from tests.helpers.toy_test_sets import write_tsv
from tests.helpers.training_basics import Notes, make_job, write_rows

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows")


@pytest.fixture
def questions(tmp_path, monkeypatch):
    """Whether a letter or a digit is in the answer, another one for each question."""
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    rows = answers_rows(lambda i: "yes012345"[i % 9], category=lambda i: "de")
    write_tsv(tmp_path / "LMUData" / "MTVQA_TEST.tsv", rows)
    monkeypatch.setattr(transformers, "MAX_NEW_TOKENS", 8)
    monkeypatch.setitem(transformers.TransformersModel.__init__.__kwdefaults__, "max_new_tokens", 8)


WATCHED = {"evaluate": ["MTVQA_TEST"], "evaluate_every": 2}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora": {"rank": 2}},
        pytest.param({"dtype": "bfloat16"}, marks=pytest.mark.slow),
        pytest.param({"precision": "bfloat16"}, marks=pytest.mark.slow),
    ],
    ids=["full", "adapters", "rounded", "autocast"],
)
def test_the_score_on_the_way_is_that_of_the_snapshot_of_that_step(settings, data, questions, tmp_path):
    job = make_job(tmp_path, data, keep_every=2, steps=4, **WATCHED, **settings)
    notes = Notes()
    assert train_job(job, "d", StopRequest(), notes)
    snapshot = job.out.with_name(f"{job.out.name}-step2")
    soup.evaluate([snapshot, job.out], eval="MTVQA_TEST", run_dir=tmp_path / "run")
    with Journal(tmp_path / "run" / "journal.jsonl") as journal:
        theirs = {entry.names[0]: entry.score.value for entry in journal}
    assert notes.all_scores == {2: {"MTVQA_TEST": theirs[snapshot.name]}, 4: {"MTVQA_TEST": theirs[job.out.name]}}


JUDGE = """
from pathlib import Path
from safetensors.torch import load_file


def score(path):
    tensors = load_file(Path(path) / "model.safetensors")
    sums = {name: tensor.double().sum().item() for name, tensor in tensors.items()}
    with (Path(__file__).parent / "seen.txt").open("a") as seen:
        print(sums, file=seen)
    return 61
"""


@pytest.mark.parametrize("lora", [None, {"rank": 2}], ids=["full", "adapters"])
def test_a_function_on_the_way_gets_the_snapshot_of_that_step(lora, data, tmp_path):
    (tmp_path / "judge.py").write_text(JUDGE)
    watched = {"evaluate": [f"python:{tmp_path / 'judge.py'}:score"], "evaluate_every": 2}
    job = make_job(tmp_path, data, keep_every=2, steps=4, lora=lora, **watched)
    assert train_job(job, "d", StopRequest())
    expected = []
    for out in (job.out.with_name(f"{job.out.name}-step2"), job.out):
        tensors = load_file(out / "model.safetensors")
        expected.append({name: tensor.double().sum().item() for name, tensor in tensors.items()})
    assert [literal_eval(line) for line in (tmp_path / "seen.txt").read_text().splitlines()] == expected


def test_training_goes_on_as_if_nothing_had_been(data, questions, tmp_path):
    plain = make_job(tmp_path, data, name="plain", steps=5)
    watched = make_job(tmp_path, data, name="watched", steps=5, **WATCHED)
    for job in (plain, watched):
        assert train_job(job, "d", StopRequest())
    weights = [load_file(next(job.out.glob("*.safetensors"))) for job in (plain, watched)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_scores_are_in_the_state_and_in_the_curves(data, questions, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = make_job(tmp_path, data, steps=5, log_to="tensorboard", **WATCHED)
    assert run(job.folder) == 0
    state = read_state(job.folder)
    assert (state.scored_step, [*state.scores]) == (4, ["MTVQA_TEST"])
    events = EventAccumulator(str(job.folder / "tensorboard"))
    events.Reload()
    curve = events.Scalars("train/score/MTVQA_TEST")
    assert [event.step for event in curve] == [2, 4]
    assert curve[-1].value == pytest.approx(state.scores["MTVQA_TEST"], abs=1e-4)


def test_the_weights_are_the_own_ones_again_afterwards(data, tmp_path):
    job = make_job(tmp_path, data, lora={"rank": 2}, dtype="bfloat16")
    model = prepare(job, "d", StopRequest()).model
    before = {name: (tensor.dtype, tensor.clone()) for name, tensor in model.state_dict().items()}
    with as_written(model, job.settings):
        assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    after = model.state_dict()
    assert all(
        after[name].dtype == kind and torch.equal(after[name], tensor) for name, (kind, tensor) in before.items()
    )


def test_data_that_are_not_here_are_told_before_the_first_step(data, questions, tmp_path):
    job = make_job(tmp_path, data, evaluate=["mmstar"], evaluate_every=2)
    with pytest.raises(EvaluatorError, match=r"mmstar: its data .* are not here"):
        train_job(job, "d", StopRequest())


def test_several_processes_are_refused_before_the_first_step(data, questions, tmp_path, monkeypatch):
    monkeypatch.setattr("finetune.training.parallel.world_size", lambda: 2)
    with pytest.raises(FinetuneError, match="Train on one GPU"):
        prepare(make_job(tmp_path, data, **WATCHED), "d", StopRequest())


def test_benchmarks_and_steps_go_together():
    for half in ({"evaluate": ["mmstar"]}, {"evaluate_every": 3}):
        with pytest.raises(ValueError, match="evaluate and evaluate_every go together"):
            TrainSettings(lr=1, steps=3, **half)


def test_looking_at_a_model_makes_no_other_model(data, tmp_path):
    plain, watched = make_job(tmp_path, data, name="a"), make_job(tmp_path, data, name="b", **WATCHED)
    digests = Digests(tmp_path / "digests.json")
    assert digests.job(plain) == digests.job(watched)
    assert not {"evaluate", "evaluate_every"} & plain.settings.as_stored().keys()
    assert TrainSettings.from_stored(json.loads(json.dumps(watched.settings.as_stored()))) == watched.settings
