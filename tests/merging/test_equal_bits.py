"""Where all inputs hold the same bits those bits stay, also where the sum alone would have lost them."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.merge_oracle import DTYPES, merged, same_bits


@pytest.mark.parametrize("name", [*DTYPES])
def test_bits_that_all_inputs_share_survive_weights_that_cancel(name):
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(2000, generator=generator, dtype=torch.float64).to(DTYPES[name])
    left, right = (torch.cat([shared, torch.tensor([value], dtype=shared.dtype)]) for value in (0.001, 0.002))
    result = merged([{"w": left}, {"w": right}], [1e5, 1 - 1e5])["w"]
    assert same_bits(result[:-1], shared)
    # The weights are what they seem: in the one place that differs they count.
    expected = 1e5 * left[-1].double() + (1 - 1e5) * right[-1].double()
    torch.testing.assert_close(result[-1].double(), expected, rtol=1e-2, atol=0)
