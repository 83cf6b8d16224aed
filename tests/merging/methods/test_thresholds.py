"""The thresholds of TIES are exact, whatever the sample says that they are searched by."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import soup
from soup.checkpoints.dtypes import LEAF_ELEMENTS
from soup.merging import kernel_library
from soup.merging.methods.base import Block
from soup.merging.methods.thresholds import find_thresholds
from tests.helpers.merge_oracle import read_back, recipe_of, write_pool

NAME = "w"


@dataclasses.dataclass
class OneTensor:
    """A first pass over one block, which counts how often it was read."""

    block: Block
    reads: int = 0

    @property
    def weights(self):
        return self.block.weights

    def sums(self, statistic, sample=None):
        self.reads += sample is None
        raw, base = ([values[:sample] for values in self.block.raw], self.block.raw_base[:sample])
        yield NAME, statistic(dataclasses.replace(self.block, raw=tuple(raw), raw_base=base))


def deltas_of(*tuned):
    base = torch.zeros_like(tuned[0])
    return OneTensor(Block(NAME, (1.0,) * len(tuned), tuned, torch.float32, base))


def exact(values, density):
    sizes = values.float().abs().sort(descending=True).values
    kept = math.ceil(density * len(sizes))
    return 0.0 if kept >= int((sizes > 0).sum()) else float(sizes[kept - 1])


def found(first_pass, density, **options):
    arguments = {"weights_of": lambda block: block.weights, "sampled": True, **options}
    return find_thresholds(first_pass, lambda name: "", density, **arguments).thresholds[""]


@pytest.fixture(params=["compiled", "torch"])
def by(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(kernel_library, "load_library", lambda: None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_one_read_serves_where_the_sample_is_like_the_whole(by, dtype):
    generator = torch.Generator().manual_seed(3)
    tuned = [(torch.randn(50_000, generator=generator) * 0.02).to(dtype) for _ in range(3)]
    first_pass = deltas_of(*tuned)
    assert found(first_pass, 0.2) == [exact(values, 0.2) for values in tuned]
    assert first_pass.reads == 1


@pytest.mark.parametrize("head", [0.0, 1e-4, 100.0])
def test_thresholds_are_exact_where_the_sample_is_not_like_the_whole(by, head):
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(4))
    values[:8192] *= head
    first_pass = deltas_of(values)
    assert found(first_pass, 0.2) == [exact(values, 0.2)]
    assert first_pass.reads == 3


def test_what_leaves_the_base_as_it_is_has_nothing_to_keep(by):
    assert found(deltas_of(torch.zeros(20_000), torch.ones(20_000)), 0.3) == [math.inf, 1.0]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.floats(0.01, 1), st.booleans())
def test_few_different_magnitudes_have_exact_thresholds(numbers, density, sampled):
    values = torch.tensor(numbers, dtype=torch.float32)
    expected = exact(values, density) if values.any() else math.inf
    assert found(deltas_of(values), density, sampled=sampled) == [expected]


def test_tensors_of_several_leaves_have_the_thresholds_of_whole_tensors(tmp_path):
    generator = torch.Generator().manual_seed(5)
    elements = 2 * LEAF_ELEMENTS + 77
    states = [{"w": torch.randn(elements, generator=generator).bfloat16()} for _ in range(3)]
    pool = write_pool(tmp_path / "pool", states[1:])
    base = write_pool(tmp_path / "base", states[:1]) / "a"
    for scope in ("model", "tensor"):
        soup.merge(recipe_of(pool, base=str(base), method="ties", params={"scope": scope}), tmp_path / scope)
    by_model, by_tensor = (read_back(tmp_path / scope)["w"] for scope in ("model", "tensor"))
    assert torch.equal(by_model, by_tensor)
    deltas = [state["w"].float() - states[0]["w"].float() for state in states[1:]]
    kept = [delta.abs() >= exact(delta, 0.2) for delta in deltas]
    assert torch.equal(by_model != states[0]["w"], kept[0] | kept[1])


def test_many_small_tensors_weigh_no_more_in_the_sample_than_in_the_model(tmp_path):
    generator = torch.Generator().manual_seed(6)
    large, small = {"w": 1.0}, {f"small {i}": 1e-3 for i in range(96)}
    states = [
        {
            name: (torch.randn(8 * LEAF_ELEMENTS if name in large else 4096, generator=generator) * size).bfloat16()
            for name, size in (large | small).items()
        }
        for _ in range(2)
    ]
    pool = write_pool(tmp_path / "pool", states[1:])
    base = write_pool(tmp_path / "base", states[:1]) / "a"
    read = []
    soup.merge(
        recipe_of(pool, base=str(base), method="ties"), tmp_path / "out", progress=soup.Progress(on_bytes=read.append)
    )
    size = sum(values.numel() * values.element_size() for state in states for values in state.values())
    assert sum(read) == 2 * size, "one pass looks for thresholds, and one merges"
