"""Products of factors: the same bits in any order and for any range of rows, and near enough to the exact product."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from soup.checkpoints.adapter import Adapter
from soup.checkpoints.adapter_deltas import Delta, Factor
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
    found = rows(make_delta(tmp_path / "a", left, right), bits=bits)
    for i in range(0, ROWS, 6):
        for j in range(0, COLUMNS, 7):
            terms = [Fraction(left[i, k].item()) * Fraction(right[k, j].item()) for k in range(RANK)]
            exact = Fraction(0.7) * sum(terms)
            largest = left[i].abs().max().item() * right[:, j].abs().max().item()
            assert abs(Fraction(found[i, j].item()) - exact) <= RANK * largest * 2.0**-digits


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
