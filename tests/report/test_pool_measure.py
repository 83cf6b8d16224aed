"""What a pass over a pool adds up does not depend on the order in which threads finish their blocks."""

from __future__ import annotations

from itertools import permutations

from soup.merging.compiled_deltas import DeltaSums
from soup.report.pool_measure import TensorSums

BLOCKS = [(0, DeltaSums(1e16, [1.0], [3])), (5, DeltaSums(1.0, [1e-17], [2])), (10, DeltaSums(-1e16, [-1.0], [1]))]


def test_blocks_are_added_up_in_the_order_of_the_tensor_whichever_comes_first():
    found = set()
    for order in permutations(BLOCKS):
        sums = TensorSums(0.0, [0.0], [0])
        for first, block in order:
            assert not sums.holds(first)
            sums.add(first, 5, block)
            assert sums.holds(first)
        found.add((sums.center, *sums.products, *sums.moved, sums.elements))
    assert found == {(0.0, 0.0, 6, 15)}


def test_a_block_that_is_not_finite_is_left_out_of_lengths_and_counted_as_moved():
    sums = TensorSums(0.0, [0.0], [0])
    sums.add(0, 5, DeltaSums(2.0, [3.0], [1]))
    sums.add(5, 5, DeltaSums(4.0, [float("nan")], [2]))
    sums.add(10, 5, DeltaSums(float("inf"), [1.0], [4]))
    assert (sums.center, sums.products, sums.moved, sums.elements) == (2.0, [3.0], [7], 15)
