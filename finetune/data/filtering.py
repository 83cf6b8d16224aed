"""The rows whose answers a model finds likeliest: a filter by perplexity.

    perplexity = exp(-(1 / N) sum_i log P(w_i | pictures, question, w_<i)), over the N tokens of the answer alone

Rows are sorted by it, ascending; equal ones by a digest of their content. So what is kept depends on what the rows
are, and neither on their order nor on how they were computed.

Source: POINTS, arXiv 2409.04828, section 3.2: a fixed request as the question, the caption as the answer, and the first
20 % kept.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import xxhash

from finetune.data.row_output import RowJournal, first_reasons, moved_row, write_lines
from finetune.data.source_rows import Exchange, SourceRows, exchange_of, picture_files, row_id
from soup.errors import FinetuneError
from soup.evaluation.answer_loss import AnswerLoss, AnswerLosses, AnswerTask
from soup.evaluation.api import Prompt

__all__ = ["FilteredRows", "KeepRule", "RowFilter", "scores_path"]

OnRows = Callable[[int, int], object]
"""Called with rows done and rows in all."""


@dataclass(frozen=True)
class KeepRule:
    """Which rows are kept: this share of those that could be scored, rounded up, or those below a perplexity."""

    share: float = 0.2
    below: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise FinetuneError(f"expected a share of rows to keep above 0 and up to 1, found {self.share}.")
        if self.below is not None and not self.below > 1:
            raise FinetuneError(f"a perplexity is above 1; found {self.below}.")

    def count(self, losses: np.ndarray) -> int:
        """Give how many are kept, from the losses of all that were scored [n], ascending."""
        if self.below is not None:
            return int(np.searchsorted(losses, math.log(self.below), side="left"))
        return math.ceil(Fraction(str(self.share)) * len(losses))  # as it was typed: 0.07 of 100 are 7


@dataclass
class FilteredRows:
    """All rows of a data set [n] after scoring. `order` are those that were scored, the likeliest first.

    losses      nats; NaN where there is none
    tokens      of each answer
    characters  of each answer
    answers     digests of answers, but for case and spaces; equal for repeated ones
    failures    why a row has no loss, by its number
    kept        how many of `order`
    """

    losses: np.ndarray
    tokens: np.ndarray
    characters: np.ndarray
    answers: np.ndarray
    ids: list[str] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    kept: int = 0

    def choose(self, rule: KeepRule) -> None:
        """Sort the rows, and count those that are kept.

        Raises:
            FinetuneError: no row could be scored.
        """
        scored = [i for i in range(len(self.losses)) if i not in self.failures]
        if not scored:
            raise FinetuneError(f"no row of {len(self.losses)} could be scored: {first_reasons(self.failures)}.")
        self.order = np.array(sorted(scored, key=lambda i: (self.losses[i], self.ids[i])), np.int64)
        self.kept = rule.count(self.losses[self.order])


def scores_path(out: Path) -> Path:
    """Give the file beside an output that holds the scores of all rows."""
    return out.with_name(f"{out.stem}.scores.jsonl")


@dataclass(frozen=True)
class RowFilter:
    """A filter of one data set into one file.

    Args:
        rows: The data set.
        out: The JSON lines that take the rows that are kept, the likeliest first.
        request: The question in place of each row's own.
        facts: What a loss depends on besides the row: the model, the libraries.
    """

    rows: SourceRows
    out: Path
    request: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)

    def journal(self) -> RowJournal:
        """Open what an earlier run scored.

        Raises:
            FinetuneError: that was by another model, or with another request.
        """
        return RowJournal(scores_path(self.out), {**self.facts, "request": self.request, **self.rows.facts})

    def run(self, losses: AnswerLosses, rule: KeepRule, progress: OnRows = lambda done, count: None) -> FilteredRows:
        """Score what is not scored yet, and write the rows that are kept, and all scores beside them.

        Args:
            losses: Computes losses.
            rule: Which rows are kept.
            progress: Called as rows are scored.

        Raises:
            FinetuneError: no row could be scored, or the scores there are of another model.
            OSError: nothing can be written.
        """
        n = len(self.rows)
        table = FilteredRows(np.full(n, np.nan), np.zeros(n, int), np.zeros(n, int), np.zeros(n, np.uint64))
        with self.journal() as journal:
            _Scoring(self, table, journal, progress).run(losses)
            table.choose(rule)
            kept = table.order[: table.kept]
            folder, columns = self.out.parent, self.rows.data_set.columns
            write_lines(self.out, (moved_row(self.rows.raw(int(i)), self.rows.root, folder, columns) for i in kept))
            journal.replace(self._score_lines(table))
        return table

    def exchange(self, i: int, raw: dict[str, object] | None = None) -> Exchange:
        """Give row `i` as it is scored.

        Raises:
            RowError: it is none that can be scored.
        """
        exchange = exchange_of(self.rows.sample(i, raw))
        if self.request is None:
            return exchange
        pictures = (None,) * len(exchange.pictures)
        return Exchange((*pictures, self.request), exchange.pictures, exchange.answer)

    def _score_lines(self, table: FilteredRows) -> Iterator[Mapping[str, object]]:
        kept = set(table.order[: table.kept].tolist())
        for i, identity in enumerate(table.ids):
            line: dict[str, object] = {"id": identity, "row": i, "where": self.rows.where(i)}
            if i in table.failures:
                yield {**line, "failure": table.failures[i]}
                continue
            loss = float(table.losses[i])
            shown = {"perplexity": math.exp(loss) if loss < 700 else None, "loss": loss}
            counts = {"tokens": int(table.tokens[i]), "characters": int(table.characters[i])}
            yield {**line, **shown, **counts, "kept": i in kept}


class _Scoring:
    """The pass over all rows: what is known is taken, what is not is asked for, and kept as it comes."""

    def __init__(self, task: RowFilter, table: FilteredRows, journal: RowJournal, progress: OnRows):
        self.task, self.table, self.journal, self.progress = task, table, journal, progress
        self.done = 0
        self.files: dict[int, ExitStack] = {}
        self.twins: dict[str, list[int]] = {}  # rows of the same content, which are computed once

    def run(self, losses: AnswerLosses) -> None:
        """Fill the table."""
        with tempfile.TemporaryDirectory(prefix="soup-filter-") as folder:
            try:
                for outcome in losses(self._tasks(Path(folder))):
                    self._take(outcome)
            finally:
                for files in self.files.values():
                    files.close()

    def _tasks(self, folder: Path) -> Iterator[AnswerTask]:
        for i in range(len(self.task.rows)):
            identity = f"row {i}"
            try:
                raw = self.task.rows.raw(i)
                identity = row_id(raw)
                exchange = self.task.exchange(i, raw)
                self._measure(i, exchange.answer)
                prompt = None if self._is_known(i, identity) else self._prompt(i, exchange, folder)
            except FinetuneError as error:  # of this row
                self._fail(i, self.task.rows.reason(i, error))
                prompt = None
            self.table.ids.append(identity)
            if prompt is not None:
                self.twins[identity] = [i]
                yield AnswerTask(i, prompt, exchange.answer, self.task.rows.where(i))

    def _measure(self, i: int, answer: str) -> None:
        words = " ".join(answer.lower().split())
        self.table.characters[i], self.table.answers[i] = len(answer), xxhash.xxh3_64_intdigest(words.encode())

    def _is_known(self, i: int, identity: str) -> bool:
        """Take what was computed already, or wait for what is about to be."""
        if identity in self.twins:
            self.twins[identity].append(i)
            return True
        row = self.journal.rows.get(identity, {})
        loss, tokens = row.get("loss"), row.get("tokens")
        if isinstance(loss, float) and isinstance(tokens, int):
            self._fill(i, loss, tokens)
            return True
        return False

    def _prompt(self, i: int, exchange: Exchange, folder: Path) -> Prompt:
        files = ExitStack()
        paths = iter(files.enter_context(picture_files(exchange.pictures, folder, str(i))))
        self.files[i] = files
        return [
            {"type": "image", "value": next(paths)} if part is None else {"type": "text", "value": part}
            for part in exchange.parts
        ]

    def _take(self, outcome: AnswerLoss) -> None:
        self.files.pop(outcome.index).close()
        identity = self.table.ids[outcome.index]
        failed = {"failure": outcome.failure}
        self.journal.add(identity, failed if outcome.failure else {"loss": outcome.loss, "tokens": outcome.tokens})
        for i in self.twins.pop(identity):
            if outcome.failure:
                self._fail(i, outcome.failure)
            else:
                self._fill(i, outcome.loss, outcome.tokens)

    def _fill(self, i: int, loss: float, tokens: int) -> None:
        self.table.losses[i], self.table.tokens[i] = loss, tokens
        self._advance()

    def _fail(self, i: int, reason: str) -> None:
        self.table.failures[i] = reason
        self._advance()

    def _advance(self) -> None:
        self.done += 1
        self.progress(self.done, len(self.task.rows))
