"""What is written, byte by byte, and what is left when writing fails."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import soup
from soup.checkpoints import early_sync
from soup.checkpoints.dtypes import DTYPES, TensorSpec
from soup.checkpoints.file_plan import plan_files
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.weight_files import INDEX, WEIGHTS
from soup.checkpoints.writer import CheckpointWriter, view_bytes
from soup.errors import OutputError, PoolError
from soup.merging.options import MergeOptions, WriteOptions
from soup.merging.recipe import Recipe
from soup.testing import tiny_pool
from tests.helpers.merge_oracle import read_back, recipe_of, same_bits, write_pool
from tests.helpers.random_tensors import NAMES, tensors

quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

CODES = {dtype.torch: dtype for dtype in DTYPES.values() if dtype.kind != "packed"}


def specs_of(state):
    return [TensorSpec(name, CODES[value.dtype], tuple(value.shape)) for name, value in state.items()]


def write(out, state, metadata, max_shard_bytes=None, step=None):
    with CheckpointWriter(out, plan_files(specs_of(state), None, max_shard_bytes), metadata) as writer:
        for name, value in reversed(state.items()):  # any order will do
            flat = value.reshape(-1).contiguous()
            for start in range(0, len(flat), step or max(len(flat), 1)):
                writer.write(name, start, view_bytes(flat[start : start + (step or len(flat))]))
        writer.commit(metadata)


def snapshot(folder):
    """Every path below a folder, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def pool(tmp_path):
    return tiny_pool(tmp_path / "pool", 3)


# --- bytes ------------------------------------------------------------------------------------------------------------


@quick
@given(
    state=st.dictionaries(NAMES, tensors(tuple(CODES.values())), min_size=1, max_size=7),
    metadata=st.sampled_from([{"format": "pt"}, {"format": "pt", "soup_recipe": "sha256:0"}]),
    step=st.none() | st.integers(1, 9),
)
def test_a_file_is_that_of_safetensors_byte_for_byte(state, metadata, step, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    write(folder / "out", state, metadata, step=step)
    save_file(state, folder / "expected", metadata)
    made, expected = (folder / "out" / WEIGHTS).read_bytes(), (folder / "expected").read_bytes()
    assert parts(made) == parts(expected)
    if len(metadata) == 1:  # safetensors writes several metadata in any order
        assert made == expected


def parts(data):
    """The header's length, its metadata, the header after them, and the tensors' bytes."""
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].decode()
    tensors_after = text.split("}", 1)[1].rstrip()
    return length, json.loads(text)["__metadata__"], tensors_after, data[8 + length :]


def test_a_soup_is_a_file_of_safetensors_byte_for_byte(tmp_path, pool):
    sealed = soup.merge(recipe_of(pool), tmp_path / "out")
    state, path = load_file(tmp_path / "out" / WEIGHTS), tmp_path / "expected"
    save_file(state, path, {"format": "pt", "soup_recipe": sealed.digest})
    assert parts((tmp_path / "out" / WEIGHTS).read_bytes()) == parts(path.read_bytes())


def test_the_same_recipe_gives_the_same_directory_twice(tmp_path, pool):
    for name in ("one", "two"):
        soup.merge(recipe_of(pool), tmp_path / name, merge=MergeOptions(threads=1 if name == "one" else 4))
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    for name in snapshot(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


# --- layout -----------------------------------------------------------------------------------------------------------


def test_a_sharded_layout_is_kept_with_its_index(tmp_path):
    folder = tiny_pool(tmp_path / "pool", 2, shards=4)
    soup.merge(recipe_of(folder), tmp_path / "out")
    first = json.loads((folder / "model-0" / INDEX).read_text())
    assert json.loads((tmp_path / "out" / INDEX).read_text()) == first


def test_shards_in_folders_stay_there(tmp_path):
    state = {"a": torch.zeros(4), "b": torch.ones(4)}
    folder = tmp_path / "pool" / "a"
    write(folder, state, {"format": "pt"}, max_shard_bytes=16)
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace("model-", "weights/all/model-"))
    (folder / "weights" / "all").mkdir(parents=True)
    for path in folder.glob("model-*.safetensors"):
        path.rename(folder / "weights" / "all" / path.name)
    soup.merge(recipe_of(folder.parent), tmp_path / "out")
    assert Checkpoint(tmp_path / "out").layout == Checkpoint(folder).layout
    assert all(same_bits(value, state[name]) for name, value in read_back(tmp_path / "out").items())


def test_a_single_file_stays_one_without_an_index(tmp_path, pool):
    soup.merge(recipe_of(pool), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        WEIGHTS,
        "recipe.yaml",
        "tokenizer.json",
    ]


def test_a_larger_max_shard_size_joins_shards_into_one_file(tmp_path):
    folder = tiny_pool(tmp_path / "pool", 2, shards=4)
    soup.merge(recipe_of(folder), tmp_path / "out", write=WriteOptions(max_shard_bytes=10**9))
    assert Checkpoint(tmp_path / "out").files == (WEIGHTS,)
    assert not (tmp_path / "out" / INDEX).exists()


@quick
@example(sizes=[40, 40], limit=80)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    limit=st.integers(1, 120),
)
def test_shards_are_filled_in_order_up_to_the_limit(sizes, limit):
    specs = [TensorSpec(f"t{i:02d}", DTYPES["U8"], (size,)) for i, size in enumerate(sizes)]
    files = plan_files(specs, None, limit)
    assert sorted(spec.name for plan in files for spec in plan.tensors) == [spec.name for spec in specs]
    for plan in files:
        assert plan.data_bytes <= limit or len([spec for spec in plan.tensors if spec.bytes]) == 1
    for plan, after in pairwise(files):
        assert plan.data_bytes + after.tensors[0].bytes > limit  # nothing that had room was put off
    names = [plan.name for plan in files]
    count = len(names)
    assert names == (
        [WEIGHTS] if count == 1 else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    )


def test_a_tensor_larger_than_a_shard_gets_a_shard_of_its_own(tmp_path):
    state = {"a": torch.zeros(4), "b": torch.ones(1000), "c": torch.zeros(4)}
    write(tmp_path / "out", state, {"format": "pt"}, max_shard_bytes=100)
    layout = Checkpoint(tmp_path / "out").layout
    assert layout == {
        "a": "model-00001-of-00003.safetensors",
        "b": "model-00002-of-00003.safetensors",
        "c": "model-00003-of-00003.safetensors",
    }
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index == {"metadata": {"total_size": 4032}, "weight_map": layout}
    assert all(same_bits(value, state[name]) for name, value in read_back(tmp_path / "out").items())


# --- destinations -----------------------------------------------------------------------------------------------------


def test_an_empty_directory_is_filled_and_parents_are_made(tmp_path, pool):
    (tmp_path / "empty").mkdir()
    soup.merge(recipe_of(pool), tmp_path / "empty")
    soup.merge(recipe_of(pool), tmp_path / "a/b/c")
    assert read_back(tmp_path / "empty").keys() == read_back(tmp_path / "a/b/c").keys()


def test_a_directory_that_holds_something_is_refused_and_stays_as_it_was(tmp_path, pool):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"exists and is not empty\. Choose another `out`, or remove it"):
        soup.merge(recipe_of(pool), tmp_path / "out")
    with pytest.raises(OutputError, match="`overwrite` replaces soups only"):
        soup.merge(recipe_of(pool), tmp_path / "out", write=WriteOptions(overwrite=True))
    assert snapshot(tmp_path / "out") == ["notes.txt"]


def test_a_file_or_a_link_as_destination_is_refused(tmp_path, pool):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(OutputError, match="exists and is no directory"):
            soup.merge(recipe_of(pool), tmp_path / name, write=WriteOptions(overwrite=True))


def test_overwrite_replaces_an_earlier_soup_whole(tmp_path, pool):
    soup.merge(recipe_of(pool), tmp_path / "out", write=WriteOptions(max_shard_bytes=1000))
    (tmp_path / "out/left.txt").write_text("over")
    with pytest.raises(OutputError, match="not empty"):
        soup.merge(recipe_of(pool, [1, 2, 3]), tmp_path / "out")
    soup.merge(recipe_of(pool, [1, 2, 3]), tmp_path / "out", write=WriteOptions(overwrite=True))
    soup.merge(recipe_of(pool, [1, 2, 3]), tmp_path / "fresh")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out", "pool"]


def stamp(path):
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns  # not when it was read


def test_making_the_same_soup_again_has_nothing_to_do(tmp_path, pool):
    first = soup.merge(recipe_of(pool), tmp_path / "out")
    before = stamp(tmp_path / "out" / WEIGHTS)
    assert soup.merge(recipe_of(pool), tmp_path / "out") == first
    assert stamp(tmp_path / "out" / WEIGHTS) == before


def test_an_ingredient_is_never_the_destination(tmp_path, pool):
    (pool / "model-0/recipe.yaml").write_text("")
    for out in (pool / "model-0", pool / "model-0/out", pool):
        with pytest.raises(OutputError, match="Choose another `out`"):
            soup.merge(recipe_of(pool), out, write=WriteOptions(overwrite=True))
    assert read_back(pool / "model-0").keys()


# --- failures leave nothing -------------------------------------------------------------------------------------------


def test_leaving_without_a_commit_removes_every_trace(tmp_path):
    plan = plan_files([TensorSpec("a", DTYPES["F32"], (4,))], None)
    with CheckpointWriter(tmp_path / "out", plan, {"format": "pt"}) as writer:
        writer.write("a", 0, view_bytes(torch.zeros(4)))
        writer.add_file("config.json", b"{}")
        held = snapshot(tmp_path)
    assert len(held) == 4
    assert all(name.startswith(".") for name in held)  # nothing under the final name
    assert snapshot(tmp_path) == []


def test_a_merge_that_fails_leaves_no_output(tmp_path):
    folder = write_pool(tmp_path / "pool", [{"a": torch.ones(9), "b": torch.tensor([torch.nan])}] * 2)
    before = snapshot(tmp_path)
    with pytest.raises(PoolError, match="NaN"):
        soup.merge(recipe_of(folder), tmp_path / "out")
    assert snapshot(tmp_path) == before


def test_a_failed_overwrite_leaves_the_earlier_soup(tmp_path, pool):
    soup.merge(recipe_of(pool), tmp_path / "out")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in snapshot(tmp_path / "out")}
    bad = write_pool(tmp_path / "bad", [{"b": torch.tensor([torch.nan])}] * 2)
    with pytest.raises(PoolError):
        soup.merge(recipe_of(bad), tmp_path / "out", write=WriteOptions(overwrite=True))
    assert {name: (tmp_path / "out" / name).read_bytes() for name in snapshot(tmp_path / "out")} == before


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(tmp_path, pool, monkeypatch):
    recipe, before = recipe_of(pool), snapshot(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 2000, 2000))
    with pytest.raises(OutputError, match=r"small: 3\.\d\d kB needed, 2\.00 kB free\. .* another `out`"):
        soup.merge(recipe, tmp_path / "out", progress=soup.Progress(on_bytes=lambda count: pytest.fail("read")))
    assert snapshot(tmp_path) == before


def test_a_candidate_s_disk_that_is_too_small_is_the_run_directory_s(tmp_path, pool, monkeypatch):
    (tmp_path / "judge.py").write_text("def score(checkpoint):\n    return 50.0\n")
    run = tmp_path / "run"
    usage = {True: shutil._ntuple_diskusage(10**9, 10**9 - 2000, 2000), False: shutil.disk_usage(tmp_path)}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage[str(path).startswith(str(run))])
    judge, out = f"python:{tmp_path / 'judge.py'}:score", tmp_path / "out"
    with pytest.raises(OutputError, match=r"the disk is too small: .* choose another `run_dir`"):
        soup.cook("average", pool, eval=judge, out=out, run_dir=run)


def test_a_disk_that_fills_up_while_blocks_are_written_is_told_and_nothing_stays(tmp_path, pool, monkeypatch):
    recipe, before, calls = recipe_of(pool), snapshot(tmp_path), []

    def full(fd, view, offset):
        calls.append(offset)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, view, offset)

    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match=r"writing \S+ failed \(No space left on device\)"):
        soup.merge(recipe, tmp_path / "out")
    assert snapshot(tmp_path) == before


def test_a_file_that_is_too_large_for_its_file_system_is_told_with_the_option_that_makes_smaller_ones(
    tmp_path, pool, monkeypatch
):
    def limited(fd, offset, size):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "posix_fallocate", limited)
    with pytest.raises(OutputError, match=r"\(File too large\)\. No file .* `max_shard_bytes` makes smaller ones"):
        soup.merge(recipe_of(pool), tmp_path / "out")


@pytest.fixture
def megabyte(tmp_path):
    """A file system of 1 MB; root alone can have one."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root on Linux")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_real_small_disk_is_told_before_the_first_byte(tmp_path, megabyte):
    folder = tiny_pool(tmp_path / "pool", 2, tensors={"w": (600_000,)})
    with pytest.raises(OutputError, match=r"the disk is too small: 1\.20 MB needed, 1\.05 MB free"):
        soup.merge(recipe_of(folder), megabyte / "out")
    assert snapshot(megabyte) == []


def test_a_real_disk_that_the_side_files_fill_is_told_and_nothing_stays(tmp_path, megabyte):
    folder = tiny_pool(tmp_path / "pool", 2, tensors={"w": (300_000,)})
    for model in folder.iterdir():
        (model / "merges.txt").write_text("x" * 700_000)
    with pytest.raises(OutputError, match="No space left on device"):
        soup.merge(recipe_of(folder), megabyte / "out")
    assert snapshot(megabyte) == []


def test_a_place_that_can_t_be_written_is_told(tmp_path, pool):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written"):
        soup.merge(recipe_of(pool), tmp_path / "file/out")


# --- several processes ------------------------------------------------------------------------------------------------


def test_of_two_writers_on_one_destination_one_is_told(tmp_path, pool):
    state = {"a": torch.zeros(4)}
    recipe = recipe_of(pool)
    with CheckpointWriter(tmp_path / "out", plan_files(specs_of(state), None), {"format": "pt"}) as writer:
        with pytest.raises(OutputError, match="another run is writing it just now"):
            soup.merge(recipe, tmp_path / "out")
        writer.write("a", 0, view_bytes(state["a"]))
        writer.commit({"format": "pt"})
    assert same_bits(read_back(tmp_path / "out")["a"], state["a"])


def test_a_destination_that_came_into_being_meanwhile_is_not_replaced(tmp_path, pool):
    def meddle(count):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out/mine.txt").write_text("mine")

    with pytest.raises(OutputError, match="exists and is not empty"):
        soup.merge(recipe_of(pool), tmp_path / "out", progress=soup.Progress(on_bytes=meddle))
    assert snapshot(tmp_path / "out") == ["mine.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "pool"]


KILLED = """
import os, signal, sys
from pathlib import Path
import soup
from soup.merging.options import WriteOptions

recipe, out, moment = sys.argv[1:]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
renames = 0
real = Path.rename
def rename(self, target):
    global renames
    renames += 1
    if moment == f"before rename {renames}":
        die()
    real(self, target)
    if moment == f"after rename {renames}":
        die()
Path.rename = rename
progress = soup.Progress(on_bytes=die) if moment == "while merging" else soup.Progress()
soup.merge(recipe, out, write=WriteOptions(overwrite=True), progress=progress)
"""


@pytest.mark.parametrize(
    "moment", ["while merging", "before rename 1", "after rename 1", "before rename 2", "after rename 2"]
)
def test_a_kill_leaves_no_half_soup_and_running_again_completes_it(tmp_path, pool, moment):
    """An overwrite renames twice: the earlier soup away, the new one into its place."""
    recipe = recipe_of(pool)
    soup.merge(recipe_of(pool, [1, 2, 3]), tmp_path / "out")
    soup.merge(recipe, tmp_path / "expected")
    (tmp_path / "recipe.yaml").write_text(recipe.text(tmp_path))
    command = [sys.executable, "-c", KILLED, tmp_path / "recipe.yaml", tmp_path / "out", moment]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    if (tmp_path / "out").exists():
        assert Recipe.read(tmp_path / "out/recipe.yaml").ingredients[0].weight in (1.0, 1 / 3)
        assert Checkpoint(tmp_path / "out").tensors == Checkpoint(tmp_path / "expected").tensors
    soup.merge(recipe, tmp_path / "out", write=WriteOptions(overwrite=True))
    left = {name for name in snapshot(tmp_path) if name.startswith(".")}
    assert not left
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "expected")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (tmp_path / "expected" / WEIGHTS).read_bytes()


def write_blocks(out, durable=True):
    spec = TensorSpec("w", DTYPES["U8"], (900,))
    with CheckpointWriter(out, plan_files([spec], None), {}, durable=durable) as writer:
        for start in range(0, 900, 100):
            writer.write("w", start, memoryview(bytearray([start % 255]) * 100))
        writer.commit({})


@pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="this system has none")
@pytest.mark.parametrize("durable", [True, False])
def test_what_is_to_last_is_synced_while_more_is_written(tmp_path, monkeypatch, durable):
    synced = []
    monkeypatch.setattr(early_sync, "STEP_BYTES", 300)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    write_blocks(tmp_path / "out", durable)
    assert 1 <= len(synced) <= 3 if durable else not synced


@pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="this system has none")
def test_a_disk_that_fails_meanwhile_is_an_error_that_leaves_nothing(tmp_path, monkeypatch):
    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(early_sync, "STEP_BYTES", 800)
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        write_blocks(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == []
