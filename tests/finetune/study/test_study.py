"""`soup study`: the whole study from one file. Training is played here by heads of tiny checkpoints, so that every
number is known; judging, searching and merging are real. The slow test trains for real."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from safetensors.numpy import load_file

import finetune.launching.launch
import finetune.study.comparisons
from finetune.config_file import read_config
from finetune.jobs import plan_jobs
from finetune.study.config import read_study
from finetune.study.run import plan_study, run_study
from finetune.study.section import StudySection
from finetune.study.seed_run import SeedRun, StudyProgress
from finetune.study.table import StudyResult, StudyTable
from soup.cli.app import cli
from soup.errors import EvaluatorError, FinetuneError
from tests.evaluators.test_command import gone, wait_until
from tests.helpers.toy_pools import calls, make_checkpoint, make_judge

# What a model learns from each data set: its score is 100 less the mean distance from [1, 2, 3, 4].
LEARNT = {"base": [0, 0, 0, 0], "number": [3, 0, 0, 0], "word": [0, 3, 0, 0], "noise": [-9, -9, -9, -9]}


@dataclass
class Trainer:
    """Stands in for `launch.finetune`: a job's head is the sum of what its data teach, times its lr."""

    trained: list = field(default_factory=list)

    def __call__(self, path, *, progress=None, listener=None):
        config = read_config(path)
        jobs = plan_jobs(config, path.parent / config.root)
        for job in jobs:
            if not job.out.exists():
                self.trained.append(job.name)
                heads = [LEARNT[Path(data_set.path).name] for data_set in job.data]
                head = np.sum(heads, axis=0) * job.settings.lr * job.settings.steps / 10 + config.seed / 100
                make_checkpoint(job.out, head=head)
        return [path for job in jobs if job.name != "start" for path in [*self._earlier(job), job.out]]

    def _earlier(self, job):
        """The models of earlier steps, which are the last one here."""
        steps = range(job.settings.keep_every or job.settings.steps, job.settings.steps, job.settings.keep_every or 1)
        earlier = [job.out.with_name(f"{job.out.name}-step{step}") for step in steps]
        for path in earlier:
            if not path.exists():
                shutil.copytree(job.out, path)
        return earlier


STUDY = """
root: work
seeds: [0]
finetune:
  start: {data: data/base, out: base, lr: 1, steps: 10}
  data: data/base
  added: {number: data/number, word: data/word, noise: data/noise}
  lr: 1
  steps: 10
eval: python:judge/judge.py:score
compare: [learning_rates, individual_select, all_data]
learning_rates: [0.5, 2]
"""


@pytest.fixture
def trainer(monkeypatch):
    stands_in = Trainer()
    monkeypatch.setattr(finetune.launching.launch, "finetune", stands_in)
    return stands_in


def lay_out(home, text=STUDY):
    make_judge(home / "judge")
    for name in LEARNT:
        (home / "data" / name).mkdir(parents=True)
    (home / "study.yaml").write_text(text)
    return home


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lay_out(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study of two seeds, done: its folder, its trainer, its table."""
    home = lay_out(tmp_path_factory.mktemp("study"), STUDY.replace("seeds: [0]", "seeds: [0, 1]"))
    with pytest.MonkeyPatch.context() as patch:
        stands_in = Trainer()
        patch.setattr(finetune.launching.launch, "finetune", stands_in)
        patch.chdir(home)
        table = run_study(home / "study.yaml")
    return home, stands_in, table


def distance(head):
    return 100 - float(np.abs(np.float32(head) - np.float32([1, 2, 3, 4])).mean())


def test_every_way_has_the_score_that_its_training_gives(done):
    seed = done[2].seeds[0]
    sums = {name: np.add(LEARNT["base"], LEARNT[name]) for name in ("number", "word", "noise")}
    singles = {name: distance(head) for name, head in sums.items()}
    assert seed["start"].reported == seed["the base set alone"].reported == distance(LEARNT["base"])
    assert seed["mean of the singles"].reported == pytest.approx(fmean(singles.values()))
    assert seed["best single"].reported == pytest.approx(max(singles.values()))
    assert seed["average"].reported == pytest.approx(distance(np.mean(list(sums.values()), axis=0)), abs=1e-5)
    assert seed["greedy"].names == "word + number"
    assert seed["greedy"].reported == pytest.approx(distance([1.5, 1.5, 0, 0]))
    both = np.add(sums["number"], sums["word"])
    assert seed["individual select"].reported == pytest.approx(singles["word"])
    all_of_them = np.add(both, sums["noise"])
    assert seed["all data, one ingredient's steps"].reported == pytest.approx(distance(all_of_them))
    assert seed["all data, all 3 ingredients' steps"].reported == pytest.approx(distance(all_of_them * 3))


def test_individual_select_keeps_a_data_set_for_good_only_where_the_score_rises(done):
    _home, trainer, _ = done
    tried = [name for name in trainer.trained if "-" in name and "lr" not in name and "steps" not in name]
    # number alone is worse than the base set alone, word is better: the next is tried on top of word.
    assert tried[: len(tried) // 2] == ["word-noise"]


def test_the_soup_over_learning_rates_is_of_the_base_set_alone(done):
    home, _, _ = done
    folder = home / "work" / "seed-0"
    assert sorted(path.name for path in (folder / "learning_rates").iterdir()) == ["base-lr0.5", "base-lr2"]
    assert read_config(folder / "learning_rates.yaml").added == {}


POOLS = "strategies: [average, greedy, scale]\npools:\n  half: {lr: 0.5}\n"


def test_another_pool_is_trained_by_its_own_settings_and_souped_by_the_same_strategies(home, trainer):
    (home / "study.yaml").write_text(STUDY + POOLS)
    seed = run_study(home / "study.yaml").seeds[0]
    sums = [0.5 * np.add(LEARNT["base"], LEARNT[name]) for name in ("number", "word", "noise")]
    assert seed["half: mean of the singles"].reported == pytest.approx(fmean(map(distance, sums)))
    assert seed["half: best single"].reported == distance(sums[1])
    assert seed["half: average"].reported == pytest.approx(distance(np.mean(sums, axis=0)), abs=1e-5)
    assert seed["half: greedy"].reported == pytest.approx(distance([0.75, 0.75, 0, 0]))
    assert seed["half: scale"].reported == pytest.approx(distance([1.125, 1.125, 0, 0]))  # on the start as the base
    assert seed["half: scale"].names == "word + number, scale=1.5"
    assert seed["greedy"].reported == pytest.approx(distance([1.5, 1.5, 0, 0]))
    folder = home / "work" / "seed-0"
    assert sorted(path.name for path in (folder / "pools").iterdir()) == ["half", "half.scores"]
    assert (folder / "soups" / "half-greedy" / "config.json").is_file()


def test_models_of_earlier_steps_are_ingredients_and_nothing_that_the_pool_is_compared_with(home, trainer):
    plain = run_study(home / "study.yaml")
    text = STUDY.replace("root: work", "root: kept").replace("  lr: 1\n", "  lr: 1\n  keep_every: 5\n")
    (home / "kept.yaml").write_text(text)
    kept = run_study(home / "kept.yaml")
    compared = ["the base set alone", "greedy over learning rates", "individual select"]
    compared += [way for way in plain.ways if way.startswith("all data")]
    assert len(compared) == 5
    assert all(kept.seeds[0][way] == plain.seeds[0][way] for way in compared)
    assert (home / "kept" / "seed-0" / "ckpts" / "word-step5").is_dir()
    assert not [*(home / "kept" / "seed-0" / "alone").glob("*-step*")]
    assert kept.seeds[0]["average"].names.count("-step5") == 3


def test_another_pool_is_counted_before_anything_is_made(home, trainer):
    (home / "study.yaml").write_text(STUDY + POOLS)
    plan = plan_study(home / "study.yaml")
    assert plan["trainings_per_seed"]["half"] == 3
    evaluations = plan["evaluations_per_seed_at_most"]
    assert (evaluations["singles"], evaluations["half: singles"]) == (5, 3)
    assert [evaluations[f"half: {name}"] for name in ("average", "greedy", "scale")] == [1, 5, 10]


def test_a_dry_run_counts_models_of_earlier_steps_among_each_pool_s_ingredients(home, trainer):
    kept = STUDY.replace("  lr: 1\n", "  lr: 1\n  keep_every: 3\n")  # of steps 3, 6, 9 and 10
    (home / "study.yaml").write_text(kept + "strategies: [average, greedy]\npools:\n  short: {steps: 3}\n")
    plan = plan_study(home / "study.yaml")
    assert plan["trainings_per_seed"]["pool"] == plan["trainings_per_seed"]["short"] == 3
    evaluations = plan["evaluations_per_seed_at_most"]
    assert [evaluations[name] for name in ("singles", "average", "greedy")] == [14, 1, 23]
    assert [evaluations[f"short: {name}"] for name in ("singles", "average", "greedy")] == [3, 1, 5]


def test_where_the_steps_follow_from_the_rows_a_dry_run_knows_no_count_of_earlier_models(home, trainer):
    kept = STUDY.replace("  lr: 1\n  steps: 10\n", "  lr: 1\n  epochs: 1\n  keep_every: 3\n")
    (home / "study.yaml").write_text(kept + "strategies: [average, soce]\n")
    evaluations = plan_study(home / "study.yaml")["evaluations_per_seed_at_most"]
    assert evaluations["singles"] == evaluations["soce"] == "as many as the steps keep"


def test_a_strategy_is_checked_against_the_pool_with_its_models_of_earlier_steps(home, trainer):
    kept = STUDY.replace("  lr: 1\n", "  lr: 1\n  keep_every: 5\n") + "strategies: [average, soce]\n"
    (home / "study.yaml").write_text(kept)  # 6 ingredients
    plan_study(home / "study.yaml")
    (home / "study.yaml").write_text(kept + "pools:\n  short: {steps: 5}\n")
    with pytest.raises(FinetuneError, match="soce needs at least 5 ingredients"):
        plan_study(home / "study.yaml")


def test_a_study_scores_by_its_engine_and_its_shots(home):
    (home / "study.yaml").write_text(STUDY + "engine: vllm\nengine_args: {max_model_len: 512}\nshots: 2\n")
    config = SeedRun(read_study(home / "study.yaml"), home, 0)._eval_config()
    assert (config.engine, config.engine_args, config.shots) == ("vllm", {"max_model_len": 512}, 2)


def test_seeds_may_lie_behind_a_link_to_another_disk(home, trainer):
    (home / "disk/deep/down").mkdir(parents=True)
    (home / "work").symlink_to(home / "disk/deep/down")
    run_study(home / "study.yaml")
    assert (home / "disk/deep/down/seed-0/ckpts/number").is_dir()
    assert sorted(path.name for path in (home / "disk").iterdir()) == ["deep"]


def test_each_seed_has_its_own_folder_and_seed(done):
    home, _, table = done
    for seed in (0, 1):
        config = read_config(home / "work" / f"seed-{seed}" / "finetune.yaml")
        assert config.seed == seed
        [head] = {tuple(load_file(f)["head"]) for f in (home / f"work/seed-{seed}/base").glob("*.safetensors")}
        assert head == pytest.approx([seed / 100] * 4)
    assert table.seeds[0]["start"].reported < table.seeds[1]["start"].reported


def test_a_second_run_trains_and_judges_nothing_and_tells_the_same(home, trainer):
    first = run_study(home / "study.yaml").as_json()
    trained, judged = list(trainer.trained), calls(home / "judge" / "judge.py")
    assert run_study(home / "study.yaml").as_json() == first
    assert trainer.trained == trained
    assert calls(home / "judge" / "judge.py") == judged


def test_a_study_that_was_stopped_goes_on_where_it_stopped(home, trainer, monkeypatch):
    def stopped(bench):
        raise KeyboardInterrupt

    monkeypatch.setitem(finetune.study.comparisons.COMPARISONS, "all_data", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_study(home / "study.yaml")
    monkeypatch.undo()
    monkeypatch.chdir(home)
    monkeypatch.setattr(finetune.launching.launch, "finetune", trainer)
    judged = calls(home / "judge" / "judge.py")
    run_study(home / "study.yaml")
    again = calls(home / "judge" / "judge.py")[len(judged) :]
    assert not set(again) & set(judged)
    assert len(trainer.trained) == len(set(trainer.trained))


def test_the_table_is_kept_beside_the_seeds(done):
    home, _, table = done
    assert json.loads((home / "work" / "study.json").read_text()) == table.as_json()
    text = (home / "work" / "study.md").read_text()
    assert text.splitlines()[0] == "|  | seed 0 | seed 1 | mean | sd | chosen |"
    assert f"| greedy | {table.seeds[0]['greedy'].reported:.2f} |" in text


def test_mean_and_spread_are_those_of_the_seeds():
    values = [61.0, 64.0, 62.5]
    table = StudyTable(False)
    for seed, value in enumerate(values):
        table = table.with_seed(seed, {"greedy": StudyResult(value, value)})
    [row] = table.table().rows
    assert row.values == (*values, fmean(values), stdev(values))


def test_prepare_runs_once_for_each_seed_and_again_when_it_changed(home, trainer):
    line = "prepare: sh -c 'echo {seed} >> {place}/made.txt'\n"
    (home / "study.yaml").write_text(STUDY + line)
    run_study(home / "study.yaml")
    run_study(home / "study.yaml")
    assert (home / "work/seed-0/made.txt").read_text() == "0\n"
    (home / "study.yaml").write_text(STUDY + line.replace("echo", "echo again"))
    run_study(home / "study.yaml")
    assert (home / "work/seed-0/made.txt").read_text() == "0\nagain 0\n"


def test_the_harness_sees_the_seed_s_environment_and_nobody_after_it(home, trainer, monkeypatch):
    monkeypatch.setenv("SHADE", "before")
    code = "import os\ndef tell(checkpoint):\n    return len(os.environ['SHADE']) + len(os.environ['LIGHT'])\n"
    (home / "tell.py").write_text(code)
    text = STUDY.replace("judge/judge.py:score", "tell.py:tell") + 'environment: {SHADE: "{place}", LIGHT: "{seed}"}\n'
    (home / "study.yaml").write_text(text)
    seed = run_study(home / "study.yaml").seeds[0]
    assert seed["start"].reported == len(str(home / "work" / "seed-0")) + len("0")
    assert os.environ["SHADE"] == "before"
    assert "LIGHT" not in os.environ


def test_a_dry_run_leaves_to_the_run_what_commands_may_bring(home, trainer):
    text = STUDY.replace("judge/judge.py", "judge/later.py") + 'prepare: ["cp judge/judge.py judge/later.py"]\n'
    (home / "study.yaml").write_text(text)
    assert plan_study(home / "study.yaml")["seeds"] == [0]


def test_a_command_that_fails_is_told_with_what_it_said(home, trainer):
    (home / "study.yaml").write_text(STUDY + "prepare: sh -c 'printf \"\\\\377 \"; echo no room; exit 3'\n")
    with pytest.raises(FinetuneError, match=r"(?s)exit code 3.*\ufffd no room"):
        run_study(home / "study.yaml")
    assert not trainer.trained


def test_a_command_that_is_not_there_is_told_by_name(home, trainer):
    (home / "study.yaml").write_text(STUDY + "prepare: fetch-it --all\n")
    with pytest.raises(FinetuneError, match=r"(?s)^fetch-it --all: failed .*fetch-it: No such file or directory"):
        run_study(home / "study.yaml")


def test_what_commands_say_is_in_a_log_while_they_run_and_nothing_is_asked_of_the_terminal(home, trainer):
    lines = ["echo one {seed}", "sh -c 'read line || echo two; test -s {place}/prepare.log'"]
    (home / "study.yaml").write_text(STUDY + yaml.safe_dump({"prepare": lines}))
    said = []
    run_study(home / "study.yaml", voice=StudyProgress(say=said.append))
    log = Path("work/seed-0/prepare.log")
    assert (home / log).read_text() == "one 0\ntwo\n"
    assert said[1] == f"$ echo one 0 (log: {home / log})"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_stopped_ends_its_command_with_all_that_this_started(home, number):
    line = "sh -c 'sleep 300 & echo $! > {place}/pid; wait'"
    (home / "study.yaml").write_text(STUDY + yaml.safe_dump({"prepare": line}))
    words = [sys.executable, "-m", "soup", "study", str(home / "study.yaml")]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    pid = home / "work/seed-0/pid"
    wait_until(lambda: pid.is_file() and pid.read_text().endswith("\n"))
    process.send_signal(number)
    _, said = process.communicate()
    assert "Traceback" not in said.decode()
    assert process.returncode in (-number, 128 + number)
    wait_until(lambda: gone(int(pid.read_text())))
    assert not (home / "work/seed-0/prepared.json").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("eval:", "evals:", "evals: unknown key. Did you mean 'eval'?"),
        ("compare: [learning_rates,", "compare: [learning_rate,", "Input should be 'learning_rates'"),
        ("learning_rates: [0.5, 2]\n", "", "learning_rates: expected some"),
        ("seeds: [0]", "seeds: [0]\nworkers: yes", "workers: expected a number"),
        ("seeds: [0]", "seeds: [0, 0]", "seeds: one is named twice"),
        ("  lr: 1\n", "  lr: 1\n  seed: 4\n", "finetune.seed: is the study's to set"),
        ("compare:", "pools: {half: {start: tiny}}\ncompare:", "pools.half.start: is the same for all pools"),
        ("compare:", "pools: {half: {stepz: 4}}\ncompare:", "stepz: unknown key. Did you mean 'steps'?"),
        ("  lr: 1\n", "  lr: 1\n  stepz: 4\n", "stepz: unknown key. Did you mean 'steps'?"),
        ("  added: {number: data/number, word: data/word, noise: data/noise}\n", "", "finetune.added: expected"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_made(home, trainer, old, new, said):
    assert old in STUDY
    (home / "study.yaml").write_text(STUDY.replace(old, new))
    with pytest.raises(FinetuneError) as error:
        run_study(home / "study.yaml")
    assert said in str(error.value)
    assert not (home / "work").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("eval: python:judge/judge.py:score", "eval: python:judge/none.py:score", "none.py"),
        ("eval: python:judge/judge.py:score", "eval: mmbensh", "mmbensh"),
    ],
)
def test_what_judges_is_looked_for_before_anything_is_trained(home, trainer, old, new, said):
    assert old in STUDY
    (home / "study.yaml").write_text(STUDY.replace(old, new))
    for ask in (run_study, plan_study):
        with pytest.raises(EvaluatorError, match=said):
            ask(home / "study.yaml")
    assert trainer.trained == []


def test_strategies_that_there_are_not_are_told_before_anything_is_made_and_in_a_dry_run_too(home, trainer):
    text = re.sub(r"strategies: \[.*\]\n", "", STUDY) + "strategies: [average, gredy, maxmum]\n"
    (home / "study.yaml").write_text(text)
    for ask in (run_study, plan_study):
        with pytest.raises(FinetuneError, match=r"2 wrong\.\n.*gredy.*\n.*maxmum"):
            ask(home / "study.yaml")
    assert not (home / "work").exists()


def test_a_strategy_that_refuses_such_a_pool_is_told_before_anything_is_made(home, trainer):
    (home / "study.yaml").write_text(STUDY + "strategies: [average, soce]\n")
    with pytest.raises(FinetuneError, match="soce needs at least 5 ingredients"):
        run_study(home / "study.yaml")
    assert not trainer.trained


def test_the_pool_s_configuration_may_be_a_file_of_its_own(home):
    keys = yaml.safe_load(STUDY)
    (home / "pool.yaml").write_text(yaml.safe_dump(keys["finetune"] | {"root": ".", "out": "elsewhere"}))
    (home / "study.yaml").write_text(yaml.safe_dump(keys | {"finetune": "pool.yaml"}))
    study = read_study(home / "study.yaml")
    assert study.pool(home, 0)["out"] == "work/seed-0/ckpts"


def test_dry_run_counts_what_would_be_trained_and_judged_and_writes_nothing(home, trainer):
    plan = plan_study(home / "study.yaml")
    assert plan["trainings_per_seed"] == {
        "start": 1,
        "pool": 3,
        "the base set alone": 1,
        "learning_rates": 2,
        "individual_select (at most)": 2,
        "all_data": 2,
    }
    words = ["study", str(home / "study.yaml"), "--dry-run"]
    assert json.loads(CliRunner().invoke(cli, [*words, "--json"]).output) == plan
    table = CliRunner().invoke(cli, words).output
    assert "all_data 2" in table
    assert "{" not in table
    assert not (home / "work").exists()


def test_the_command_line_prints_the_table(home, trainer):
    done = CliRunner().invoke(cli, ["study", str(home / "study.yaml")])
    assert done.exit_code == 0
    assert "all data, one ingredient's steps" in done.output
    document = json.loads(CliRunner().invoke(cli, ["study", str(home / "study.yaml"), "--json"]).stdout)
    assert set(document["seeds"]) == {"0"}


def test_a_judge_elsewhere_is_named_on_the_command_line_and_needs_one_in_the_file(home, trainer):
    for ask in (run_study, plan_study):
        with pytest.raises(FinetuneError, match="names no judge"):
            ask(home / "study.yaml", judge_url="http://127.0.0.1:1/v1")


def test_stages_and_results_so_far_are_told_as_they_come(home, trainer):
    stages, tables = [], []
    table = run_study(home / "study.yaml", voice=StudyProgress(stage=stages.append, table=tables.append))
    assert stages[:2] == ["seed 0 (1 of 1): training finetune", "seed 0 (1 of 1): training alone"]
    assert "seed 0 (1 of 1): cooking greedy" in stages
    assert [len(each.ways) for each in tables] == sorted({len(each.ways) for each in tables}), "more each time"
    assert tables[-1] == table
    section = StudySection(stages[-1], table)
    shown = [line.plain for line in section.lines(80, 24)]
    assert shown[:2] == [stages[-1], f"overall{' ' * (max(map(len, table.ways)) - 7)}  seed 0"]
    assert [line.rpartition("  ")[0].strip() for line in shown[2:]] == table.ways
    last = [line.plain for line in section.lines(30, 5)]
    assert last[-1] == f"... {len(table.ways) - 2} more results"
    assert last[-2].split()[-1] == f"{table.overall(table.ways[-1])[0]:.2f}"
    assert all(len(line) <= 30 for line in last)


def test_what_is_done_is_told(home, trainer):
    messages = []
    run_study(home / "study.yaml", voice=StudyProgress(say=messages.append))
    assert messages[0].startswith("seed 0")
    assert "greedy: word + number" in messages


REAL = """
root: work
prepare: {python} {place_maker} {{place}}/toy
environment: {{LMUData: "{{place}}/toy/LMUData"}}
finetune:
  start: {{data: "{{place}}/toy/data/base", out: base, lr: 2.0e-3, steps: 12}}
  data: "{{place}}/toy/data/base"
  added: {{number: "{{place}}/toy/data/number", bars: "{{place}}/toy/data/bars"}}
  freeze: [general_vit, ocr_vit]
  lr: 1.0e-3
  steps: 4
  global_batch_size: 8
  cache_features: true
  log_to: []
  jobs_at_once: 2
  max_shard_size: 1MB
eval: mmbench,ocrbench
split: 0.5
strategies: [average, greedy]
compare: [learning_rates, individual_select, all_data]
learning_rates: [1.0e-3, 2.0e-3]
"""
MAKER = """
import sys
from pathlib import Path
from finetune.toy.write import QUESTIONS, Sizes, make_toy
make_toy(Path(sys.argv[1]), 0, Sizes(base=8, added=8, questions=dict.fromkeys(QUESTIONS, 12)))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_real_study_trains_judges_cooks_and_compares_and_does_nothing_the_second_time(tmp_path):
    (tmp_path / "maker.py").write_text(MAKER)
    text = REAL.format(python=sys.executable, place_maker=tmp_path / "maker.py")
    (tmp_path / "study.yaml").write_text(text)
    command = [sys.executable, "-m", "soup", "study", str(tmp_path / "study.yaml"), "--json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    first = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)["seeds"]["0"]
    assert {"start", "average", "greedy", "individual select", "all data, one ingredient's steps"} <= set(document)
    assert all(
        0 <= way["overall"] <= 100 and set(way["benchmarks"]) == {"mmbench", "ocrbench"} for way in document.values()
    )
    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert "evaluating" not in again.stderr


@pytest.mark.parametrize(("name", "start_steps"), [("run.yaml", 1600), ("converged.yaml", 4800)])
def test_the_studies_that_ship_are_whole_and_count_three_seeds_of_seven_ingredients(name, start_steps):
    path = Path(finetune.__file__).parents[1] / "examples/toy" / name
    study, counted = read_study(path), plan_study(path)
    assert study.finetune["start"]["steps"] == start_steps
    assert study.seeds == [0, 1, 2]
    assert counted["trainings_per_seed"]["pool"] == len(study.finetune["added"]) == 7


def test_the_study_of_adapters_that_ships_trains_both_pools_from_one_converged_start():
    path = Path(finetune.__file__).parents[1] / "examples/toy/pools.yaml"
    study, counted = read_study(path), plan_study(path)
    assert study.finetune["start"]["steps"] == 4800
    assert counted["trainings_per_seed"] == {"start": 1, "pool": 5, "the base set alone": 1, "adapters": 5}
    assert {"scale", "prune", "forward-backward"} <= {*study.strategies}
    assert study.pools["adapters"]["lora"]["keep_adapter"]
