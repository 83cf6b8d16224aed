"""The rows of a run, in the order in which they are learnt."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from finetune.config import Adapt, TrainSettings
from finetune.data.adaptive_order import AdaptiveOrder
from finetune.data.corpus import Corpus
from finetune.data.held_out import HeldOutRows, hold_out, training_row
from finetune.data.mixture import Order, Stratum, manifest, strata_of
from finetune.data.packing import Packs
from finetune.data.row_scan import RowScan, RowScanner, scan_rows
from finetune.data.rows import TrainingRow
from finetune.data.tokens import RowTokenizer
from soup.errors import FinetuneError

__all__ = ["TrainingRows", "rows_to_look_at"]

log = logging.getLogger(__name__)


class TrainingRows(Dataset[TrainingRow | list[TrainingRow]]):
    """The rows of a run: item n is learnt n-th, ready for the `Collator`, from the first step to the last.

    To be read in order (`SequentialSampler`); a run that resumes at step s goes on at item
    s * global_batch_size. With packing an item is a list of rows, for a `Collator` with `packing`.

    `steps` is how many there are, `manifest` what the mixture came to, `scan` what is known of each row, `held_out` the
    rows that are not learnt, by a share of each data set as `validation`, `steering` those of `mixture.adapt`.

    Args:
        corpus: rows of all data sets.
        settings: mixture, seed, length, packing, and what happens to bad rows.
        processor: template, tokenizer and tiling.
        known: a scan of this corpus, where there is one.
        progress: called with rows looked at and rows in all.

    Raises:
        FinetuneError: bad rows, unless they are to be skipped; a mixture that can't be made.
    """

    def __init__(
        self,
        corpus: Corpus,
        settings: TrainSettings,
        processor: Any,
        *,
        known: RowScan | None = None,
        progress: Callable[[int, int], object] | None = None,
    ):
        self.corpus = corpus
        self.tokens = RowTokenizer(processor)
        self.scanner = RowScanner(processor, settings.max_length, exact=True)
        self.scan = known or scan_rows(corpus, RowScanner(processor, settings.max_length), progress=progress)
        _accept(self.scan, settings)
        adapt = settings.mixture.adapt
        purposes = [settings.validation_share, adapt.held_out if adapt else 0.0]
        (held, steering), learnt = hold_out(corpus, self.scan, purposes)
        self.held_out = HeldOutRows(corpus, held, self.tokens)
        self.steering = HeldOutRows(corpus, steering, self.tokens)
        strata = _strata(corpus, self.scan, learnt, settings)
        self.order: Order = Order(strata, settings.seed)
        left_out = _left_out(corpus, self.scan)
        self.manifest = manifest(corpus.data_sets, strata) | {"skipped": self.scan.bad, "left_out": left_out}
        # As written: 1.11 epochs of 100 rows are 111, where the float's are a little more.
        positions = math.ceil(Fraction(str(settings.epochs or 0)) * self.order.epoch_rows)
        self.packs = Packs(self.length_at, settings.max_length, end=positions) if settings.packing else None
        # Rows of the next epoch fill up the last step. Counting packs lays them all.
        items = self.packs.count() if self.packs and not settings.steps else positions
        self.steps = settings.steps or math.ceil(items / settings.global_batch_size)
        if adapt:
            _check_categories(strata, adapt)
            rows = adapt.every * settings.global_batch_size
            self.order = AdaptiveOrder(strata, settings.seed, rows, -(-self.steps // adapt.every))
        self.items = self.steps * settings.global_batch_size

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, n: int) -> TrainingRow | list[TrainingRow]:
        if not 0 <= n < self.items:
            raise IndexError(n)
        return [self.row_at(position) for position in self.packs[n]] if self.packs else self.row_at(n)

    def row_at(self, position: int) -> TrainingRow:
        """Give the row at a position."""
        return training_row(self.corpus, self.order[position], self.tokens, position)

    def after(self, row: TrainingRow) -> TrainingRow:
        """Give the row at the next position, for one that turned out to be bad."""
        return self.row_at(row["position"] + 1)

    def length_at(self, position: int) -> int:
        """Give the tokens of the row at a position; counted once, by its pictures' headers."""
        i = self.order[position]
        if not self.scan.lengths[i]:
            self.scan.lengths[i] = self.scanner.length(self.corpus[i])
        return int(self.scan.lengths[i])


def rows_to_look_at(settings: TrainSettings, processor: Any) -> HeldOutRows:
    """Give all good rows of the data sets of `validation`.

    Raises:
        FinetuneError: bad rows, unless they are to be skipped; or no good one.
    """
    corpus = Corpus(settings.validation_sets)
    scan = scan_rows(corpus, RowScanner(processor, settings.max_length))
    _accept(scan, settings)
    if not scan.good.any():
        raise FinetuneError(f"validation: {', '.join(data_set.path for data_set in corpus.data_sets)}: no good row.")
    return HeldOutRows(corpus, np.flatnonzero(scan.good), RowTokenizer(processor))


def _accept(scan: RowScan, settings: TrainSettings) -> None:
    """Raise FinetuneError for bad rows, or log those that are left out."""
    if not scan.bad:
        return
    if settings.on_bad_row == "error":
        raise FinetuneError(f"{scan.describe()}\nMend them, or leave them out with on_bad_row: skip.")
    log.warning("left out are %s", scan.describe())


def _check_categories(strata: list[Stratum], adapt: Adapt) -> None:
    """Check that there are categories to weigh against each other.

    Raises:
        FinetuneError: there is one alone, or references are of others.
    """
    names = {stratum.category for stratum in strata}
    if len(names) < 2:
        raise FinetuneError(f"mixture.adapt: all rows are of the category {min(names)}: expected two or more.")
    if unknown := sorted(adapt.reference.keys() - names):
        raise FinetuneError(f"mixture.adapt.reference: no rows are of {', '.join(unknown)}.")


def _left_out(corpus: Corpus, scan: RowScan) -> dict[str, list[int]]:
    """Return the bad rows and all rows of each data set that has bad ones, by its path."""
    ends = zip(corpus.begins, corpus.begins[1:], strict=False)
    counts = [(int((~scan.good[begin:end]).sum()), int(end - begin)) for begin, end in ends]
    paths = [data_set.path for data_set in corpus.data_sets]
    return {path: [bad, rows] for path, (bad, rows) in zip(paths, counts, strict=True) if bad}


def _strata(corpus: Corpus, scan: RowScan, learnt: np.ndarray, settings: TrainSettings) -> list[Stratum]:
    ends = zip(corpus.begins, corpus.begins[1:], strict=False)
    rows = [begin + np.flatnonzero(learnt[begin:end]) for begin, end in ends]
    return strata_of(corpus.data_sets, rows, [scan.groups[indices] for indices in rows], settings.mixture)
