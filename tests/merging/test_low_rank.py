"""Products of factors: the same bits in any order and for any range of rows, and near enough to the exact product."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from soup.checkpoints.adapter import Adapter
from soup.checkpoints.adapter_deltas import Delta, Factor
from soup.checkpoints.dtypes import DTYPES
from soup.merging.compiled_products import MeanBlock
from soup.merging.kernel_library import has_kernels
from soup.merging.low_rank import Product
from soup.merging.scratch import Scratch
from tests.helpers.merge_oracle import same_bits
from tests.helpers.tiny_adapters import write_adapter

ROWS, COLUMNS, RANK = 37, 29, 13


def make_delta(folder, left, right, scale=0.7):
    adapter = Adapter(write_adapter(folder, {"up.lora_A.weight": right, "up.lora_B.weight": left}))
    a, b = (f"base_model.model.up.lora_{part}.weight" for part in "AB")
    return Delta(Factor(adapter, b, tuple(left.shape)), Factor(adapter, a, tuple(right.shape)), scale)


@pytest.fixture
def factors():
    torch.manual_seed(0)
    return torch.randn(ROWS, RANK) * torch.randn(ROWS, 1).exp(), torch.randn(RANK, COLUMNS)


def rows(delta, begin=0, end=ROWS, bits=16, weights=(1.0,)):
    return Product([[delta]] * len(weights), weights, bits).rows(begin, end, 0, Scratch()).clone()


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_the_order_of_the_sum_changes_no_bit(tmp_path, factors, bits):
    left, right = factors
    first = rows(make_delta(tmp_path / "a", left, right), bits=bits)
    for seed in range(5):
        order = torch.randperm(RANK, generator=torch.Generator().manual_seed(seed))
        other = rows(make_delta(tmp_path / "b", left[:, order], right[order]), bits=bits)
        assert same_bits(first, other)


@pytest.mark.parametrize("bits", [16, 32])
def test_the_range_of_rows_changes_no_bit(tmp_path, factors, bits):
    delta = make_delta(tmp_path / "a", *factors)
    whole = rows(delta, bits=bits)
    for begin, end in ((0, 1), (5, 6), (3, 20), (36, 37)):
        assert same_bits(rows(delta, begin, end, bits), whole[begin:end])


@pytest.mark.parametrize(("bits", "digits"), [(16, 22), (32, 44), (64, 52)])
def test_the_product_is_as_near_to_the_exact_one_as_the_slices_say(tmp_path, factors, bits, digits):
    left, right = factors
    actual = rows(make_delta(tmp_path / "a", left, right), bits=bits)
    for i in range(0, ROWS, 6):
        for j in range(0, COLUMNS, 7):
            terms = [Fraction(left[i, k].item()) * Fraction(right[k, j].item()) for k in range(RANK)]
            exact = Fraction(0.7) * sum(terms)
            largest = left[i].abs().max().item() * right[:, j].abs().max().item()
            assert abs(Fraction(actual[i, j].item()) - exact) <= RANK * largest * 2.0**-digits


def test_copies_of_an_adapter_are_one_of_them(tmp_path, factors):
    delta = make_delta(tmp_path / "a", *factors)
    assert same_bits(rows(delta, weights=(0.25, 0.25, 0.5)), rows(delta))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(tmp_path, factors, value):
    left, right = factors
    right[2, 3] = value
    assert not torch.isfinite(rows(make_delta(tmp_path / "a", left, right))[:, 3]).any()


def test_factors_of_zeros_add_nothing(tmp_path, factors):
    left, right = factors
    assert not rows(make_delta(tmp_path / "a", torch.zeros_like(left), right)).any()


compiled = pytest.mark.skipif(not has_kernels(), reason="installed where there was no C compiler")
BASES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def stored_delta(folder, left, right, scale, transposed=False):
    """As `make_delta`, with the factors in any dtype, and perhaps the other way round in the file."""
    files = {"A": right.T, "B": left.T} if transposed else {"A": right, "B": left}
    adapter = Adapter(write_adapter(folder, {f"up.lora_{part}.weight": values for part, values in files.items()}))
    a, b = (f"base_model.model.up.lora_{part}.weight" for part in "AB")
    return Delta(
        Factor(adapter, b, tuple(left.shape), transposed), Factor(adapter, a, tuple(right.shape), transposed), scale
    )


def in_bytes(product, code, *inputs, first=0, place=0, weights=()):
    """The block that the compiled pass writes; None where it leaves it to torch."""
    *views, out = (memoryview(bytearray(x.view(torch.uint8).numpy().tobytes())) for x in [*inputs, inputs[0]])
    block = MeanBlock(views, place, weights, sum(weights) if weights else len(inputs))
    done = product.add_to_bytes(DTYPES[code], block, first, out)
    return torch.frombuffer(out, dtype=inputs[0].dtype) if done else None


def in_torch(product, *inputs, first=0, place=0, weights=()):
    accumulate = torch.float64 if inputs[0].dtype == torch.float32 else torch.float32
    values = [x.to(accumulate) for x in inputs]
    values[place] = product.add_to(inputs[place], first, 0, Scratch()).to(accumulate)
    parts = weights or [1.0] * len(inputs)
    total = values[0] * parts[0] if weights else values[0]
    for value, weight in zip(values[1:], parts[1:], strict=True):
        total = total + (value * weight if weights else value)
    return (total / sum(parts)).to(inputs[0].dtype)


def wild(shape, dtype, generator):
    """Numbers of many sizes, some of them 0."""
    exponents = torch.randint(-20, 8, shape, generator=generator)
    values = torch.ldexp(torch.randn(shape, generator=generator), exponents)
    return (values * torch.randint(0, 4, shape, generator=generator).sign()).to(dtype)


@compiled
@pytest.mark.parametrize("code", BASES)
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 140),
    ranks=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    factors=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
    transposed=st.booleans(),
    share=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    wholes=st.integers(0, 4),
    weights=st.none() | st.lists(st.floats(-1, 4), min_size=5, max_size=5),
    seed=st.integers(0, 2**31),
)
def test_the_compiled_pass_has_torch_s_bits(
    tmp_path_factory, code, rows, columns, ranks, factors, transposed, share, wholes, weights, seed
):
    generator, folder = torch.Generator().manual_seed(seed), tmp_path_factory.mktemp("product")
    deltas = [
        stored_delta(
            folder / str(i),
            wild((rows, rank), factors, generator),
            wild((rank, columns), factors, generator),
            0.1 * (i + 1),
            transposed,
        )
        for i, rank in enumerate(ranks)
    ]
    product = Product([[delta] for delta in deltas], [1 / len(deltas)] * len(deltas), DTYPES[code].bits)
    weights = [float(weight) for weight in (weights or [])[: wholes + 1]]
    weights = weights if abs(sum(weights)) > 1 else []
    first = int(share[0] * (rows * columns - 1))
    last = first + 1 + int(share[1] * (rows * columns - 1 - first))
    inputs = [wild((rows * columns,), BASES[code], generator)[first:last] for _ in range(wholes + 1)]
    where = {"first": first, "place": seed % (wholes + 1), "weights": weights}
    expected = in_torch(product, *inputs, **where)
    assume(max(expected.abs().max(), product.add_to(inputs[where["place"]], first, 0, Scratch()).abs().max()) < 2**15)
    result = in_bytes(product, code, *inputs, **where)
    assert result is not None
    assert same_bits(result, expected)


@compiled
@pytest.mark.parametrize(("beside", "expected"), [(2.0**-18, 1 + 2.0**-7), (0.0, 1.0), (-(2.0**-18), 1.0)])
def test_a_sum_that_float32_loses_is_rounded_as_it_should(tmp_path, beside, expected):
    half = (2.0**-8 + beside) / 2  # beside 2^16, float32 takes it for 0
    left, right = torch.tensor([[2.0**15, 1.0, 1.0, -(2.0**15)]]), torch.tensor([[2.0], [half], [half], [2.0]])
    product = Product([[stored_delta(tmp_path / "a", left, right, 1.0)]], [1.0], 16)
    assert in_bytes(product, "BF16", torch.ones(1, dtype=torch.bfloat16)).item() == expected


@compiled
@pytest.mark.parametrize("away", [2.0**-60, 0.0, -(2.0**-60)])
def test_a_sum_halfway_between_two_floats_is_rounded_as_it_should(tmp_path, away):
    left = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)
    right = torch.tensor([[2.0**-24], [2.0**-23], [away]], dtype=torch.float64)  # 1 + 3/2 ulp, and next to nothing
    product = Product([[stored_delta(tmp_path / "a", left, right, 1.0)]], [1.0], 32)
    base = torch.ones(1)
    assert same_bits(in_bytes(product, "F32", base), in_torch(product, base))


@compiled
def test_what_the_second_slice_alone_holds_is_added(tmp_path):
    left = torch.tensor([[1.0, 1.0 + 2.0**-30]], dtype=torch.float64)
    right = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    product = Product([[stored_delta(tmp_path / "a", left, right, 1.0)]], [1.0], 32)
    assert in_bytes(product, "F32", torch.zeros(1)).item() == 2.0**-30


@compiled
@pytest.mark.parametrize("code", ["BF16", "F32"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e20, 1e-20])
@pytest.mark.parametrize("side", ["left", "right", "base"])
def test_what_float32_does_not_hold_is_left_to_torch(tmp_path, side, value, code):
    values = {"left": torch.ones(3, 2), "right": torch.ones(2, 5), "base": torch.ones(15)}
    values[side][-1] = value
    delta = stored_delta(tmp_path / "a", values["left"], values["right"], 1.0)
    result = in_bytes(Product([[delta]], [1.0], DTYPES[code].bits), code, values["base"].to(BASES[code]))
    fits = value in (1e20, 1e-20) and side != "left"
    assert (result is not None) == (fits and not (side == "right" and value == 1e20))


@compiled
def test_a_sum_that_rounds_to_infinity_is_left_to_torch(tmp_path):
    product = Product([[stored_delta(tmp_path / "a", torch.ones(2, 1), torch.full((1, 3), 40.0), 1.0)]], [1.0], 16)
    base = torch.full((6,), torch.finfo(torch.float16).max, dtype=torch.float16)
    assert in_bytes(product, "F16", base) is None
    assert in_bytes(product, "F16", -base).isfinite().all()
