"""Tables that fit: what is too wide is cut, what there is no room for is hidden, and that is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from soup.support.text import printable

__all__ = ["Row", "cut", "fit_rows", "fit_table", "plain", "short_names"]

GAP = 2
"""Blanks between two columns."""

LEAST_LABEL = 16
"""A first column is never cut below this for the sake of others."""

LEAST_CELL = 6
"""Nor is a head cut below this: `~61.20` is as wide."""


def short_names(names: Sequence[str]) -> list[str]:
    """Return the last parts of names such as `python:mine.py:score`, where they tell them apart."""
    last = ["" if " " in name else name.rpartition(":")[2] for name in names]  # a shell's command has no last part
    return [part if part and last.count(part) == 1 else name for part, name in zip(last, names, strict=True)]


def plain(text: str, width: int) -> Text:
    """Return a text as a line of so many cells at most, in which nothing is markup."""
    return Text(cut(text, width), no_wrap=True, overflow="crop")


@dataclass(frozen=True)
class Row:
    """A row: its texts, how much it matters where not all rows have room, and whether it stands out."""

    texts: Sequence[str]
    importance: int = 0
    is_bold: bool = False


def cut(text: str, width: int) -> str:
    """Return a text in one line of so many cells at most, cut in the middle: both ends tell names apart."""
    text = printable(text)
    if cell_len(text) <= width:
        return text
    if width < 8:
        return set_cell_size(text, max(width, 0)).rstrip()
    tail = (width - 3) // 2
    end = text[-tail:]
    while cell_len(end) > tail:
        end = end[1:]
    return f"{set_cell_size(text, width - 3 - cell_len(end)).rstrip()}...{end}"


def fit_rows(rows: Sequence[Row], most: int) -> list[int]:
    """Return the indices of the rows that have room, in their order; where not all have, those that matter most."""
    ranked = sorted(range(len(rows)), key=lambda index: -rows[index].importance)
    return sorted(ranked[: max(1, most)])


def fit_table(
    head: Sequence[str], rows: Sequence[Row], width: int, *, kept: int = 0, right: bool = True
) -> tuple[list[Text], list[str]]:
    """Return a table's lines, none wider than `width`, and the heads of the columns that have no room.

    Args:
        head: The columns' names, the first over the labels.
        rows: What stands below.
        width: In cells.
        kept: So many columns at the end are never hidden, nor are their heads cut.
        right: Whether columns but the first are flushed right, as numbers are.
    """
    texts = [[printable(text) for text in row.texts] for row in rows]
    cells = [max([0, *(cell_len(row[i]) for row in texts)]) for i in range(len(head))]
    labels = max(1, cells[0], cell_len(head[0]))
    wanted = [max(cell, cell_len(name)) for name, cell in zip(head, cells, strict=True)][1:]
    least = [max(cell, min(cell_len(name), LEAST_CELL)) for name, cell in zip(head, cells, strict=True)][1:]
    least[len(least) - kept :] = wanted[len(least) - kept :]
    shown = _columns_with_room(least, width - min(labels, LEAST_LABEL), kept)
    room = width - sum(GAP + least[i] for i in shown)
    label_width = max(1, min(labels, room))
    widths = _widen({i: least[i] for i in shown}, wanted, room - label_width)

    def line(texts: Sequence[str], style: str) -> Text:
        first = cut(texts[0], label_width)
        parts = [first + " " * (label_width - cell_len(first))]
        for i, cell_width in widths.items():
            text = cut(texts[i + 1], cell_width)
            blanks = " " * (cell_width - cell_len(text))
            parts.append(blanks + text if right else text + blanks)
        return Text((" " * GAP).join(parts).rstrip(), style, no_wrap=True, overflow="crop")

    lines = [line([printable(name) for name in head], "bold")]
    lines += [line(row, "bold" if each.is_bold else "") for row, each in zip(texts, rows, strict=True)]
    return lines, [head[i + 1] for i in range(len(least)) if i not in shown]


def _columns_with_room(least: Sequence[int], room: int, kept: int) -> list[int]:
    """Return the indices of the columns that have room, those at the end before the others."""
    first_kept = len(least) - kept
    shown = list(range(first_kept, len(least)))
    left = room - sum(GAP + least[i] for i in shown)
    for i in range(first_kept):
        left -= GAP + least[i]
        if left < 0:
            break
        shown.append(i)
    return sorted(shown)


def _widen(widths: dict[int, int], wanted: Sequence[int], room: int) -> dict[int, int]:
    """Give room that is left to columns whose heads are cut, a cell at a time."""

    def is_wide(i: int) -> bool:
        return widths[i] >= wanted[i]

    while room > 0 and not all(map(is_wide, widths)):
        for i in widths:
            if room > 0 and not is_wide(i):
                widths[i], room = widths[i] + 1, room - 1
    return widths
