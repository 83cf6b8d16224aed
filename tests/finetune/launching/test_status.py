"""What jobs would take, what they are made of, and how they are shown."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from finetune.config import DataSet, TrainSettings
from finetune.data import Corpus, TrainingRows
from finetune.jobs import Job, JobStatus, State, attempt_end, read_job, write_state
from finetune.launching.digests import Digests, is_preset
from finetune.launching.estimates import estimate, trained_parameters
from finetune.launching.executors.protocol import TaskExit
from finetune.launching.job_plans import plan_launch
from finetune.launching.jobs_section import JobsSection
from finetune.launching.launch import finetune
from finetune.launching.outcomes import classify_exit
from finetune.launching.status import HEAD, JobRow, cells, job_row
from finetune.points.tiny import tiny_processor
from soup.errors import CheckpointError, FinetuneError
from tests.helpers.stand_in_jobs import CONFIG, command, data_set, place

SHAPES = {
    "general_vit.layers.0.w.weight": (10, 10),
    "general_vit.layers.1.w.weight": (10, 10),
    "general_vit.layers.2.w.weight": (10, 10),
    "general_vit.head.bias": (10,),
    "vision_projector.0.weight": (10, 20),
    "llm.model.layers.0.q_proj.weight": (20, 20),
    "llm.model.layers.0.norm.weight": (20,),
    "llm.model.embed_tokens.weight": (100, 20),
}
ALL = 300 + 10 + 200 + 400 + 20 + 2000


def settings(**keys):
    return TrainSettings(**{"lr": 1.0, "steps": 1, **keys})


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, ALL),
        ({"freeze": ["general_vit"]}, ALL - 310),
        ({"freeze": ["general_vit", "llm"]}, 200),
        ({"train": {"general_vit": "last 2"}}, ALL - 310 + 200),
        ({"train": {"general_vit": "none"}}, ALL - 310),
        ({"train": {"general_vit": "all"}}, ALL),
        ({"freeze": ["llm"], "train": {"llm.model.embed_tokens": "all"}}, ALL - 420),
        ({"lora": {"rank": 4}}, 4 * 40 + 200),
        ({"lora": {"rank": 4, "save": []}}, 4 * 40),
        ({"lora": {"rank": 2, "target": r"general_vit\.layers\.\d\.w", "save": []}}, 3 * 2 * 20),
    ],
)
def test_what_learns_is_counted_by_the_settings(keys, wanted):
    assert trained_parameters(SHAPES, settings(**keys)) == wanted


def checkpoint(root, shapes=SHAPES):
    root.mkdir(parents=True)
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, root / "model.safetensors")
    text = {"hidden_size": 20, "num_hidden_layers": 1, "vocab_size": 100}
    (root / "config.json").write_text(json.dumps({"text_config": text}))
    return root


def job_on(root, **keys):
    data = (DataSet(path=str(root / "data")),)
    return Job("job", str(root / "start"), data, settings(**keys), root / "out", root / "folder")


def test_memory_is_weights_gradients_moments_and_activations(tmp_path):
    checkpoint(tmp_path / "start")
    job = job_on(tmp_path, global_batch_size=8, micro_batch=2, max_length=50, freeze=["general_vit"])
    activations = 100 * 20 * 34 + 10 * 100 * 100
    guess = estimate(job, {}, 1)
    assert (guess.parameters, guess.trained) == (ALL, ALL - 310)
    assert guess.memory_bytes == 4 * ALL + 12 * (ALL - 310) + activations
    shared = job_on(
        tmp_path, global_batch_size=8, micro_batch=2, max_length=50, parallel="zero3", gradient_checkpointing=True
    )
    assert estimate(shared, {}, 4).memory_bytes == ALL + 3 * ALL + 100 * 20 * (2 + 34) + 10 * 100 * 100


def test_until_a_start_is_trained_what_it_is_trained_from_tells_of_those_that_wait_for_it(tmp_path):
    checkpoint(tmp_path / "start")
    first = replace(job_on(tmp_path), name="start")
    waits = replace(first, name="a", start=str(tmp_path / "base"), after="start")
    assert estimate(waits, {}, 1, [first, waits]) == replace(estimate(first, {}, 1), name="a")
    assert estimate(waits, {}, 1, [first, waits]).parameters == ALL


def test_what_is_not_known_is_said_to_be_unknown(tmp_path):
    guess = estimate(job_on(tmp_path, steps=None, epochs=1), {}, 1)
    assert (guess.rows, guess.steps, guess.parameters, guess.memory_bytes, guess.seconds) == (None,) * 5


def test_epochs_are_steps_by_rows_weights_and_batch(tmp_path):
    data_set(tmp_path, "x", 25)
    data = DataSet(path=str(tmp_path / "data" / "x"), weight=2.0)
    job = Job(
        "job",
        "tiny",
        (data,),
        settings(steps=None, epochs=3, global_batch_size=8),
        tmp_path / "out",
        tmp_path / "folder",
    )
    guess = estimate(job, {data.path: Digests().content(data)}, 1)
    assert (guess.rows, guess.steps) == (25, 19)  # 150 rows, of which the last batch is short


@pytest.mark.parametrize(
    "keys",
    [
        {"mixture": {"categories": {"math": 0.5, "code": 2}}},
        {"mixture": {"groups": {"text_only": 1.0}}, "epochs": 1.3},
        {"validation": 0.1, "validate_every": 5},
        {"mixture": {"categories": {"math": 0.1}, "adapt": {"every": 3, "held_out": 0.2}}},
        {"validation": 0.1, "validate_every": 5, "mixture": {"categories": {"code": 0.25}, "adapt": {"every": 3}}},
    ],
)
def test_the_steps_that_are_told_beforehand_are_those_that_a_job_takes(tmp_path, keys):
    sets = []
    for name, category, count in (("x", "general", 41), ("y", "math", 30), ("z", "code", 7)):
        turns = [[{"from": "human", "value": f"{name} {i}?"}, {"from": "gpt", "value": "yes"}] for i in range(count)]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps([{"conversations": conversation} for conversation in turns]))
        sets.append(DataSet(path=str(path), category=category, weight=1.5))
    wanted = settings(**{"steps": None, "epochs": 2, "global_batch_size": 4, **keys})
    job = Job("job", "tiny", tuple(sets), wanted, tmp_path / "out", tmp_path / "folder")
    digests = Digests()
    guess = estimate(job, {each.path: digests.content(each) for each in sets}, 1)
    assert guess.steps == TrainingRows(Corpus(sets), wanted, tiny_processor()).steps


def test_a_job_s_own_pace_counts_before_another_s_and_only_one_that_is_trained_alike(tmp_path):
    jobs = {}
    for name, pace, batch in (("a", 2.0, 8), ("b", 3.0, 8), ("c", 5.0, 16)):
        jobs[name] = Job(
            name, "tiny", (), settings(steps=10, global_batch_size=batch), tmp_path / name, tmp_path / f"{name}.job"
        )
        write_state(jobs[name].folder, State("done", 10, 10, seconds_per_step=pace))
    new = Job("new", "tiny", (), settings(steps=10, global_batch_size=16), tmp_path / "new", tmp_path / "new.job")
    assert estimate(jobs["b"], {}, 1, jobs.values()).seconds == 30
    assert estimate(new, {}, 1, jobs.values()).seconds == 50


def content(place, **keys):
    return Digests().content(DataSet(path=str(place), **keys))


def test_a_data_set_is_its_rows_and_the_names_and_sizes_of_its_pictures(tmp_path):
    here, there = data_set(tmp_path / "a", "x"), data_set(tmp_path / "b", "x")
    first = content(here)
    assert (first.rows, first.pictures) == (3, 3)
    assert content(there) == first, "paths don't matter, nor do times"
    os.utime(there / "images" / "x1.png", (2e9, 2e9))
    assert content(there) == first
    assert content(there).youngest == (2e9, "images/x1.png")
    (there / "images" / "x0.png").write_bytes(b"another size")
    assert content(there).digest != first.digest
    (here / "images" / "x0.png").unlink()
    assert content(here).digest not in (first.digest, content(there).digest)


def test_all_forms_of_rows_have_a_digest_and_a_count(tmp_path):
    rows = [
        {"image": f"{i}.png", "conversations": [{"value": 'say "messages": or \\"conversations\\":'}]} for i in range(4)
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    messages = [{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x.jpg"}}]}]}]
    (tmp_path / "c.jsonl").write_text(json.dumps(messages[0]) + "\n")
    assert [(stamp.rows, stamp.pictures) for stamp in map(content, sorted(tmp_path.iterdir()))] == [
        (4, 4),
        (4, 4),
        (1, 1),
    ]
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist(messages * 5), tmp_path / "d.parquet")
    assert content(tmp_path / "d.parquet").rows == 5
    (tmp_path / "many").mkdir()
    for part in range(2):
        (tmp_path / "many" / f"train-{part}.parquet").write_bytes((tmp_path / "d.parquet").read_bytes())
    assert content(tmp_path / "many").rows == 10
    assert len({content(path).digest for path in tmp_path.iterdir()}) == 5


def test_weights_and_categories_make_another_job_and_paths_do_not(tmp_path):
    data_set(tmp_path, "x")
    digests = set()
    for keys in ({}, {"weight": 2.0}, {"category": "math"}, {"split": "test"}):
        data = DataSet(path=str(tmp_path / "data" / "x"), **keys)
        digests.add(Digests().job(Job("n", "tiny", (data,), settings(), tmp_path / "o", tmp_path / "f")))
    assert len(digests) == 4


def test_a_file_is_read_once_within_a_call(tmp_path, monkeypatch):
    place_ = data_set(tmp_path, "x")
    digests = Digests()
    data = DataSet(path=str(place_))
    first = digests.content(data)
    monkeypatch.setattr("finetune.launching.digests._pictures", None)
    assert digests.content(data) == first
    assert digests.content(data.model_copy(update={"weight": 2.0})) == first


def test_a_start_is_its_weights_wherever_it_lies(tmp_path):
    checkpoint(tmp_path / "a")
    checkpoint(tmp_path / "b")
    assert Digests().start(str(tmp_path / "a")) == Digests().start(str(tmp_path / "b"))
    checkpoint(tmp_path / "c", {**SHAPES, "more": (2,)})
    assert Digests().start(str(tmp_path / "c")) != Digests().start(str(tmp_path / "a"))
    assert Digests().start("tiny") == "tiny"
    (tmp_path / "d").mkdir()
    with pytest.raises(CheckpointError):
        Digests().start(str(tmp_path / "d"))


def test_presets_are_those_that_jobs_know():
    from finetune.points.presets import PRESETS

    assert all(map(is_preset, PRESETS))
    assert not is_preset("8b")
    with pytest.raises(FinetuneError, match="Did you mean 'tiny'"):
        Digests().start("tinny")


def test_a_hub_id_is_the_commit_that_the_cache_holds(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for kind in ("models", "datasets"):
        ref = tmp_path / f"{kind}--org--name" / "refs"
        ref.mkdir(parents=True)
        (ref / "main").write_text(f"{kind}-commit")
    assert Digests().start("org/name") == "org/name@models-commit"
    assert content("org/name").digest == "org/name@datasets-commit"
    with pytest.raises(FinetuneError, match="HF_HUB_OFFLINE is set"):
        Digests().start("org/other")


def test_the_digest_of_a_checkpoint_is_remembered_beside_the_jobs(tmp_path, monkeypatch):
    checkpoint(tmp_path / "start")
    path = place(tmp_path, CONFIG.replace("start: tiny", "start: start"))
    first = plan_launch(path)
    assert (tmp_path / "ckpts.finetune" / "digests.json").is_file()
    monkeypatch.setattr("soup.checkpoints.digest.digest_checkpoint", None)
    assert [job.digest for job in plan_launch(path).jobs] == [job.digest for job in first.jobs]


def test_rows_are_shown_in_columns_and_times_for_people(tmp_path):
    row = JobRow("a", "running", 5, 20, 0.123456, 2.0, 30.0, str(tmp_path / "a" / "log.txt"))
    assert len(cells(row)) == len(HEAD)
    assert cells(row, tmp_path) == ("a", "running", "5/20", "0.1235", "2.00 s/step", "30 s", "a/log.txt")
    empty = JobRow("b", "not started", 0, 0, None, None, None, "log")
    assert cells(empty) == ("b", "not started", "", "", "", "", "log")


def test_states_are_checked_against_what_runs(tmp_path):
    job = job_on(tmp_path, steps=9)
    for phase, alive, shown in [
        ("running", True, "running"),
        ("running", False, "lost"),
        ("running", None, "running"),
        ("waiting", True, "waiting"),
        ("waiting", False, "not started"),
        ("failed", False, "failed"),
        ("failed", True, "waiting"),  # in the queue again
        ("stopped", False, "stopped"),
        ("done", False, "lost"),  # by its own word, without a checkpoint
    ]:
        write_state(job.folder, State(phase, 3, 9))
        assert job_row(job, lambda folder, alive=alive: alive).state == shown, (phase, alive)


def test_a_state_that_an_earlier_attempt_left_says_nothing_of_this_one(tmp_path):
    job = job_on(tmp_path)
    before = State("failed", why="of old")
    write_state(job.folder, before)
    assert classify_exit(job, "d", TaskExit("job", 1), before).why == "ended with exit code 1"
    assert classify_exit(job, "d", TaskExit("job", 1)).why == "of old"
    assert classify_exit(job, "d", TaskExit("job", 143), before).status == "stopped"
    assert classify_exit(job, "d", TaskExit("job", -9), before, interrupted=True).status == "stopped"


def test_the_end_of_a_long_log_is_read_without_the_rest(tmp_path):
    (tmp_path / "log.txt").write_text("".join(f"line {i}\n" for i in range(200_000)))
    assert attempt_end(tmp_path, 2) == "line 199998\nline 199999"
    assert attempt_end(tmp_path / "none") == ""


def test_a_job_reads_back_what_it_wrote(tmp_path):
    path = place(tmp_path)
    finetune(path, command=command)
    plan = plan_launch(path).jobs[0]
    job, digest = Job.read(plan.job.folder)
    assert (job, digest) == (plan.job, plan.digest)
    assert read_job(tmp_path) is None


def test_a_board_that_is_too_tall_shows_what_runs_and_failed_and_counts_the_rest():
    def row(name, state):
        return JobRow(name, state, 1, 10, 0.5, 0.1, None, "log.txt")

    states = [*["done"] * 5, "failed", "running", *["waiting"] * 5]
    jobs = JobsSection([row(f"job{i}", JobStatus(state)) for i, state in enumerate(states)])
    counts = "5 done, 1 failed, 1 running, 5 waiting"
    lines = [line.plain for line in jobs.lines(80, 14)]
    assert lines[:2] == [counts, "job    state    step  loss    speed         left"]
    assert [line.split()[0] for line in lines[2:]] == [f"job{i}" for i in range(12)]
    lines = [line.plain for line in jobs.lines(80, 6)]
    assert [line.split()[:2] for line in lines[2:5]] == [["job5", "failed"], ["job6", "running"], ["job7", "waiting"]]
    assert lines[5:] == ["... 9 more: 5 done, 4 waiting"]
    assert jobs.line() == f"{counts}: job6 1/10"
    two = [JobRow(name, JobStatus.RUNNING, 50, 100, 0.5, 2.0, 100.0, "log.txt") for name in "ab"]
    three = [JobRow(name, JobStatus.WAITING, 0, 100, None, None, None, "log.txt") for name in "cde"]
    assert JobsSection([*two, *three]).line() == "2 running, 3 waiting, about 7 min left: a 50/100, b 50/100"
    epochs = [JobRow("c", JobStatus.WAITING, 0, 0, None, None, None, "log.txt")]
    assert JobsSection([*two, *epochs]).line().startswith("2 running, 1 waiting, about 2 min left for those that run:")
    assert all(len(line.plain) <= 30 for line in jobs.lines(30, 6))
