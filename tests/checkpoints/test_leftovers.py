"""What a killed run left behind is cleared before the next one writes, and nothing but that."""

from __future__ import annotations

import errno
import os

import pytest

import soup
from soup.checkpoints.reader import Checkpoint
from soup.errors import CheckpointError, OutputError
from soup.merging.recipe import CheckpointSource
from soup.testing import tiny_pool
from tests.helpers import flat_arguments as flat
from tests.helpers.merge_oracle import recipe_of
from tests.helpers.toy_pools import tree


def test_whatever_lies_in_the_partial_folder_is_gone_and_what_its_links_point_to_is_not(tmp_path):
    recipe = recipe_of(tiny_pool(tmp_path / "pool", 2))
    partial, elsewhere = tmp_path / ".out.partial", tmp_path / "elsewhere"
    (partial / "code" / "deeper").mkdir(parents=True)
    (partial / "code" / "deeper" / "old.py").write_text("old")
    elsewhere.mkdir()
    (elsewhere / "weights").write_text("precious")
    (partial / "folder").symlink_to(elsewhere)
    (partial / "file").symlink_to(elsewhere / "weights")
    soup.merge(recipe, tmp_path / "out")
    soup.merge(recipe, tmp_path / "again")
    assert tree(tmp_path / "out") == tree(tmp_path / "again")
    assert (elsewhere / "weights").read_text() == "precious"
    assert not partial.exists()


def test_a_soup_that_is_made_already_is_left_and_what_it_replaced_is_cleared(tmp_path):
    """A run was killed between its last rename and the removal of the earlier soup."""
    recipe = recipe_of(tiny_pool(tmp_path / "pool", 2))
    soup.merge(recipe, tmp_path / "out")
    before, inode = tree(tmp_path / "out"), (tmp_path / "out").stat().st_ino
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "recipe.yaml").write_text("of the earlier soup")
    soup.merge(recipe, tmp_path / "out")
    assert (tmp_path / "out").stat().st_ino == inode
    assert tree(tmp_path / "out") == before
    assert not (tmp_path / ".out.old").exists()


@pytest.mark.parametrize("out", ["pool/a", "pool/a/deeper", "pool"])
def test_a_soup_among_its_own_ingredients_is_not_replaced_by_its_soup(tmp_path, out):
    soup.merge(recipe_of(tiny_pool(tmp_path / "first", 2)), tmp_path / "pool" / "a")
    recipe, before = recipe_of(tmp_path / "pool"), tree(tmp_path)
    with pytest.raises(OutputError, match=r"is or contains .*, of which the soup is made"):
        flat.merge(recipe, tmp_path / out, overwrite=True)
    assert tree(tmp_path) == before


def test_a_soup_that_lends_its_tokenizer_is_not_replaced_by_the_soup_that_takes_it(tmp_path):
    soup.merge(recipe_of(tiny_pool(tmp_path / "first", 2)), tmp_path / "lender")
    lender = CheckpointSource(name="lender", path=str(tmp_path / "lender"))
    recipe, before = recipe_of(tiny_pool(tmp_path / "pool", 2), tokenizer=lender), tree(tmp_path)
    with pytest.raises(OutputError, match=r"lender, of which the soup is made"):
        flat.merge(recipe, tmp_path / "lender", overwrite=True)
    assert tree(tmp_path) == before


def test_a_soup_with_a_file_too_many_is_not_taken_for_the_finished_one(tmp_path):
    recipe = recipe_of(tiny_pool(tmp_path / "pool", 2))
    soup.merge(recipe, tmp_path / "out")
    before = tree(tmp_path / "out")
    (tmp_path / "out" / "more.safetensors").write_bytes(b"of another soup")
    with pytest.raises(OutputError, match="pass `overwrite`"):
        soup.merge(recipe, tmp_path / "out")
    flat.merge(recipe, tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == before


def size_of_zeros(path):
    path.write_bytes(b"\0" * path.stat().st_size)


def one_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model-00001-of-00002.safetensors", size_of_zeros, "exists and is not empty"),
        ("model-00002-of-00002.safetensors", one_bit, "holds this soup, but not as it was made"),
        ("tokenizer.json", size_of_zeros, "not as it was made(.|\n)*tokenizer.json"),
        ("config.json", size_of_zeros, "not as it was made(.|\n)*config.json"),
    ],
)
def test_a_soup_of_the_right_sizes_and_other_bytes_is_not_taken_for_the_finished_one(tmp_path, name, damage, message):
    """A power cut can leave zeros under the final name, if nothing was synced."""
    recipe = recipe_of(tiny_pool(tmp_path / "pool", 2, shards=2))
    soup.merge(recipe, tmp_path / "out")
    before = tree(tmp_path / "out")
    damage(tmp_path / "out" / name)
    with pytest.raises(OutputError, match=message):
        soup.merge(recipe, tmp_path / "out")
    flat.merge(recipe, tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == before


def test_zeros_in_the_weights_alone_are_named_by_tensor(tmp_path):
    recipe = recipe_of(tiny_pool(tmp_path / "pool", 2))
    soup.merge(recipe, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:begin] + b"\0" * (len(data) - begin))
    with pytest.raises(OutputError, match="not as it was made") as error:
        soup.merge(recipe, tmp_path / "out")
    assert any(name in str(error.value) for name in Checkpoint(path.parent).tensors)


def test_a_disk_that_is_full_before_the_first_block_leaves_nothing_and_the_place_free(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    recipe = recipe_of(tiny_pool(tmp_path / "pool", 2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full, raising=False)
        with pytest.raises(OutputError, match="No space left on device"):
            soup.merge(recipe, tmp_path / "out")
        assert {path.name for path in tmp_path.iterdir()} == {"pool"}
    soup.merge(recipe, tmp_path / "out")


def test_a_link_to_nowhere_is_no_free_place(tmp_path):
    recipe = recipe_of(tiny_pool(tmp_path / "pool", 2))
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="out: exists and is no directory"):
        soup.merge(recipe, tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"pool", "out"}


@pytest.mark.parametrize("change", ["rewritten", "replaced", "removed"])
def test_weights_that_change_under_the_merge_are_told_and_leave_no_soup(tmp_path, change):
    recipe, before = recipe_of(tiny_pool(tmp_path / "pool", 2)), None
    (weights,) = (tmp_path / "pool" / recipe.names[1]).glob("*.safetensors")

    def on_bytes(count):
        nonlocal before
        if before is None:
            before = weights.read_bytes()
            if change == "rewritten":
                os.utime(weights, ns=(1, 1))  # as a write does that leaves the size
            else:
                weights.unlink()
            if change == "replaced":
                weights.write_bytes(before)

    with pytest.raises(CheckpointError, match="changed while they were in use"):
        flat.merge(recipe, tmp_path / "out", on_bytes=on_bytes, threads=1)
    assert not (tmp_path / "out").exists()
    weights.write_bytes(before)
    soup.merge(recipe, tmp_path / "out")
