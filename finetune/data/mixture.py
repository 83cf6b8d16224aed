"""Which row comes when: how often an epoch sees each row, and an order that mixes all kinds into each batch.

What the weights mean. Each row has a rate, how often an epoch sees it on average:

1. A data set's `weight` is the rate of its rows.
2. `categories: {math: 0.5}`: the rates of all rows of math are multiplied by one factor, so that an epoch, and each
   batch of it, holds 0.5 rows of math for each row of `general`. Categories that are not named keep their rates.
3. `groups: {single_image: 0.8, ...}`: the rates of each group's rows are multiplied by one factor, so that the groups
   have these shares of an epoch, and of each batch; the epoch stays as long as it was. A group that is not named has
   the share 0. A row with one video counts among those with several images.

Groups come last: where a category's rows are spread over the groups otherwise than those of `general`, step 3
moves the ratio of step 2. To have MM1.5's mixture, whose categories are ratios among rows with one image, give data
sets of several images and of text a category of their own that `categories` does not name.

Source: MM1.5, arXiv 2409.20566, sections 3.2 (a category's ratio to general, in each batch) and 3.3 (groups).

The rows of a data set are a stratum, or, with `groups`, those of them in one group; all have one rate. A stratum of n
rows with the rate r is seen floor or ceil(r n) times in every epoch, and within one of E r n times in the first E
epochs. It takes its rows from one random permutation after another: at the rate 0.5 the second epoch sees the half that
the first one did not. Within an epoch each stratum's visits are spread evenly, each at a random time in its stretch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np

from finetune.config import DataSet, Mixture
from soup.errors import FinetuneError
from soup.support.text import bullet_list, did_you_mean

__all__ = ["GROUPS", "Order", "Stratum", "hashed", "manifest", "strata_of"]

Group = Literal["text_only", "single_image", "several_images"]
GROUPS: tuple[Group, ...] = ("text_only", "single_image", "several_images")
GENERAL = "general"


@dataclass(frozen=True)
class Stratum:
    """Rows that are seen equally often: `rows` are their indices, `rate` is how often an epoch sees each.

    `groups` counts the rows in each of `GROUPS`.
    """

    data_set: int
    category: str
    groups: tuple[int, ...]
    rows: np.ndarray
    rate: Fraction

    @property
    def visits(self) -> Fraction:
        """Rows that an epoch takes from here, on average."""
        return self.rate * len(self.rows)


def strata_of(
    data_sets: Sequence[DataSet], rows: Sequence[np.ndarray], groups: Sequence[np.ndarray], mixture: Mixture
) -> list[Stratum]:
    """Give the strata of data sets, their rates by the rules above.

    Args:
        data_sets: with `weight` and `category`.
        rows: of each data set, the indices of the rows that may be seen.
        groups: of each data set, the indices in `GROUPS` of these rows.
        mixture: categories and groups.

    Raises:
        FinetuneError: a category or group without rows, nothing left of all rows; all that is wrong is listed.
    """
    strata = []
    for i, (data_set, indices, kinds) in enumerate(zip(data_sets, rows, groups, strict=True)):
        masks = [kinds == group for group in range(len(GROUPS))] if mixture.groups else [np.ones(len(indices), bool)]
        for mask in masks:
            counts = tuple(np.bincount(kinds[mask], minlength=len(GROUPS)).tolist())
            strata.append(Stratum(i, data_set.category, counts, indices[mask], Fraction(str(data_set.weight))))
    strata = [stratum for stratum in strata if len(stratum.rows)]
    faults = _unknown(strata, mixture)
    if not strata:
        faults.append("no rows at all")
    if faults:
        raise FinetuneError(f"the mixture can't be made:\n{bullet_list(faults)}")
    strata = _by_group(_by_category(strata, mixture.categories), mixture.groups)
    return [stratum for stratum in strata if stratum.rate]


def _unknown(strata: list[Stratum], mixture: Mixture) -> list[str]:
    """Categories and groups that have a weight, but no rows."""
    categories = {stratum.category for stratum in strata}
    groups = {group for stratum in strata for group, n in zip(GROUPS, stratum.groups, strict=True) if n}
    faults = [
        f"categories.{name}: no data set with rows has this category.{did_you_mean(name, categories)}"
        for name in mixture.categories
        if name not in categories
    ]
    if mixture.categories and GENERAL not in categories:
        faults.append("categories: they are ratios to general, and no data set with rows has that category")
    if mixture.categories.get(GENERAL, 1) != 1:
        faults.append(f"categories.general: its ratio to itself is 1, found {mixture.categories[GENERAL]:g}")
    faults += [f"groups.{name}: no rows" for name, share in mixture.groups.items() if share and name not in groups]
    return faults


def _by_category(strata: list[Stratum], ratios: dict[str, float]) -> list[Stratum]:
    """Step 2: each category's visits become its ratio times those of general."""
    general = _visits(stratum for stratum in strata if stratum.category == GENERAL)
    for name, ratio in ratios.items():
        factor = Fraction(str(ratio)) * general / _visits(stratum for stratum in strata if stratum.category == name)
        strata = [_faster(stratum, factor) if stratum.category == name else stratum for stratum in strata]
    return strata


def _by_group(strata: list[Stratum], shares: Mapping[Group, float]) -> list[Stratum]:
    """Step 3: each group's visits become its share of all."""
    if not shares:
        return strata
    total, whole = _visits(strata), sum(Fraction(str(share)) for share in shares.values())
    targets = {group: Fraction(str(shares.get(group, 0))) / whole * total for group in GROUPS}
    now = {group: _visits(stratum for stratum in strata if _group(stratum) == group) for group in GROUPS}
    short = [f"groups.{group}: no rows are left of it" for group in GROUPS if targets[group] and not now[group]]
    if short:
        raise FinetuneError(f"the mixture can't be made:\n{bullet_list(short)}")
    return [_faster(stratum, targets[_group(stratum)] / (now[_group(stratum)] or 1)) for stratum in strata]


def _group(stratum: Stratum) -> Group:
    """Return the group of a stratum whose rows are all of one."""
    return GROUPS[int(np.argmax(stratum.groups))]


def _faster(stratum: Stratum, factor: Fraction) -> Stratum:
    return replace(stratum, rate=stratum.rate * factor)


def _visits(strata: Iterable[Stratum]) -> Fraction:
    return sum((stratum.visits for stratum in strata), Fraction(0))


def manifest(data_sets: Sequence[DataSet], strata: Sequence[Stratum]) -> dict[str, object]:
    """Give the mixture in numbers, for logs: `rows` and rows an `epoch` of each data set, category and group."""

    def count(some: Iterable[Stratum]) -> dict[str, float]:
        some = list(some)
        return {"rows": sum(len(stratum.rows) for stratum in some), "epoch": round(float(_visits(some)), 2)}

    def count_group(g: int) -> dict[str, float]:
        epoch = sum(stratum.rate * stratum.groups[g] for stratum in strata)
        return {"rows": sum(stratum.groups[g] for stratum in strata), "epoch": round(float(epoch), 2)}

    categories = dict.fromkeys(stratum.category for stratum in strata)
    return {
        "data_sets": [
            {"path": data_set.path, **count(stratum for stratum in strata if stratum.data_set == i)}
            for i, data_set in enumerate(data_sets)
        ],
        "categories": {name: count(stratum for stratum in strata if stratum.category == name) for name in categories},
        "groups": {name: count_group(g) for g, name in enumerate(GROUPS) if any(s.groups[g] for s in strata)},
        **count(strata),
    }


class Order:
    """The row at each position of a run, for ever: a function of seed and position, so that nothing needs resuming.

    Two epochs are kept, one integer for each of their positions: a window of packs may lie across their border.
    """

    def __init__(self, strata: Sequence[Stratum], seed: int):
        self.strata, self.seed = tuple(strata), seed
        self.epoch_rows = sum((stratum.visits for stratum in self.strata), Fraction(0))
        if not self.epoch_rows:
            raise FinetuneError("the mixture has no rows: expected a weight above 0 on some of them.")
        self.kept: list[tuple[int, np.ndarray]] = []

    def __getitem__(self, position: int) -> int:
        """Give the index of the row at a position, which is any whole number from 0."""
        if position < 0:
            raise IndexError(position)
        for first, rows in self.kept:
            if first <= position < first + len(rows):
                return int(rows[position - first])
        epoch = self._epoch_of(position)
        self.kept = [(self.begin(epoch), self.of_epoch(epoch)), *self.kept[:1]]
        return self[position]

    def begin(self, epoch: int) -> int:
        """Give the position at which an epoch begins."""
        return sum(self._visited(s, epoch) for s in range(len(self.strata)))

    def of_epoch(self, epoch: int) -> np.ndarray:
        """Give all rows of an epoch, in order."""
        rows, times = [], []
        for s in range(len(self.strata)):
            rows.append(self._rows(s, self._visited(s, epoch), self._visited(s, epoch + 1)))
            times.append(self._times(s, epoch, len(rows[-1])))
        return np.concatenate(rows)[np.argsort(np.concatenate(times), kind="stable")]

    def _epoch_of(self, position: int) -> int:
        # Epochs differ in length by the strata's fractions of a row: the guess is at most a few epochs off.
        epoch = max(0, int(position / self.epoch_rows))
        while self.begin(epoch) > position:
            epoch -= 1
        while self.begin(epoch + 1) <= position:
            epoch += 1
        return epoch

    def _visited(self, s: int, epochs: int) -> int:
        """Rows that the first so many epochs take from a stratum: floor(epochs r n + phase), a phase for each."""
        visits = self.strata[s].visits
        if visits.denominator == 1:
            return epochs * int(visits)
        phase = Fraction(int(hashed(np.arange(1), self.seed, s, 1)[0] >> np.uint64(32)), 2**32)
        return int(epochs * visits + phase)

    def _rows(self, s: int, begin: int, end: int) -> np.ndarray:
        """Return the rows of a stratum at its visits from `begin` to `end`."""
        rows = self.strata[s].rows
        n = len(rows)
        passes = range(begin // n, -(-end // n))
        shuffled = [rows[np.argsort(hashed(np.arange(n), self.seed, s, 2, k), kind="stable")] for k in passes]
        if not shuffled:
            return np.zeros(0, np.int64)
        return np.concatenate(shuffled)[begin - passes.start * n : end - passes.start * n]

    def _times(self, s: int, epoch: int, n: int) -> np.ndarray:
        """When each of a stratum's n visits comes: one in each n-th part of the epoch."""
        inside = hashed(np.arange(n), self.seed, s, 3, epoch) / 2.0**64
        return (np.arange(n) + inside) / max(1, n)


def hashed(numbers: np.ndarray, *seeds: int) -> np.ndarray:
    """Give a random 64-bit integer for each number and seeds: the same on every machine and release of numpy.

    Source: splitmix64, Steele, Lea and Flood, OOPSLA 2014, figure 13.
    """
    state = np.full(1, 0, np.uint64)
    with np.errstate(over="ignore"):
        for seed in seeds:
            state = _mixed(state + np.uint64(seed % 2**64))
        return _mixed(state + numbers.astype(np.uint64))


def _mixed(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
