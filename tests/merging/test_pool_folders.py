"""Folders as trainers, file systems and shells leave them: what becomes a pool, and what is told of the rest."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from soup.cli.app import cli
from soup.errors import CheckpointError, PoolError
from soup.merging.pool import Pool
from tests.helpers.toy_pools import make_checkpoint, make_pool


def check(*pool):
    return CliRunner().invoke(cli, ["check", "--pool", *map(str, pool)])


def taken_by_the_line(text):
    """The names of the pool that the option in a message makes, typed as it stands there."""
    line = text.split("--pool ")[-1].split(" takes ")[0] if "--pool " in text else text.split("`pool` ")[-1]
    return Pool(shlex.split(line.split(" takes ")[0])).names


def refusal(pool):
    with pytest.raises(PoolError) as caught:
        Pool(pool)
    return str(caught.value)


LAYOUTS = {
    "one level deeper": ["seed1/checkpoint-500", "seed2/checkpoint-500"],
    "LLaMA-Factory": ["qwen/lora/sft/checkpoint-9", "qwen/lora/sft/checkpoint-10"],
    "ms-swift": ["v0-20261101-1200/checkpoint-7", "v1-20261102-0900/checkpoint-7"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoints_that_lie_deeper_are_named_with_the_line_that_takes_them(tmp_path, layout):
    for seed, name in enumerate(LAYOUTS[layout]):
        make_checkpoint(tmp_path / "out" / name, seed)
    (tmp_path / "out/trainer_log.jsonl").write_text("{}")
    message = refusal(tmp_path / "out")
    assert "no ingredient" in message
    for name in LAYOUTS[layout]:
        assert str(tmp_path / "out" / name) in message
    assert len(taken_by_the_line(message)) == 2


def test_of_several_runs_the_line_takes_the_last_checkpoint_of_each(tmp_path):
    for run in ("a", "b"):
        for step in (90, 100):
            make_checkpoint(tmp_path / "runs" / run / f"checkpoint-{step}", step)
    message = refusal(tmp_path / "runs")
    assert taken_by_the_line(message) == ("a/checkpoint-100", "b/checkpoint-100")
    assert message.endswith("takes the last of each run")


def test_checkpoints_below_the_only_ingredient_are_told(tmp_path):
    run = make_checkpoint(tmp_path / "run", 1)
    for step in (100, 200):
        make_checkpoint(run / f"checkpoint-{step}", step)
    report = check(run)
    assert report.exit_code == 0
    assert f"--pool {run}/checkpoint-100 {run}/checkpoint-200 takes them" in report.stderr.replace("\n", " ")


def test_the_base_is_none_of_the_checkpoints_below_that_the_line_takes(tmp_path):
    run = make_checkpoint(tmp_path / "run", 1)
    for seed, name in enumerate(("base", "checkpoint-100", "checkpoint-200")):
        make_checkpoint(run / name, seed + 2)
    (tmp_path / "pool/group").mkdir(parents=True)
    for name in ("a", "group/b", "group/base"):
        make_checkpoint(tmp_path / "pool" / name, 1)
    with Pool(run, base=run / "base") as pool, Pool(tmp_path / "pool", base=tmp_path / "pool/group/base") as other:
        assert taken_by_the_line(pool.warnings()[0]) == ("checkpoint-100", "checkpoint-200")
        assert taken_by_the_line(other.warnings()[1]) == ("a", "b")


def test_a_run_with_a_config_and_no_weights_of_its_own_is_a_folder_of_checkpoints(tmp_path):
    for step in (100, 200):
        make_checkpoint(tmp_path / "run" / f"checkpoint-{step}", step)
    (tmp_path / "run/config.json").write_text("{}")
    assert Pool(tmp_path / "run").names == ("checkpoint-100", "checkpoint-200")


def test_a_run_among_ingredients_is_skipped_and_the_line_takes_all(tmp_path):
    pool = make_pool(tmp_path / "ckpts")
    make_checkpoint(pool / "e/checkpoint-5", 5)
    with Pool(pool) as opened:
        skipped, deeper = opened.warnings()
    assert skipped == "e: skipped, not a checkpoint"
    assert taken_by_the_line(deeper) == ("a", "b", "c", "d", "checkpoint-5")


def test_a_folder_of_pickles_is_skipped_with_the_reason(tmp_path):
    pool = make_pool(tmp_path / "ckpts")
    (pool / "e").mkdir()
    (pool / "e/consolidated.00.pth").write_bytes(b"\x80\x04")
    with Pool(pool) as opened:
        assert opened.warnings() == ["e: skipped, not a checkpoint in safetensors: consolidated.00.pth is a pickle"]


def test_what_a_shell_makes_of_a_star_and_a_slash_is_a_pool(tmp_path):
    pool = make_pool(tmp_path / "ckpts")
    (pool / "notes.txt").touch()
    (pool / "logs").mkdir()
    report = check(*(f"{entry}/" for entry in sorted(pool.iterdir()) if entry.is_dir()))
    assert "a, b, c, d can be merged" in report.stdout
    assert "logs: skipped, not a checkpoint" in report.stderr


def test_what_a_shell_makes_of_a_star_is_a_pool(tmp_path):
    pool = make_pool(tmp_path / "ckpts")
    (pool / "results.json").write_text("{}")
    (pool / "logs").mkdir()
    report = check(*sorted(pool.iterdir()))
    assert report.exit_code == 0
    assert "a, b, c, d can be merged" in report.stdout
    assert "logs: skipped, not a checkpoint" in report.stderr
    assert "results.json: skipped, not a directory" in report.stderr


def test_hidden_folders_are_no_ingredients_and_links_deeper_down_are_not_followed(tmp_path):
    pool = make_pool(tmp_path / "ckpts")
    for hidden in (".cache", "run/.cache/old"):
        make_checkpoint(pool / hidden, 5)
    (pool / "run/latest").symlink_to(pool / "a")
    (pool / "run/again").symlink_to(pool)
    with Pool(pool) as opened:
        assert opened.names == ("a", "b", "c", "d")
        assert opened.warnings() == ["run: skipped, not a checkpoint"]


def test_a_folder_with_a_config_that_lost_its_weights_makes_no_smaller_pool(tmp_path):
    pool = make_pool(tmp_path / "ckpts")
    (pool / "d/model.safetensors").unlink()
    (pool / "d/config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"d: no \.safetensors file here"):
        Pool(pool)


def test_several_folders_of_checkpoints_are_not_taken_for_the_first_of_them(tmp_path):
    folders = [make_pool(tmp_path / name) for name in ("first", "second")]
    taken = " ".join(str(path) for folder in folders for path in sorted(folder.iterdir()))
    with pytest.raises(CheckpointError, match="2 checkpoints can't be opened") as refused:
        Pool(folders)
    assert str(refused.value).endswith(f"`pool` {taken} takes them"), "they are no steps of two runs"
    assert str(check(*folders).exception).endswith(f"--pool {taken} takes them")


@pytest.mark.parametrize(
    ("typed", "reason"), [("logs", "no .safetensors file here"), ("note.md", "a file, and no dir")]
)
def test_a_path_that_was_typed_and_is_no_checkpoint_is_an_error_and_makes_no_smaller_pool(tmp_path, typed, reason):
    pool = make_pool(tmp_path / "ckpts")
    (pool / "logs").mkdir()
    (pool / "note.md").write_text("")
    report = check(pool / "a", pool / typed)
    assert report.exit_code == 1
    assert "problem: " in report.stdout
    assert f"{pool / typed}: {reason}" in report.stdout.replace("\n", " ")
    with pytest.raises(CheckpointError, match=re.escape(f"{typed}: {reason}")):
        Pool([pool / "a", pool / typed])


def test_runs_that_were_typed_are_named_with_the_line_that_takes_their_checkpoints(tmp_path):
    for run in ("e", "f"):
        make_checkpoint(tmp_path / run / "checkpoint-5", 5)
    for name in ("a", "b"):
        make_checkpoint(tmp_path / name, 1)
    with pytest.raises(CheckpointError) as caught:
        Pool([tmp_path / name for name in ("a", "e", "f")])
    assert "2 checkpoints can't be opened" in str(caught.value)
    taken = [name.removeprefix(f"{tmp_path.name}/") for name in taken_by_the_line(str(caught.value))]
    assert taken == ["a", "e/checkpoint-5", "f/checkpoint-5"]


@pytest.fixture
def private(tmp_path, monkeypatch):
    """A pool with a `lost+found` that can't be listed, whoever runs the test."""
    pool = make_pool(tmp_path / "ckpts")
    (pool / "lost+found").mkdir()
    real = Path.iterdir

    def iterdir(path):
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    return pool


def test_a_folder_that_can_not_be_read_is_skipped_and_told(private):
    report = check(private)
    assert report.exit_code == 0
    assert "a, b, c, d can be merged" in report.stdout
    assert "lost+found: skipped, can't be read (Permission denied)" in report.stderr
    report = check(private / "a", private / "lost+found")
    assert report.exit_code == 1
    assert "lost+found: can't be read (Permission denied)" in report.stdout
    assert refusal(private / "lost+found").endswith("lost+found: can't be read (Permission denied).")
