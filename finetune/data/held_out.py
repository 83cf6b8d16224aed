"""Rows that are kept from training, to tell how well a model does on what it never saw.

Of each data set a share is held out, by a hash of the rows' numbers: the same rows whatever the job's seed, settings
and other data sets, so that the losses of one pool's jobs can be compared. Rows that say the same as one that is held
out are not learnt either, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.data.corpus import Corpus
from finetune.data.mixture import hashed
from finetune.data.row_scan import RowScan
from finetune.data.rows import TrainingRow
from finetune.data.tokens import RowTokenizer
from soup.errors import FinetuneError

__all__ = ["HeldOutRows", "hold_out", "training_row"]

HELD_OUT = 5  # the hash's seed: no job's, for all jobs hold out the same rows


class HeldOutRows:
    """Rows to look at a model by: `indices` of a corpus; `categories` has each row's, those of one after another."""

    def __init__(self, corpus: Corpus, indices: np.ndarray, tokens: RowTokenizer):
        named = [(corpus.data_sets[corpus.set_of(int(i))].category, int(i)) for i in indices]
        self.corpus, self.tokens = corpus, tokens
        self.indices = [i for _, i in sorted(named)]
        self.categories = [category for category, _ in sorted(named)]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, n: int) -> TrainingRow:
        return training_row(self.corpus, self.indices[n], self.tokens, n)

    def after(self, row: TrainingRow) -> TrainingRow:
        """Give the next row, for one that turned out to be bad."""
        return self[(row["position"] + 1) % len(self)]


def training_row(corpus: Corpus, i: int, tokens: RowTokenizer, position: int) -> TrainingRow:
    """Give row `i` of a corpus, ready for a `Collator`."""
    sample = corpus[i]
    segments = tokens.segments(sample["messages"])
    return {"segments": segments, "images": sample["images"], "where": sample["where"], "position": position}


def hold_out(corpus: Corpus, scan: RowScan, shares: Sequence[float]) -> tuple[list[np.ndarray], np.ndarray]:
    """Choose rows to hold out for several purposes; gives the rows of each, and which good rows are still learnt [N].

    Of a data set's n good rows a share s takes round(s n), at least one.

    Args:
        corpus: the rows of all data sets.
        scan: what is known of them.
        shares: of each purpose; no row serves two.

    Raises:
        FinetuneError: nothing would be left to learn of a data set.
    """
    chosen: list[list[np.ndarray]] = [[] for _ in shares]
    for data_set, begin, end in zip(corpus.data_sets, corpus.begins, corpus.begins[1:], strict=False):
        good = begin + np.flatnonzero(scan.good[begin:end])
        good = good[np.argsort(hashed(good - begin, HELD_OUT), kind="stable")]
        counts = [max(1, round(share * len(good))) if share else 0 for share in shares]
        if len(good) and sum(counts) >= len(good):
            raise FinetuneError(
                f"{data_set.path}: of its {len(good)} rows {sum(counts)} would be held out, and none be learnt: give "
                "it more rows, or name data sets as `validation`."
            )
        for rows, first, count in zip(chosen, np.cumsum([0, *counts]), counts, strict=False):
            rows.append(good[first : first + count])
    held = [np.concatenate(rows) if rows else np.zeros(0, np.int64) for rows in chosen]
    digests = scan.digests[np.concatenate([np.zeros(0, np.int64), *held]).astype(np.int64)]
    learnt: np.ndarray = scan.good & ~np.isin(scan.digests, digests)
    return held, learnt
