"""Sums that overflow float32 although every input is finite: rescued place by place, and nothing else is touched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from soup.errors import PoolError
from soup.merging.methods import Method, method
from soup.merging.options import MergeOptions
from tests.helpers.merge_oracle import mean, merged, rounded, same_bits

HUGE = 3e38
"""Finite in bfloat16 and in float32; twice that is neither."""


def bfloat16(*values):
    return torch.tensor(values, dtype=torch.bfloat16)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [3.0, 1.0]], ids=["uniform", "weighted"])
def test_only_the_places_whose_sum_overflowed_are_added_up_again(weights):
    left, right = bfloat16(HUGE, -HUGE, 1.0, 0.1), bfloat16(HUGE * 0.9, -HUGE * 0.8, 2.0, 0.2)
    result = merged([{"w": left}, {"w": right}], weights)["w"]
    assert same_bits(result[:2], rounded(mean([left[:2], right[:2]], weights), torch.bfloat16))
    assert same_bits(result[2:], merged([{"w": left[2:]}, {"w": right[2:]}], weights)["w"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_beside_what_is_not_finite_a_finite_mean_is_rescued_and_the_other_stays_what_it_is(bad):
    states = [{"w": bfloat16(bad, HUGE, 1.0)}, {"w": bfloat16(1.0, HUGE * 0.9, 3.0)}]
    result = merged(states, options=MergeOptions(allow_nonfinite=True))["w"]
    assert math.isnan(result[0]) if math.isnan(bad) else result[0] == bad
    assert result[1].item() == pytest.approx(HUGE * 0.95, rel=2**-8)
    assert result[2].item() == 2.0
    with pytest.raises(PoolError, match="a: w: NaN or infinity"):
        merged(states)


@method("test-doubled")
@dataclass(frozen=True)
class Doubled(Method):
    """Twice the first ingredient's values, by way of a sum."""

    granularity: ClassVar[str] = "tensor"

    def __call__(self, block):
        return block[0] + block[0]


def test_a_result_that_float64_holds_and_the_dtype_does_not_is_refused():
    states = [{"w": bfloat16(HUGE, 1.0)}, {"w": bfloat16(1.0, 1.0)}]
    with pytest.raises(PoolError, match="w: the result is too large for bfloat16"):
        merged(states, method="test-doubled")
    assert merged(states, method="test-doubled", dtype="float64")["w"].tolist() == [2 * float(bfloat16(HUGE)), 2.0]
