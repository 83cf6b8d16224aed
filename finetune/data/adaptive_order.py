"""A mixture that follows the model: shares of categories that change at every stretch of a run, by held-out losses.

A stretch is `every` steps. The losses after step k N set the shares of the stretch that begins at step (k + 1) N, one
stretch later: batches are read ahead of the step that learns them. Within a category the strata keep their ratio.

Exact: by the end of each stretch every stratum was seen as often as all shares so far say, to within less than two rows
(a share that falls may leave a row too many behind); rows come from one random permutation after another, as in
`Order`, and within a stretch evenly. A function of the seed, the shares so far, and the position: a job that goes on
with the shares of its log sees the very rows that it would have seen.

Source of the rule: dynamic batch loading, Sheared LLaMA, arXiv 2310.06694, algorithm 1:
w <- w exp(max(loss - reference, 0)), normalised. The published code leaves out the maximum, and mixes in 1e-4 of equal
shares; here it is as printed. Without references it is the multiplicative weights of group DRO (arXiv 1911.08731,
algorithm 1) on the losses themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from finetune.config import Adapt
from finetune.data.mixture import Order, Stratum

__all__ = ["AdaptiveOrder", "reweigh"]


def reweigh(shares: Mapping[str, float], losses: Mapping[str, float], adapt: Adapt) -> dict[str, float]:
    """Give the next shares of categories, by the rule above; its exponent is multiplied by `rate`.

    Args:
        shares: those now.
        losses: of each category, on rows that are held out.
        adapt: the rate, and reference losses; 0 where there is none.
    """
    excess = {name: max(losses[name] - adapt.reference.get(name, 0.0), 0.0) for name in shares}
    most = max(excess.values())  # taken off for the exponential's sake; it cancels
    weights = {name: share * math.exp(adapt.rate * (excess[name] - most)) for name, share in shares.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


class AdaptiveOrder(Order):
    """The row at each position, for shares that `set_shares` tells in time.

    Args:
        strata: as without adaption: their visits are the first shares.
        seed: the job's.
        stretch_rows: rows of a stretch.
        stretches: how many there are.
    """

    def __init__(self, strata: Sequence[Stratum], seed: int, stretch_rows: int, stretches: int):
        super().__init__(strata, seed)
        self.stretch_rows = stretch_rows
        self.categories = list(dict.fromkeys(stratum.category for stratum in strata))
        visits = np.array([float(stratum.visits) for stratum in strata])
        self.category_of = np.array([self.categories.index(stratum.category) for stratum in strata])
        of_category = np.bincount(self.category_of, visits)
        self.within = visits / of_category[self.category_of]
        # Shared with the processes that read ahead [stretch, category]; a stretch not told yet has the last shares.
        first = torch.from_numpy(of_category / of_category.sum())
        self.shares = first.repeat(stretches + 1, 1).share_memory_()
        self.visited = [np.zeros(len(strata), np.int64)]  # of each stratum, when a stretch begins
        self.wanted = np.zeros(len(strata))

    def set_shares(self, stretch: int, shares: Mapping[str, float]) -> None:
        """Set the shares of a stretch, before any row of it is asked for, and of those behind it."""
        self.shares[stretch:] = torch.tensor([shares[name] for name in self.categories], dtype=torch.float64)

    def shares_of(self, stretch: int) -> dict[str, float]:
        """Give the shares of a stretch."""
        return dict(zip(self.categories, self.shares[stretch].tolist(), strict=True))

    def begin(self, epoch: int) -> int:
        """Give the position at which a stretch begins."""
        return epoch * self.stretch_rows

    def _epoch_of(self, position: int) -> int:
        return position // self.stretch_rows

    def _visited(self, s: int, epochs: int) -> int:
        while len(self.visited) <= epochs:
            self._add_stretch()
        return int(self.visited[epochs][s])

    def _add_stretch(self) -> None:
        """Count the rows that the next stretch takes of each stratum: largest remainders first."""
        stretch = min(len(self.visited) - 1, len(self.shares) - 1)
        self.wanted = self.wanted + self.shares[stretch].numpy()[self.category_of] * self.within * self.stretch_rows
        left = np.maximum(self.wanted - self.visited[-1], 0)
        counts = np.floor(left).astype(np.int64)
        while missing := self.stretch_rows - int(counts.sum()):
            order = np.argsort(counts - left if missing > 0 else left - counts + 2.0 * (counts == 0), kind="stable")
            counts[order[: abs(missing)]] += 1 if missing > 0 else -1
        self.visited.append(self.visited[-1] + counts)
