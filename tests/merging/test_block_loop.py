"""The loop over blocks: what can't be merged is returned with the first reason, and nothing stays in the blend."""

from __future__ import annotations

import math

import pytest
import torch

from soup.checkpoints.digest import digest_checkpoint
from soup.checkpoints.dtypes import LEAF_ELEMENTS
from soup.errors import PoolError
from soup.merging.block_arithmetic import Blend, BlendResult
from soup.merging.block_loop import Options, for_each_block, scan_blocks
from soup.merging.methods.linear import Linear
from soup.merging.pool import Pool
from tests.helpers.merge_oracle import write_pool

NAN = math.nan


@pytest.fixture
def pool(tmp_path):
    first = {"fine": [1.0, 2.0], "nan": [NAN, 1.0, 1.0], "counter": [1]}
    second = {"fine": [3.0, 4.0], "nan": [1.0, 1.0, NAN], "counter": [2]}
    folder = write_pool(
        tmp_path / "pool", [{name: torch.tensor(row) for name, row in rows.items()} for rows in (first, second)]
    )
    with Pool(folder) as opened:
        yield opened


@pytest.fixture
def blend(pool):
    return Blend(Linear(), tuple(part.checkpoint for part in pool), ("a", "b"), (0.5, 0.5))


def scan(blend, **options):
    blocks = []
    specs = list(blend.inputs[0].tensors.values())
    result = scan_blocks(blend, specs, lambda *block: blocks.append(block[:2]), Options(**options), hashing=True)
    return result, sorted(blocks)


def test_a_scan_returns_digests_and_a_reason_for_each_tensor_that_can_t_be_merged(blend, pool):
    result, blocks = scan(blend)
    assert result.digests == tuple(digest_checkpoint(part.checkpoint) for part in pool)
    assert set(result.rejections) == {"nan", "counter"}
    assert str(result.rejections["nan"]).startswith("a, b: nan: NaN or infinity. ")
    assert str(result.rejections["counter"]).startswith(
        "b: counter: int64 values can't be averaged, and differ from a's"
    )
    assert blocks == [("counter", 0), ("fine", 0), ("nan", 0)], "rejected blocks come, too"


def test_the_first_reason_of_a_tensor_stays_where_later_blocks_have_others(blend):
    result, blocks = scan(blend, block_elements=1, threads=1)
    assert str(result.rejections["nan"]).startswith("a: nan: NaN or infinity.")
    assert ("nan", 2) in blocks


def test_nothing_stays_in_a_blend_from_one_scan_to_the_next(blend):
    assert scan(blend) == scan(blend)
    fine = [blend.inputs[0].tensors["fine"]]
    assert for_each_block(blend, fine, lambda *block: None) == ()


def test_all_rejections_are_one_error_sorted_by_tensor(blend):
    with pytest.raises(PoolError, match=r"^2 tensors can't be merged:\n  - b: counter: .*\n  - a, b: nan: "):
        for_each_block(blend, list(blend.inputs[0].tensors.values()), lambda *block: None)


def test_a_block_s_result_carries_its_own_reason(blend):
    spec = blend.inputs[0].tensors["nan"]
    rows = [torch.tensor([1.0, row]) for row in (3.0, NAN)]
    values, rejection = blend([spec, spec], rows)
    assert values[0] == 1.0
    assert str(rejection).startswith("b: ")
    clean = torch.tensor([2.0, 3.0])
    result = blend([spec, spec], [clean, rows[0]])
    assert isinstance(result, BlendResult)
    assert (result.values.tolist(), result.rejection) == ([1.5, 3.0], None)


def test_a_tensor_begins_before_the_last_leaves_of_the_one_before_it_and_each_leaf_comes_once(tmp_path):
    leaves = {"large": 7, "two": 2, "none": 1, "small": 1}
    values = {name: torch.zeros((count - 1) * LEAF_ELEMENTS + (name != "none")) for name, count in leaves.items()}
    with Pool(write_pool(tmp_path / "pool", [values])) as pool:
        checkpoint = next(iter(pool)).checkpoint
        blend = Blend(Linear(), (checkpoint,), ("a",), (1.0,))
        blocks = []
        specs = [checkpoint.tensors[name] for name in leaves]
        for_each_block(blend, specs, lambda *block: blocks.append(block[:2]), Options(threads=1))
    assert len(blocks) == len({*blocks})
    assert {*blocks} == {(name, i * LEAF_ELEMENTS) for name, n in leaves.items() if name != "none" for i in range(n)}
    assert blocks.index(("two", 0)) < blocks.index(("large", 6 * LEAF_ELEMENTS))
