"""The compiled sums over deltas are those of float64, and those that torch takes where there is no library."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soup.checkpoints.dtypes import DTYPES
from soup.merging import kernel_library
from soup.merging.compiled_deltas import sum_deltas
from soup.merging.kernel_library import has_kernels
from soup.merging.methods.base import Block
from soup.report.pool_check import check
from soup.report.pool_measure import PoolMeasure
from tests.helpers.method_pools import make_pool
from tests.merging.test_compiled import CODES, NAME, values_of

pytestmark = pytest.mark.skipif(not has_kernels(), reason="installed where there was no C compiler")

BOUND = 1e-5
"""Of a dot product, as a share of the product of both lengths."""


def fine_tunes(code, count, elements, seed, spread=1e-3, size=1.0):
    """Ingredients near a base, which comes last; every third element of each is the base's."""
    dtype = CODES[code][0]
    generator = torch.Generator().manual_seed(seed)
    base = (size * torch.randn(elements, generator=generator, dtype=torch.float64)).to(dtype)
    noise = spread * size * torch.randn(count, elements, generator=generator, dtype=torch.float64)
    noise[:, ::3] = 0
    return [*((base.double() + each).to(dtype) for each in noise), base]


def compiled(code, inputs, base):
    def view(values):
        return memoryview(bytearray(values.view(torch.uint8).numpy().tobytes()))

    return sum_deltas(DTYPES[code], [view(values) for values in inputs], None if base is None else view(base))


def in_torch(code, inputs, base):
    accumulate = torch.float64 if code in ("F32", "F64") else torch.float32
    measure = PoolMeasure(base is not None)
    measure(Block(NAME, (1.0,) * len(inputs), tuple(inputs), accumulate, base))
    return measure.tensors[NAME]


def square(sums):
    count = len(sums.moved)
    products = np.zeros((count, count))
    rows, columns = np.triu_indices(count)
    products[rows, columns] = products[columns, rows] = list(sums.products)
    return products


def assert_near(sums, expected, bound=BOUND):
    """Whether sums are the expected ones, as far as the lengths of the deltas say."""
    products, exact = square(sums), square(expected)
    lengths = np.sqrt(np.diagonal(exact))
    assert list(sums.moved) == list(expected.moved)
    assert sums.center == pytest.approx(expected.center, rel=bound)
    assert (np.abs(products - exact) <= bound * np.outer(lengths, lengths)).all()


@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize("code", CODES)
@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 12), elements=st.integers(1, 5000), seed=st.integers(0, 2**31), wild=st.booleans())
def test_sums_are_those_of_torch_for_numbers_of_every_size(code, has_base, count, elements, seed, wild):
    *inputs, base = values_of(code, count + 1, elements, seed) if wild else fine_tunes(code, count, elements, seed)
    sums = compiled(code, inputs, base if has_base else None)
    assert sums is not None
    assert_near(sums, in_torch(code, inputs, base if has_base else None))


@pytest.mark.parametrize("count", [1, 4, 5, 33, 64])
@pytest.mark.parametrize("code", CODES)
def test_sums_are_those_of_exact_differences_for_up_to_64_ingredients(code, count):
    *inputs, base = fine_tunes(code, count, 20_000, seed=count)
    deltas = torch.stack(inputs).double() - base.double()
    sums = compiled(code, inputs, base)
    exact = (deltas @ deltas.T).numpy()
    lengths = np.sqrt(np.diagonal(exact))
    assert (np.abs(square(sums) - exact) <= 1e-6 * np.outer(lengths, lengths)).all()
    assert sums.center == pytest.approx(float(base.double().square().sum()), rel=1e-6)
    assert list(sums.moved) == torch.count_nonzero(deltas, dim=1).tolist()


@pytest.mark.parametrize("code", ["BF16", "F32"])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_numbers_whose_squares_float32_does_not_hold_are_added_up_all_the_same(code, size):
    *inputs, base = fine_tunes(code, 5, 3000, seed=1, spread=0.1, size=size)
    assert_near(compiled(code, inputs, base), in_torch(code, inputs, base), bound=1e-14)


def test_equal_deltas_have_the_same_product_with_each_other_as_with_themselves():
    *inputs, base = fine_tunes("BF16", 7, 5000, seed=3)
    products = square(compiled("BF16", [*inputs[:3], inputs[1], *inputs[3:], inputs[1]], base))
    assert products[1, 1] == products[1, 3] == products[1, 8] == products[3, 8] == products[8, 8]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 511, 512, 1300])
def test_what_is_not_finite_is_left_to_torch_wherever_it_stands(code, bad, place):
    tensors = fine_tunes(code, 5, 1301, seed=2)
    for index in range(6):
        spoilt = [values.clone() for values in tensors]
        spoilt[index][place] = bad
        assert compiled(code, spoilt[:-1], spoilt[-1]) is None
        assert index == 5 or compiled(code, spoilt[:-1], None) is None


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setattr(kernel_library, "load_library", lambda: None)


@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_pool_s_distances_are_the_same_with_and_without_it(dtype, has_base, tmp_path, request):
    shapes = {"model.vision.weight": (3, 5), "model.layers.0.weight": (2**19 + 77,), "model.layers.1.norm": (7,)}
    make_pool(tmp_path, count=5, dtype=dtype, spread=0.01, shapes=shapes)
    base = tmp_path / "base" if has_base else None
    with_it = check(tmp_path / "ckpts", base).distances
    request.getfixturevalue("without_kernels")
    without = check(tmp_path / "ckpts", base).distances
    for kind, rows in with_it.cosines.items():
        np.testing.assert_allclose(rows, without.cosines[kind], atol=1e-6)
    np.testing.assert_allclose(with_it.distances, without.distances, atol=1e-6)
    for ours, theirs in zip(with_it.ingredients, without.ingredients, strict=True):
        assert (ours.moved, ours.verdict, ours.nearest[0]) == (theirs.moved, theirs.verdict, theirs.nearest[0])
        assert ours.by_component == pytest.approx(theirs.by_component, rel=1e-6)


def test_a_look_at_a_pool_never_imports_torch(tmp_path):
    make_pool(tmp_path, count=3, dtype=torch.bfloat16)
    code = (
        "import json, sys; from soup.cli.app import cli\n"
        "cli(['check', '--pool', sys.argv[1], '--base', sys.argv[2], '--json'], standalone_mode=False)\n"
        "print(json.dumps([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "ckpts"), str(tmp_path / "base")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
