"""A merge method of your own: the median of the ingredients, element by element.

soup average --pool soup-demo/ckpts --method examples/custom/method.py:Median -o soup-demo/median
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from soup.errors import RecipeError
from soup.merging.methods import Block, Method


@dataclass(frozen=True)
class Median(Method):
    """The median: one ingredient that is far off does not move it. Between the two middle ones it is their mean.

    A field of the dataclass would be a parameter, which `--method-arg NAME=VALUE` sets and the recipe keeps.
    """

    def __call__(self, block: Block) -> torch.Tensor:
        """Merge the same slice of one tensor from every ingredient; soup does files, dtypes, threads and the cast."""
        ordered = torch.stack(list(block)).sort(dim=0).values
        middle, last = len(block) // 2, ordered[-1]
        median = ordered[middle] if len(block) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        return torch.where(last.isnan(), last, median)  # NaN, sorted last, must show: soup then names the ingredient

    def check(self, weights: Sequence[float]) -> None:
        """Refuse what the method can't do, before anything is read."""
        if len({*weights}) > 1:
            raise RecipeError(f"median: all ingredients weigh the same in it, found {[*weights]}.")

    def keeps_equal(self, weights: Sequence[float]) -> bool:
        """Say that equal inputs give that very value: soup then has no need to look for them."""
        return True
