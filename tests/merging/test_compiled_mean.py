"""The compiled mean gives the bytes that torch's operations give, and hands over whatever is not plain."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import soup
from soup.errors import PoolError
from soup.merging.compiled_mean import mean_of_bfloat16
from soup.merging.mean_kernel import COMPILED_MEAN
from tests.helpers.merge_oracle import merged, read_back, recipe_of, write_pool


@pytest.fixture
def compiled(monkeypatch):
    """Every blend from now on may use the compiled mean; a list of the sizes that it was asked for."""
    asked = []

    def counted(values, out):
        asked.append(out.numel())
        return mean_of_bfloat16(values, out)

    monkeypatch.setattr(COMPILED_MEAN, "kernel_for", lambda planned_bytes: counted)
    return asked


def in_torch(values):
    """The contract, written out: sums in float32 and recipe order, one division, one rounding."""
    total = values[0].float()
    for other in values[1:]:
        total += other.float()
    return total.div_(len(values)).to(torch.bfloat16)


def of_any_bits(count, elements, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(-(2**15), 2**15, (elements,), generator=generator).short() for _ in range(count)]


def same_bits(left, right):
    return torch.equal(left.view(torch.int16), right.view(torch.int16))


@settings(max_examples=200, deadline=None)
@given(count=st.integers(1, 40), elements=st.integers(1, 5000), seed=st.integers(0, 2**31))
def test_the_compiled_mean_has_torch_s_bits_for_numbers_of_every_size(count, elements, seed):
    # Exponents of all sizes but the largest, so that no sum of forty is infinite: zeros and subnormals are among them.
    values = [(bits & ~0x0400).view(torch.bfloat16) for bits in of_any_bits(count, elements, seed)]
    out = torch.empty(elements, dtype=torch.bfloat16)
    assert mean_of_bfloat16(values, out)
    assert same_bits(out, in_torch(values))


@settings(max_examples=200, deadline=None)
@given(count=st.integers(1, 9), elements=st.integers(1, 300), seed=st.integers(0, 2**31))
def test_it_says_of_any_bits_at_all_whether_every_result_is_finite(count, elements, seed):
    values = [bits.view(torch.bfloat16) for bits in of_any_bits(count, elements, seed)]
    out, expected = torch.empty(elements, dtype=torch.bfloat16), in_torch(values)
    plain = mean_of_bfloat16(values, out)
    assert plain == bool(torch.isfinite(expected).all())
    assert not plain or same_bits(out, expected)


def test_the_largest_bfloat16_is_plain_and_what_rounds_to_infinity_is_not():
    largest = torch.full((5,), torch.finfo(torch.bfloat16).max, dtype=torch.bfloat16)
    out = torch.empty_like(largest)
    assert mean_of_bfloat16([largest], out)
    assert same_bits(out, largest)
    assert not mean_of_bfloat16([largest, largest], out)  # the sum is infinite in float32, the mean is not
    assert not mean_of_bfloat16([torch.full_like(largest, float("nan"))], out)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_a_merge_writes_the_same_bytes_with_and_without_it(count, tmp_path, request):
    values = [bits & ~0x0400 for bits in of_any_bits(count, 2**19 + 77, seed=count)]
    pool = write_pool(tmp_path / "pool", [{"w": each.view(torch.bfloat16), "one": torch.ones(3)} for each in values])
    soup.merge(recipe_of(pool), tmp_path / "torch")
    asked = request.getfixturevalue("compiled")
    soup.merge(recipe_of(pool), tmp_path / "compiled")
    assert sum(asked) == 2**19 + 77, "float32 tensors and equal ones are not its business"
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("torch", "compiled")]
    assert files[0] == files[1]


def test_what_is_not_plain_is_left_to_torch_bit_for_bit(compiled):
    # 3e38 + 3e38 is infinite in float32, and their mean is not
    inputs = [{"w": torch.tensor([3e38, 1.0, -3e38], dtype=torch.bfloat16)} for _ in range(2)]
    inputs[1]["w"][1] = 2.0
    result = merged(inputs)["w"]
    assert compiled
    assert same_bits(result, torch.tensor([3e38, 1.5, -3e38], dtype=torch.bfloat16))


def test_nan_is_still_an_error_that_names_tensor_and_ingredient(compiled):
    inputs = [
        {"w": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)},
        {"w": torch.tensor([1.0, float("nan")]).bfloat16()},
    ]
    with pytest.raises(PoolError, match="w: NaN or infinity"):
        merged(inputs)
    assert compiled


@pytest.mark.parametrize(
    ("weights", "dtype"), [([1.0, 2.0], torch.bfloat16), (None, torch.float16), (None, torch.float32)]
)
def test_weights_and_other_dtypes_do_not_reach_it(compiled, weights, dtype):
    merged([{"w": torch.randn(50).to(dtype)} for _ in range(2)], weights)
    assert not compiled


@pytest.mark.parametrize(
    ("weights", "dtype", "counted"),
    [
        (None, torch.bfloat16, [2 * 2 * 50]),
        (None, torch.float16, [0]),
        (None, torch.float32, [0]),
        ([1.0, 2.0], torch.bfloat16, []),
    ],
)
def test_only_bytes_that_it_could_blend_count_towards_loading_it(monkeypatch, weights, dtype, counted):
    asked = []
    monkeypatch.setattr(COMPILED_MEAN, "kernel_for", asked.append)
    merged([{"w": torch.randn(50).to(dtype)} for _ in range(2)], weights)
    assert asked == counted


def test_small_merges_load_no_numba_and_large_ones_do(tmp_path):
    write_pool(tmp_path / "pool", [{"w": torch.full((9,), float(i), dtype=torch.bfloat16)} for i in range(3)])
    code = (
        "import sys, soup; from pathlib import Path; from soup.merging import mean_kernel\n"
        "from soup.merging.recipe import CheckpointSource, Recipe\n"
        "folder = Path(sys.argv[1])\n"
        "paths = sorted((folder / 'pool').iterdir())\n"
        "recipe = Recipe.uniform([CheckpointSource(name=path.name, path=str(path)) for path in paths])\n"
        "soup.merge(recipe, folder / 'small'); small = 'numba' in sys.modules\n"
        "mean_kernel.LOAD_NUMBA_FROM_BYTES = 1\n"
        "soup.merge(recipe, folder / 'large'); large = 'numba' in sys.modules\n"
        "sys.modules['soup.merging.compiled_mean'] = None  # not installed\n"
        "soup.merge(recipe, folder / 'without'); print(small, large)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in ("small", "large", "without")}) == 1
    assert read_back(tmp_path / "large")["w"].tolist() == [1.0] * 9
