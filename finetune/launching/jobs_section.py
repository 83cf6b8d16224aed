"""The jobs of a pool on the board: how far each is, and when it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.text import Text

from finetune.jobs import JobStatus
from finetune.launching.status import HEAD, JobRow, cells
from soup.board.layout import Row, fit_rows, fit_table, plain
from soup.support.text import format_duration

__all__ = ["JobsSection"]

URGENT = (JobStatus.RUNNING, JobStatus.FAILED, JobStatus.LOST, JobStatus.STOPPED, JobStatus.WAITING)
"""Shown first where there are few lines; then those that are done."""


@dataclass(frozen=True)
class JobsSection:
    """All jobs as they are now."""

    rows: Sequence[JobRow]

    def lines(self, width: int, height: int) -> list[Text]:
        """Return a line for each job, logs left out: what runs first, then what failed, and a line for the rest."""
        head, rows = f"{self._counts(self.rows)}{self._left()}", []
        for row in self.rows:
            importance = len(URGENT) - URGENT.index(row.state) if row.state in URGENT else 0
            rows.append(Row(cells(row)[:-1], importance))
        lines, hidden_columns = fit_table(HEAD[:-1], rows, width, kept=1, right=False)
        shown = list(range(len(rows))) if len(rows) <= height - 2 else fit_rows(rows, height - 3)
        hidden = [row for i, row in enumerate(self.rows) if i not in shown]
        below = [plain(f"... {len(hidden)} more: {self._counts(hidden)}", width)] if hidden else []
        columns = f" (not shown: {', '.join(hidden_columns)})" if hidden_columns else ""
        return [plain(f"{head}{columns}", width), lines[0], *(lines[1 + i] for i in shown), *below][:height]

    def line(self) -> str:
        """Return how many jobs are how far, and the first of those that run; nothing where none does."""
        running = [row for row in self.rows if row.state == JobStatus.RUNNING]
        steps = [f"{row.name} {row.step}/{row.steps or '?'}" for row in running[:3]]
        more = [f"and {len(running) - 3} more"] if len(running) > 3 else []
        return f"{self._counts(self.rows)}{self._left()}: {', '.join([*steps, *more])}" if running else ""

    @staticmethod
    def _counts(rows: Sequence[JobRow]) -> str:
        return ", ".join(f"{count} {state}" for state, count in Counter(row.state for row in rows).items())

    def _left(self) -> str:
        """Say when all are done: those that wait are taken for as fast as the others, as many at a time as now."""
        running = [row.left_seconds for row in self.rows if row.left_seconds is not None]
        speeds = [row.seconds_per_step for row in self.rows if row.seconds_per_step]
        waiting = [row for row in self.rows if row.state in (JobStatus.WAITING, JobStatus.NOT_STARTED)]
        if not running:
            return ""
        if not all(row.steps for row in waiting):  # epochs, whose steps are known when a job begins
            return f", about {format_duration(max(running))} left for those that run"
        later = sum((row.steps - row.step) * fmean(speeds) for row in waiting)
        return f", about {format_duration(max(max(running), (sum(running) + later) / len(running)))} left"
