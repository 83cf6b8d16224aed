"""`soup select`: Individual Select, with training played by heads of tiny checkpoints as in the study's tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import finetune.launching.launch
from finetune.config_file import read_config
from finetune.jobs import plan_jobs
from finetune.study.config import read_study
from finetune.study.run import run_study
from finetune.study.seed_run import StudyProgress
from finetune.study.select import Selector
from soup.cli.app import cli
from soup.errors import EvaluatorError, FinetuneError, RecipeError
from soup.evaluation.config import EvalConfig
from tests.finetune.study.test_study import LEARNT, Trainer, distance
from tests.helpers.stand_in_jobs import rows
from tests.helpers.toy_pools import calls, make_judge

POOL = """
start: {start: tiny, data: data/base, out: base, lr: 1, steps: 10}
data: data/base
added: {number: data/number, word: {path: data/word, weight: 2}, noise: data/noise}
lr: 1
steps: 10
"""
EVAL = EvalConfig("python:judge/judge.py:score")


@pytest.fixture
def trainer(monkeypatch):
    stands_in = Trainer()
    monkeypatch.setattr(finetune.launching.launch, "finetune", stands_in)
    return stands_in


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_judge(tmp_path / "judge")
    for name in LEARNT:
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "data.json").write_text(json.dumps(rows(name)))
    (tmp_path / "pool.yaml").write_text(POOL)
    return tmp_path


def test_sets_that_raise_the_score_join_the_base_set_and_the_rest_is_a_pool(home, trainer):
    selection = Selector(home / "pool.yaml", EVAL).run()
    assert sorted(trainer.trained) == ["base", "noise", "number", "start", "word"]
    assert selection.base.overall == distance(LEARNT["base"])
    assert {name: trial.overall for name, trial in selection.trials.items()} == {
        name: pytest.approx(distance(LEARNT[name])) for name in ("number", "word", "noise")
    }
    assert (selection.kept, selection.rest) == (("word",), ("number", "noise"))
    keys = yaml.safe_load((home / "pool.selected.yaml").read_text())
    assert keys["data"] == ["data/base", {"path": "data/word", "weight": 2}]
    assert keys["added"] == {"number": "data/number", "noise": "data/noise"}
    assert read_config(home / "pool.selected.yaml").out == "ckpts-selected"


def test_the_json_tells_each_trial_as_soup_eval_does_and_what_it_gains_in_numbers(home, trainer):
    document = Selector(home / "pool.yaml", EVAL).run().as_json()
    word = next(row for row in document["trials"] if row["name"] == "word")
    assert word["kept"]
    assert word["scores"]["python:judge/judge.py:score"]["value"] == word["overall"]
    assert word["versus_base"] == {"difference": pytest.approx(word["overall"] - document["base"])}


def test_what_it_trains_may_lie_behind_a_link_to_another_disk(home, trainer):
    (home / "disk/deep").mkdir(parents=True)
    (home / "runs").symlink_to(home / "disk/deep")
    path = home / "pool.yaml"
    path.write_text(POOL + "out: runs/ckpts\n")
    Selector(path, EVAL).run()
    assert (home / "disk/deep/ckpts.select/base").is_dir()
    assert sorted(path.name for path in (home / "disk").iterdir()) == ["deep"]


def test_typed_again_it_trains_and_asks_nothing(home, trainer):
    first = Selector(home / "pool.yaml", EVAL).run()
    count, trained = len(calls(home / "judge/judge.py")), [*trainer.trained]
    again = Selector(home / "pool.yaml", EVAL).run()
    assert (again.kept, trainer.trained) == (first.kept, trained)
    assert len(calls(home / "judge/judge.py")) == count == 4


def test_what_was_written_into_the_new_files_by_hand_is_kept_beside_them(home, trainer):
    words = ["select", "pool.yaml", "--eval", "python:judge/judge.py:score"]
    CliRunner().invoke(cli, words, catch_exceptions=False)
    path = home / "pool.selected.yaml"
    before = path.read_text()
    assert "older" not in CliRunner().invoke(cli, words, catch_exceptions=False).stderr
    path.write_text("mine")
    said = CliRunner().invoke(cli, words, catch_exceptions=False).stderr
    assert "pool.selected.yaml: was another; that is pool.selected.yaml.older now" in " ".join(said.split())
    assert (path.read_text(), (home / "pool.selected.yaml.older").read_text()) == (before, "mine")


def test_what_a_study_can_t_say_of_how_this_one_scored_is_told(home, trainer):
    told = []
    config = replace(EVAL, shots=2, judge_model="judge", batch_size=3)
    selector = Selector(home / "pool.yaml", EVAL, voice=StudyProgress(say=told.append))
    selector.config = config
    assert selector._not_in_study() == ["`judge_model`"]
    selector.config = replace(EVAL, timeout_seconds=60)
    selector.run()
    assert (
        told[-1] == f"{home / 'pool.selected.study.yaml'}: a study has no key for `timeout_seconds`: it scores without"
    )


def test_the_study_that_was_written_scores_as_this_selection_did(home, trainer):
    selector = Selector(home / "pool.yaml", EVAL)
    selector.config = replace(EVAL, shots=2, engine="vllm", engine_args={"max_model_len": 512}, batch_size=3)
    selector._write_study(selector._selected(()))
    study = read_study(home / "pool.selected.study.yaml")
    assert (study.shots, study.engine, study.engine_args) == (2, "vllm", {"max_model_len": 512})
    assert study.batch_size == 3


def test_a_key_in_an_engine_s_arguments_is_in_no_file(home, trainer):
    selector = Selector(home / "pool.yaml", EVAL)
    arguments = {"command": "env HF_TOKEN=plantedsecret0123456789 vllm serve", "model": "m"}
    selector.config = replace(EVAL, engine="serve", engine_args=arguments)
    path = selector._write_study(selector._selected(()))
    assert "plantedsecret" not in path.read_text()
    assert read_study(path).engine_args == {"model": "m"}
    assert selector._not_in_study() == ["`engine_args` command, which holds a key"]


def test_the_rest_is_souped_by_the_study_that_was_written(home, trainer):
    selection = Selector(home / "pool.yaml", EVAL).run()
    before = len(trainer.trained)
    table = run_study(selection.study)
    # The base set is now D and word; the start is the one that was trained already.
    assert sorted(trainer.trained[before:]) == ["base", "noise", "number"]
    [seed] = table.seeds.values()
    assert seed["the base set alone"].reported == pytest.approx(distance(LEARNT["word"]))
    assert "greedy" in seed


@pytest.mark.parametrize(("accept", "kept"), [("gt", ("word",)), ("ge", ("word", "same"))])
def test_a_set_that_changes_nothing_is_kept_by_ge_alone(home, trainer, monkeypatch, accept, kept):
    monkeypatch.setitem(LEARNT, "same", [0, 0, 0, 0])
    (home / "data/same").mkdir()
    (home / "pool.yaml").write_text(POOL.replace("{number: data/number", "{same: data/same"))
    assert set(Selector(home / "pool.yaml", EVAL, accept).run().kept) == set(kept)


def test_a_pool_that_trains_the_base_set_itself_lends_it(home, trainer):
    (home / "pool.yaml").write_text(POOL + "include_base: true\n")
    Selector(home / "pool.yaml", EVAL).run()
    assert (home / "ckpts/base").is_dir()
    assert not (home / "ckpts.select/base").exists()
    assert "include_base" not in yaml.safe_load((home / "pool.selected.yaml").read_text())


def test_where_all_are_kept_nothing_is_left_to_be_souped(home, trainer):
    (home / "pool.yaml").write_text(POOL.replace("number: data/number, ", "").replace(", noise: data/noise", ""))
    selection = Selector(home / "pool.yaml", EVAL).run()
    assert (selection.rest, selection.study) == ((), None)
    start, job = plan_jobs(read_config(selection.pool), home)
    assert start.name == "start"
    assert [Path(data_set.path).name for data_set in job.data] == ["base", "word"]


@pytest.mark.parametrize(
    ("change", "accept", "why"),
    [
        (("steps: 10\n", "steps: 10\nsweep: {lr: [1, 2]}\n"), "gt", "leave `sweep` out"),
        (("added:", "include_base: true\n#"), "gt", "to choose from under `added`"),
        (("", ""), "better", "Unknown rule 'better'"),
    ],
)
def test_what_can_t_be_chosen_from_is_refused_before_anything_is_trained(home, trainer, change, accept, why):
    (home / "pool.yaml").write_text(POOL.replace(*change) if change[0] else POOL)
    with pytest.raises((FinetuneError, RecipeError), match=why):
        Selector(home / "pool.yaml", EVAL, accept)
    assert trainer.trained == []


def test_a_benchmark_that_is_not_there_is_told_by_a_dry_run(home, trainer):
    words = ["select", "pool.yaml", "--eval", "python:judge/none.py:score", "--dry-run"]
    with pytest.raises(EvaluatorError, match=r"none\.py"):
        CliRunner().invoke(cli, words, catch_exceptions=False)


def test_what_can_t_be_trained_is_told_by_a_dry_run(home, trainer):
    (home / "data/word/data.json").unlink()
    with pytest.raises(FinetuneError, match=r"nothing was started.\n  - data set .*word: no data\.json"):
        Selector(home / "pool.yaml", EVAL).plan()


def test_the_command_prints_what_it_kept_and_a_plan(home, trainer):
    words = ["select", "pool.yaml", "--eval", "python:judge/judge.py:score", "--json"]
    plan = CliRunner().invoke(cli, [*words, "--dry-run"], catch_exceptions=False)
    assert json.loads(plan.stdout)["trainings"] == ["number", "word", "noise", "base"]
    assert trainer.trained == []
    done = json.loads(CliRunner().invoke(cli, words, catch_exceptions=False).stdout)
    assert [(row["name"], row["kept"]) for row in done["trials"]] == [
        ("number", False),
        ("word", True),
        ("noise", False),
    ]
    assert (done["rest"], done["study"]) == (["number", "noise"], "pool.selected.study.yaml")
    shown = CliRunner().invoke(cli, words[:-1], catch_exceptions=False).stdout
    assert "kept" in shown
