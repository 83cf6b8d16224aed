"""What other commands leave in a run directory, and the folders of studies and pools of fine-tunes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from soup.cli.app import cli
from soup.errors import JournalError
from soup.report.page.curves import curves_document
from soup.report.page.document import directory_document, directory_table
from soup.report.page.render import render_page
from soup.report.pool_check import check
from soup.report.sweep import sweep
from soup.report.sweep_result import Sweep, SweepPoint
from soup.testing import tiny_checkpoint
from tests.helpers.simulated_runs import SimulatedRun
from tests.helpers.toy_pools import make_checkpoint


def score(checkpoint):
    return 50.0


@pytest.fixture
def simulated(tmp_path):
    made = SimulatedRun(tmp_path / "ckpts.soup", questions=40)
    made.search()
    return made


def test_a_sweep_leaves_its_line_and_its_barriers_for_the_page(simulated, tmp_path):
    for seed, name in enumerate("ab"):
        make_checkpoint(tmp_path / name, seed)
    line = sweep(tmp_path / "a", tmp_path / "b", eval=score, steps=3, run_dir=simulated.folder, loss=False)
    [shown] = directory_document(simulated.folder)["sweeps"]
    assert shown["barriers"] == line.as_json()["barriers"]
    assert shown["curves"]["overall"] == [[0.0, 50.0], [0.5, 50.0], [1.0, 50.0]]
    assert "a to b" in render_page(directory_document(simulated.folder))


def test_lines_with_losses_and_without_are_drawn(simulated):
    trials = [simulated.search().trials[index] for index in (0, 4, 1)]
    for losses in ({}, {"pictures:b0": 0.25}):
        points = tuple(SweepPoint(t, trial, losses) for t, trial in zip((0.0, 0.5, 1.0), trials, strict=True))
        simulated.run.sweeps.mkdir(exist_ok=True)
        simulated.run.sweep("a", "b").write_text(json.dumps(Sweep(("a", "b"), points).as_json()))
        page = render_page(directory_document(simulated.folder))
        assert ("(loss)" in page) is bool(losses)


def test_a_check_with_a_run_directory_leaves_its_distances_for_the_page(simulated, tmp_path):
    for seed, name in enumerate(["base", "ckpts/a", "ckpts/b", "ckpts/c"]):
        make_checkpoint(tmp_path / name, seed)
    words = ["--pool", tmp_path / "ckpts", "--base", tmp_path / "base", "--run-dir", simulated.folder]
    done = CliRunner().invoke(cli, ["check", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    pool = directory_document(simulated.folder)["pool"]
    distances = check(tmp_path / "ckpts", tmp_path / "base").distances
    assert pool["distances"] == json.loads(json.dumps(distances.as_json()))
    assert pool["map"]["names"] == ["base", "a", "b", "c"]
    a, b = pool["map"]["points"][1:3]
    if pool["map"]["share"] > 0.99:
        assert math.dist(a, b) == pytest.approx(distances.distances[0][1], rel=1e-3)
    assert "Around the base" in render_page(directory_document(simulated.folder))


def test_there_is_no_map_around_a_base_of_zeros(simulated, tmp_path):
    for name, value in (("base", 0.0), ("ckpts/a", 1.0), ("ckpts/b", 2.0)):
        tiny_checkpoint(tmp_path / name, tensors={"model.norm.weight": torch.full((3,), value)})
    words = ["--pool", tmp_path / "ckpts", "--base", tmp_path / "base", "--run-dir", simulated.folder]
    CliRunner().invoke(cli, ["check", *map(str, words)], catch_exceptions=False)
    document = directory_document(simulated.folder)
    assert document["pool"]["map"] is None
    page = render_page(document)
    assert "not from this base, every element of which is 0" in page
    assert "Around the base" not in page


@pytest.mark.parametrize("count", [1, 199, 200, 201, 399, 1000])
def test_a_long_curve_is_drawn_by_some_of_its_points_from_the_first_to_the_last(tmp_path, count):
    job = tmp_path / "a"
    job.mkdir()
    (job / "state.json").write_text(json.dumps({"phase": "running"}))
    (job / "loss.jsonl").write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(count)))
    steps = [step for step, _ in curves_document(tmp_path)["curves"]["loss"]["a"]]
    assert (steps[0], steps[-1], len(steps)) == (0, count - 1, min(count, 200))
    assert len(set(steps)) == len(steps)


def test_the_jobs_of_a_pool_have_their_states_and_curves(tmp_path):
    job = tmp_path / "ckpts.finetune" / "counting"
    job.mkdir(parents=True)
    lines = [{"step": step, "loss": 1 / (step + 1), "grad_norm": 2.0} for step in range(3)]
    (job / "loss.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')
    state = {"phase": "running", "step": 2, "steps": 9, "loss": 0.25, "seconds_per_step": 1.5, "attempt": 1}
    (job / "state.json").write_text(json.dumps(state))
    (job / "job.json").write_text("{}")
    document = directory_document(job.parent)
    assert document["curves"]["loss"]["counting"] == [[0, 1.0], [1, 0.5], [2, 1 / 3]]
    assert directory_table(job.parent).rows[0].values == (2, 9, 0.25, 1.5)
    page = render_page(document)
    assert "running" in page
    assert page.count("<rect") == 3


def test_a_study_is_drawn(tmp_path):
    result = {"overall": 60.0, "selection": None, "benchmarks": {"b": 50.0}, "ingredients": "a"}
    study = {"schema": 1, "questions": "all", "seeds": {"0": {"best single": result}}}
    (tmp_path / "study.json").write_text(json.dumps(study))
    assert "best single" in render_page(directory_document(tmp_path))
    assert directory_table(tmp_path).rows[0].values == (60.0, 60.0, None)
    (tmp_path / "study.json").write_text('{"seeds": [1]}')
    with pytest.raises(JournalError, match=r"study\.json: damaged"):
        directory_document(tmp_path)


@pytest.mark.parametrize("name", ["pool.json", "sweeps/a..b.json"])
@pytest.mark.parametrize("text", ["{}", "[", '{"distances": [1], "trials": [1]}'])
def test_a_damaged_file_is_told_by_its_name(simulated, name, text):
    (simulated.folder / "sweeps").mkdir()
    (simulated.folder / name).write_text(text)
    with pytest.raises(JournalError, match=r"damaged .*Remove it"):
        directory_document(simulated.folder)


def test_a_run_of_an_earlier_version_is_drawn(tmp_path):
    shutil.copytree(Path(__file__).parents[2] / "data/earlier_run/ckpts.soup", tmp_path / "ckpts.soup")
    assert "maximum" in render_page(directory_document(tmp_path / "ckpts.soup"))
