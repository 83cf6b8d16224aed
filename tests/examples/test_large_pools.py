"""The plans of examples/7b and examples/slurm, on sparse files with the headers of the real model."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
import submitit
from click.testing import CliRunner

from finetune.config_file import read_config
from finetune.launching.executors.protocol import Task
from finetune.launching.executors.slurm import SlurmExecutor
from soup.cli.app import cli
from tests.helpers.sparse_checkpoints import sparse_qwen_7b
from tests.helpers.toy_test_sets import mmstar_rows, ocrbench_rows, write_tsv

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
BASE = "Qwen2.5-VL-7B-Instruct"
ADDED = ("charts", "documents", "geometry", "maps", "ocr", "science", "tables")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The host of the examples: the base, eight fine-tunes, data sets and benchmarks, all of them small or sparse."""
    folder = tmp_path_factory.mktemp("host")
    sparse_qwen_7b(folder, [BASE, *(f"tuned/{name}" for name in (*ADDED, "base"))])
    for number, name in enumerate(("base", *ADDED)):
        says = [{"from": "human", "value": f"Hello {number}?"}, {"from": "gpt", "value": "Hi"}]
        path = folder / "data" / name / "rows.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text(64 * (json.dumps({"conversations": says}) + "\n"))
    write_tsv(folder / "LMUData" / "OCRBench.tsv", ocrbench_rows(100))
    write_tsv(folder / "LMUData" / "MMStar.tsv", mmstar_rows(100))
    for name in ("7b", "slurm"):
        (folder / f"{name}.yaml").write_bytes((EXAMPLES / name / "pool.yaml").read_bytes())
    return folder


@pytest.fixture
def plan(folder, monkeypatch):
    """The plan of a command in that folder, on a disk that is large enough; the base's 17 GB of zeros are not read."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LMUData", str(folder / "LMUData"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**13, 0, 10**13))
    monkeypatch.setattr(
        "finetune.launching.digests.digest_checkpoint", lambda checkpoint: namedtuple("D", "content")("x")
    )

    def plan_of(*words):
        done = CliRunner().invoke(cli, [*words, "--dry-run", "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    return plan_of


def greedy_of(text):
    """The words of the last `soup greedy` in a text."""
    command = re.findall(r"soup (greedy (?:\\\n|[^\n])+)", text)[-1].replace("\\\n", " ").replace('"$@"', "")
    return [word.replace("ckpts/", "tuned/") for word in shlex.split(command)]


def test_the_7b_pool_is_eight_jobs_on_eight_gpus_with_the_figures_of_the_page(plan):
    jobs = plan("finetune", "7b.yaml")["jobs"]
    assert [job["name"] for job in jobs] == [*ADDED, "base"]
    assert all("--nproc-per-node 8" in job["command"] for job in jobs)
    page = (EXAMPLES / "7b" / "README.md").read_text(encoding="utf-8")
    (job,) = (job for job in jobs if job["name"] == "charts")
    assert f"{job['parameters']:,} and {job['trained']:,}" in page
    assert f"about {job['memory_bytes'] / 1e9:.2f} GB" in page


@pytest.mark.parametrize("file", ["7b/README.md", "slurm/greedy.sbatch"])
def test_the_search_has_the_plan_of_the_page(plan, file):
    made = plan(*greedy_of((EXAMPLES / file).read_text(encoding="utf-8")))
    page = (EXAMPLES / "7b" / "README.md").read_text(encoding="utf-8")
    assert sorted(made["ingredients"]) == sorted((*ADDED, "base"))
    assert f"{made['read_bytes'] / 1e9:.2f} GB and {made['write_bytes'] / 1e9:.2f} GB" in page
    assert f"at most | {made['evaluations_at_most']}: " in page


def test_the_slurm_pool_is_asked_for_as_the_file_says(plan, folder, monkeypatch, tmp_path):
    made = plan("finetune", "slurm.yaml")
    assert (made["on"], [job["gpus"] for job in made["jobs"]]) == ("slurm", [8, 8, 8, 8])
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tasks = [Task(job["name"], tmp_path / "ckpts.finetune" / job["name"], ("x",), 8) for job in made["jobs"]]
    executor = submitit.SlurmExecutor(folder=tmp_path)
    executor.update_parameters(**SlurmExecutor(read_config(folder / "slurm.yaml"))._parameters(tasks, None))
    text = executor._make_submission_file_text("command", "id")
    for line in ("partition=gpu", "account=my-account", "gpus-per-node=8", "mem=900G", "time=1440", "qos=normal"):
        assert f"#SBATCH --{line}" in text


def test_the_batch_script_hands_its_arguments_on(tmp_path):
    (tmp_path / "soup").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "soup").chmod(0o755)
    script = EXAMPLES / "slurm" / "greedy.sbatch"
    words = ["bash", str(script), "--dry-run"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    handed = [word.replace("ckpts/", "tuned/") for word in done.stdout.split()]
    assert handed == [*greedy_of(script.read_text(encoding="utf-8")), "--dry-run"]
