"""A study on the board: what is done now, and the results so far, a column for each seed."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from finetune.study.table import StudyTable
from soup.board.layout import Row, fit_rows, fit_table, plain

__all__ = ["StudySection"]


@dataclass
class StudySection:
    """What is known of a study: what it is at, in words, and its table so far."""

    stage: str = ""
    table: StudyTable | None = None

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the stage and the table; the results that came last are shown first."""
        stage = [plain(self.stage, width)]
        if self.table is None or not self.table.ways:
            return stage
        scores = self.table.table()
        rows = [Row([row.label, *row.texts], number) for number, row in enumerate(scores.rows)]
        lines, hidden_columns = fit_table(["overall", *scores.columns], rows, width)
        said = [f"{len(hidden_columns)} more columns"] if hidden_columns else []
        shown = list(range(len(rows)))
        if len(rows) > height - 2 - len(said):
            shown = fit_rows(rows, height - 3)
            said.insert(0, f"{len(rows) - len(shown)} more results")
        below = [plain(f"... {'; '.join(said)}", width)] if said else []
        return [*stage, lines[0], *(lines[1 + i] for i in shown), *below][:height]

    def line(self) -> str:
        """Return what is done now."""
        return self.stage
