"""What a dry run tells of methods on whole matrices: their memory, and the time of their decompositions."""

from __future__ import annotations

import pytest

from soup.merging import whole_tensors
from soup.merging.options import MergeOptions
from soup.merging.plan import plan_merge
from soup.merging.pool import Pool
from soup.testing import tiny_checkpoint
from tests.helpers.flat_arguments import plan_cook
from tests.helpers.merge_oracle import recipe_of
from tests.helpers.tiny_adapters import linear_factors, write_adapter

METHODS = ["iso-c", "swudi", "knots"]


def pool_of(folder, shape):
    for name in ("base", "ckpts/a", "ckpts/b"):
        tiny_checkpoint(folder / name, seed=len(name), tensors={"up.weight": shape, "norm.weight": (7,)})
    return folder


def plan(folder, method, **params):
    return plan_cook(
        "average", pool=folder / "ckpts", base=folder / "base", out=folder / "out", method=method, **params
    )


@pytest.fixture
def nanoseconds(monkeypatch):
    """Operations take a nanosecond each, so that counts alone are seen."""
    monkeypatch.setattr(whole_tensors, "_seconds_per_operation", lambda method, count: 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_time_is_measured_on_a_small_matrix_of_this_machine(tmp_path, method):
    seconds = plan(pool_of(tmp_path, (40, 30)), method)["decomposition_seconds"]
    assert isinstance(seconds, float)
    assert 0 < seconds < 1


@pytest.mark.parametrize("method", METHODS)
def test_twice_the_width_takes_eight_times_as_long_and_four_times_the_memory(tmp_path, nanoseconds, method):
    small, large = (plan(pool_of(tmp_path / str(side), (side, side)), method) for side in (1000, 2000))
    assert large["decomposition_seconds"] == pytest.approx(8 * small["decomposition_seconds"], rel=0.05)
    smallest = plan(pool_of(tmp_path / "2", (2, 2)), method)["ram_bytes"]
    assert large["ram_bytes"] - smallest > 3.5 * (small["ram_bytes"] - smallest) > 0


def test_methods_that_stream_have_nothing_to_decompose(tmp_path):
    assert "decomposition_seconds" not in plan(pool_of(tmp_path, (40, 30)), "task-arithmetic")
    assert "decomposition_seconds" not in plan(pool_of(tmp_path, (40, 30)), "karcher", method_args={"unit": "row"})


def test_a_matrix_above_max_side_is_not_decomposed(tmp_path):
    folder = pool_of(tmp_path, (40, 30))
    assert "decomposition_seconds" not in plan(folder, "swudi", method_args={"max_side": 39})


@pytest.mark.parametrize("method", METHODS)
def test_factors_cost_what_their_ranks_do(tmp_path, nanoseconds, method):
    whole = plan(pool_of(tmp_path / "whole", (600, 500)), method)
    folder = tmp_path / "adapters"
    base = tiny_checkpoint(folder / "base", tensors={"up.weight": (600, 500), "norm.weight": (7,)})
    for name in "ab":
        write_adapter(folder / "ckpts" / name, linear_factors({"up.weight": (600, 500)}), base)
    by_factors = plan(folder, method, method_args={"max_side": 2})
    assert 0 < by_factors["decomposition_seconds"] < whole["decomposition_seconds"] / 100
    assert by_factors["ram_bytes"] < whole["ram_bytes"]


def test_several_tensors_share_the_cores_but_one_does_not(tmp_path, nanoseconds, monkeypatch):
    monkeypatch.setattr(whole_tensors, "count_cores", lambda: 2)
    names = ("base", "ckpts/a", "ckpts/b")
    for name in names:
        shapes = {f"layers.{i}.weight": (100, 100) for i in range(4)}
        tiny_checkpoint(tmp_path / name, seed=len(name), tensors=shapes)
    recipe = recipe_of(tmp_path / "ckpts", method="iso-c")
    with Pool(tmp_path / "ckpts", base=tmp_path / "base") as pool:
        blend, reads = (made := plan_merge(recipe, pool, MergeOptions())).blend, made.reads
        seconds = [whole_tensors.decomposition_seconds(blend, reads[:n], threads=8) for n in (1, 4)]
    assert seconds == pytest.approx([1e-3, 2e-3])
