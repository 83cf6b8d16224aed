"""The memory that a dry run promises, held against what a merge then takes."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import soup
from soup.errors import RecipeError
from soup.merging.block_loop import Options, for_each_block, thread_bytes
from soup.merging.methods.linear import Linear
from soup.merging.plan import plan_merge
from soup.merging.pool import Pool
from soup.support.threads import default_threads
from soup.testing import tiny_checkpoint
from tests.helpers import flat_arguments as flat
from tests.helpers.merge_oracle import recipe_of

PEAK = """
import re
import sys
from pathlib import Path

import torch


def status(line):
    return int(re.search(rf"{line}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


imported = status("VmRSS")

import soup
from soup.merging.recipe import Recipe
from soup.merging.pool import Pool

soup.cook("average", pool="ckpts", out="out")
print(imported, status("VmHWM"))
"""

CPU_BUILD = 245 * 10**6
"""What Python with torch's CPU build takes; other builds take more, which is none of a merge's doing."""


def pool_of(folder, count, elements=2**20, dtype=torch.bfloat16):
    """Different models of two tensors."""
    for seed in range(count):
        values = torch.full((elements,), float(seed), dtype=dtype)
        tiny_checkpoint(folder / f"model-{seed}", tensors={"a": values, "b": values})
    return folder


def estimate(tmp_path, count, elements=2**20, dtype=torch.bfloat16):
    """The bytes of memory that a dry run tells."""
    pool = pool_of(tmp_path / "ckpts", count, elements, dtype)
    return flat.plan_cook("average", pool=pool, out=tmp_path / "out")["ram_bytes"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's peak")
@pytest.mark.parametrize(
    ("count", "dtype"), [(9, torch.bfloat16), (2, torch.float32), (2, torch.float64), (4, torch.float64)]
)
def test_a_merge_takes_no_more_memory_than_the_estimate_and_not_half_of_it(count, dtype, tmp_path):
    expected = estimate(tmp_path, count, 2**22 // dtype.itemsize, dtype)
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=tmp_path, capture_output=True, text=True, check=True)
    imported, peak = map(int, done.stdout.split())
    peak -= max(0, imported - CPU_BUILD)
    assert peak <= expected <= 2 * peak


@pytest.mark.parametrize("count", [1, 2, 7])
def test_each_thread_s_memory_grows_by_a_leaf_s_bytes_and_sums_with_each_ingredient(tmp_path, count):
    leaf = 2**19
    first, second = (estimate(tmp_path / str(number), number, 8) for number in (count, count + 1))
    assert second - first == default_threads() * leaf * (2 + 4)  # in bfloat16 and in float32


def test_the_memory_of_inputs_is_bounded_however_many_there_are(tmp_path):
    many, more = (estimate(tmp_path / str(count), count, 8) for count in (12, 14))
    assert many == more


@dataclass(frozen=True)
class OfWholeTensors(Linear):
    granularity: ClassVar[str] = "tensor"


def test_a_method_of_whole_tensors_is_counted_with_the_largest_of_them(tmp_path):
    recipe = recipe_of(pool_of(tmp_path / "ckpts", 3, 2**21))
    with Pool(tmp_path / "ckpts") as pool:
        plan = plan_merge(recipe, pool)
        blend = replace(plan.blend, method=OfWholeTensors())
        assert thread_bytes(blend, plan.reads) == 2**21 * (3 * (2 + 4) + 6 * 4)
        assert thread_bytes(plan.blend, plan.reads) == 2**19 * (3 * (2 + 4) + 6 * 4)


def test_a_merge_leaves_torch_s_threads_as_they_were_for_later_threads_too(tmp_path):
    before, later = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        soup.merge(recipe_of(pool_of(tmp_path / "ckpts", 2, 8), dtype="float64"), tmp_path / "out")  # in torch
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert [torch.get_num_threads(), *later] == [3, 3]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "blocks"), [(3, 1), (14, 2)])
def test_a_leaf_is_one_block_until_the_inputs_of_one_would_take_too_much(tmp_path, count, blocks):
    leaf, sizes = 2**19, []
    recipe = recipe_of(pool_of(tmp_path / "ckpts", count, leaf))
    with Pool(tmp_path / "ckpts") as pool:
        plan = plan_merge(recipe, pool)
        for_each_block(plan.blend, plan.reads, lambda name, start, data: sizes.append(len(data) // 2), Options())
    assert (len(sizes), sum(sizes)) == (2 * blocks, 2 * leaf)  # of two tensors
    assert max(sizes) * count * (2 + 4) <= 32 * 2**20


def test_what_is_dropped_is_neither_read_nor_written(tmp_path):
    pool = pool_of(tmp_path / "ckpts", 3, 100)
    whole, less = (flat.plan_cook("average", pool=pool, out=tmp_path / "out", drop=drop) for drop in ([], ["a"]))
    assert (whole["tensors"], whole["read_bytes"], whole["write_bytes"]) == (2, 3 * 2 * 100 * 2, 2 * 100 * 2)
    assert (less["tensors"], less["read_bytes"], less["write_bytes"]) == (1, 3 * 100 * 2, 100 * 2)


def test_files_without_tensors_are_told_as_such_and_not_as_dropped(tmp_path):
    for name in ("a", "b"):
        tiny_checkpoint(tmp_path / "ckpts" / name, tensors={})
    with pytest.raises(RecipeError, match="ckpts/a: its files hold no tensor to merge"):
        soup.merge(recipe_of(tmp_path / "ckpts"), tmp_path / "out")
