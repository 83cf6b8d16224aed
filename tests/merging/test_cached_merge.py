"""What the page cache holds is merged straight into memory: the loop's bytes, or the tensor is left to the loop."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soup.checkpoints.dtypes import DTYPES
from soup.merging import cached_merge, kernel_library
from soup.merging.block_loop import for_each_block
from soup.merging.cached_merge import merge_cached_tensors
from soup.merging.kernel_library import has_kernels
from soup.merging.plan import plan_merge
from soup.merging.pool import Pool
from tests.helpers.merge_oracle import recipe_of, write_pool

needs_kernels = pytest.mark.skipif(
    not has_kernels() or not hasattr(os, "RWF_NOWAIT"), reason="no C compiler at install, or another system than Linux"
)
SIZES = {"long": 70_001, "square": 4_096, "one": 1, "none": 0, "counter": 3}


def states_of(dtype, count, seed=0):
    noise = torch.Generator().manual_seed(seed)
    base = {name: torch.randn(size, generator=noise) for name, size in SIZES.items()}
    states = [
        {name: (values + 0.1 * torch.randn(values.shape, generator=noise)).to(dtype) for name, values in base.items()}
        for _ in range(count)
    ]
    for state in states:
        state["counter"] = torch.arange(3)
        state["square"] = states[0]["square"]
        state["long"][:1000] = states[0]["long"][:1000]
    return states


def opened(folder, method="linear", base=None, weights=None, **params):
    pool = Pool(folder, base)
    return pool, plan_merge(recipe_of(folder, weights, base=base, method=method, params=params), pool)


def by_loop(blend, specs):
    out = {spec.name: bytearray(spec.bytes) for spec in specs}

    def take(name, start, data):
        width = blend.inputs[0].tensors[name].dtype.bits // 8
        out[name][start * width : start * width + len(data)] = data

    for_each_block(blend, specs, take)
    return out


def by_cache(blend, specs):
    memory = {spec.name: memoryview(bytearray(b"?" * spec.bytes)) for spec in specs}
    return merge_cached_tensors(blend, specs, memory), memory


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Units of several blocks, tensors of several units, and ends that fill neither."""
    monkeypatch.setattr(cached_merge, "UNIT_ELEMENTS", 20_000)
    monkeypatch.setattr(cached_merge, "BLOCK_BYTES", 3 * 4096)


@needs_kernels
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    case=st.sampled_from(
        [
            ("linear", {}),
            ("task-arithmetic", {"scale": 0.7}),
            ("dare", {"p": 0.4}),
            ("ties", {"density": 0.3}),
            ("consensus", {}),
            ("karcher", {"around": "base"}),
            ("model-stock", {}),
        ]
    ),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
    count=st.integers(2, 9),
    weighted=st.booleans(),
)
def test_every_method_gives_the_loop_s_bytes(tmp_path_factory, case, dtype, count, weighted):
    method, params = case
    folder = tmp_path_factory.mktemp("pool")
    states = states_of(dtype, count + 1)
    write_pool(folder / "pool", states[:count])
    base = write_pool(folder / "base", states[count:]) / "a" if method != "linear" else None
    weights = [(i + 1) / sum(range(count + 1)) for i in range(count)] if weighted and method != "model-stock" else None
    pool, plan = opened(folder / "pool", method, base, weights, **params)
    with pool:
        blend = plan.prepared()
        merged, memory = by_cache(blend, plan.reads)
        expected = by_loop(blend, plan.reads)
    assert {"long", "one"} <= merged <= {"long", "one", "square"}, "whole numbers and nothing are left to the loop"
    assert all(bytes(memory[name]) == bytes(expected[name]) for name in merged)


@needs_kernels
def test_a_tensor_that_the_page_cache_has_in_part_or_that_is_not_finite_is_left(tmp_path):
    states = states_of(torch.bfloat16, 3)
    states[1]["long"][60_000] = float("nan")
    folder = write_pool(tmp_path / "pool", states)
    pool, plan = opened(folder)
    with pool:
        merged, _ = by_cache(plan.blend, plan.reads)
        assert merged == {"one", "square"}
        files = [path / "model.safetensors" for path in folder.iterdir()]
        os.truncate(files[0], files[0].stat().st_size - 2)  # as if the last bytes were not there yet
        last = max(plan.reads, key=lambda spec: pool.ingredients[0].checkpoint.place_of(spec.name).offset).name
        assert by_cache(plan.blend, plan.reads)[0] == merged - {last}


@needs_kernels
def test_a_file_that_is_gone_is_left_to_the_loop_which_says_so(tmp_path):
    folder = write_pool(tmp_path / "pool", states_of(torch.bfloat16, 2))
    pool, plan = opened(folder)
    with pool:
        for part in pool:
            part.checkpoint.close()
        (folder / "b" / "model.safetensors").unlink()
        assert by_cache(plan.blend, plan.reads)[0] == set()


@pytest.mark.parametrize("why", ["memory", "cast", "library"])
def test_what_such_a_call_has_no_words_for_is_left(tmp_path, monkeypatch, why):
    pool, plan = opened(write_pool(tmp_path / "pool", states_of(torch.bfloat16, 2)))
    if why == "library":
        monkeypatch.setattr(kernel_library, "load_library", lambda: None)
    with pool:
        blend = replace(plan.blend, dtype=DTYPES["F32"]) if why == "cast" else plan.blend
        memory = {} if why == "memory" else {spec.name: memoryview(bytearray(spec.bytes)) for spec in plan.reads}
        assert merge_cached_tensors(blend, plan.reads, memory) == set()
