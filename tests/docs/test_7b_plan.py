"""docs/clusters.md: the sizes of the 7B pool on 8 GPUs are those that --dry-run gives of it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from finetune.points import PointsForConditionalGeneration
from finetune.points.presets import preset_config
from soup.cli.app import cli
from tests.docs.pages import ROOT, blocks, text_of
from tests.helpers.sparse_checkpoints import write_sparse_shards

PAGE = ROOT / "docs/clusters.md"
FULL, ADAPTERS = (block for block in blocks(PAGE, "yaml") if block.startswith("start:"))


def sparse_checkpoint(folder):
    """POINTS 7B by its headers: 16.5 GB in bfloat16, none of which is on the disk."""
    config = preset_config("7b")
    with torch.device("meta"):
        model = PointsForConditionalGeneration(config)
    config.architectures = ["PointsForConditionalGeneration"]
    config.save_pretrained(folder)
    write_sparse_shards(folder, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("7b")
    sparse_checkpoint(folder / "base")
    (folder / "data").mkdir()
    for name in ("base", "mathv360k", "mapqa", "robut-wtq", "iam", "chart2text", "screenqa", "visual7w"):
        row = {"conversations": [{"from": "human", "value": name}, {"from": "gpt", "value": "Hello."}]}
        (folder / f"data/{name}.jsonl").write_text(f"{json.dumps(row)}\n" * 32)
    return folder


def run(*argv):
    done = CliRunner().invoke(cli, argv)
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout)


@pytest.mark.parametrize("pool", [FULL, ADAPTERS], ids=["whole models", "adapters"])
def test_what_each_job_takes_is_what_the_page_says(here, monkeypatch, pool):
    monkeypatch.chdir(here)
    no_digest = SimpleNamespace(content="not read")  # 16.5 GB of zeros take their time
    monkeypatch.setattr("finetune.launching.digests.digest_checkpoint", lambda checkpoint: no_digest)
    (here / "pool.yaml").write_text(pool)
    plan = run("finetune", "pool.yaml", "--executor", "slurm", "--dry-run", "--json")
    assert len(plan["jobs"]) == 8
    job = plan["jobs"][0]
    gigabytes = job["memory_bytes"] / 1e9
    row = f"| {job['gpus']} | {job['parameters'] / 1e9:.2f} | {job['trained'] / 1e9:.2f} | {gigabytes:.0f} GB |"
    assert row in text_of(PAGE), row


def test_what_the_soup_takes_is_what_the_page_says(here, monkeypatch):
    monkeypatch.chdir(here)
    usage = SimpleNamespace(total=10**13, used=0, free=10**13)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)  # the soup would have 16.5 GB
    (here / "ckpts").mkdir()
    for name in "abcdefgh":
        (here / "ckpts" / name).symlink_to(here / "base")
    (here / "judge.py").write_text("def score(checkpoint):\n    return 50.0\n")
    plan = run("greedy", "--pool", "ckpts", "--eval", "python:judge.py:score", "-o", "out", "--dry-run", "--json")
    assert plan["evaluations_at_most"] == 15
    page = text_of(PAGE)
    assert f"reads | {plan['read_bytes'] / 1e9:.1f} GB |" in page
    assert f"writes | {plan['write_bytes'] / 1e9:.1f} GB |" in page
    assert f"memory | {plan['ram_bytes'] / 1e6:.0f} MB |" in page


def test_the_settings_of_slurm_are_those_of_a_pool_file(here, monkeypatch):
    monkeypatch.chdir(here)
    (slurm,) = (block for block in blocks(PAGE, "yaml") if block.startswith("executor:"))
    monkeypatch.setattr("finetune.launching.digests.digest_checkpoint", lambda checkpoint: SimpleNamespace(content=""))
    (here / "pool.yaml").write_text(ADAPTERS + slurm)
    assert run("finetune", "pool.yaml", "--dry-run", "--json")["on"] == "slurm"
