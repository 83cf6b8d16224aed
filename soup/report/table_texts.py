"""A table of scores as text to paste: CSV with all digits, or Markdown."""

from __future__ import annotations

import csv
import io

from soup.report.tables import ShownTable
from soup.support.text import markdown_table, markdown_text

__all__ = ["as_csv", "as_markdown"]

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A cell of text that begins with one of these is a formula to a spreadsheet: an apostrophe goes before it."""


def as_csv(table: ShownTable) -> str:
    """Return a line for each row; estimates are listed in a column of their own, if there are any."""
    marked = any(row.estimated for row in table.rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, ["model", *table.columns, "remark", *(["estimated"] if marked else [])]))
    for row in table.rows:
        estimated = [", ".join(table.columns[index] for index in sorted(row.estimated))] if marked else []
        values = ["" if value is None else repr(value) for value in row.values]
        writer.writerow([_cell(row.label), *values, *map(_cell, [row.remark, *estimated])])
    return text.getvalue()


def as_markdown(table: ShownTable, label: str = "model", remark: str = "remark") -> str:
    """Return a Markdown table with two digits; an estimate stands after a tilde.

    Args:
        table: The table.
        label: The title of its first column.
        remark: The title of its last.
    """
    rows = [[markdown_text(row.label), *row.texts, markdown_text(row.remark)] for row in table.rows]
    return markdown_table([label, *table.columns, remark], rows, range(1, 1 + len(table.columns)))


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
