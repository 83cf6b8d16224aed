"""What the command line prints: tables and JSON on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from soup.board.board import Board
from soup.cli.options import Values
from soup.support.text import format_bytes, format_duration, printable

# Commands that only print, such as a launcher that waits for days, need no torch for it.
if TYPE_CHECKING:
    from soup.report.moves import Moves
    from soup.report.pool_distances import PoolDistances
    from soup.report.sweep_result import Sweep
    from soup.report.tables import ShownTable

__all__ = [
    "cell",
    "open_board",
    "print_distances",
    "print_json",
    "print_line",
    "print_moves",
    "print_plan",
    "print_rows",
    "print_sweep",
    "print_table",
    "show_plan",
]

NARROWEST_TEXT = 8
GAP = 2
"""Blanks for each column, beside its width."""
MOST_LISTED = 40
"""So many values of a list are shown; of a longer one the first half of that, and the last."""


@contextmanager
def open_board(values: Values) -> Iterator[Board]:
    """Return the board of a command, for the time of a `with`, as loud as was asked for.

    Within it stdout is stderr: whatever a user's own code or a harness prints, the answer stands alone on stdout.
    """
    with redirect_stdout(sys.stderr), Board(quiet=values["quiet"], verbose=values["verbose"]) as board:
        yield board


def print_table(table: ShownTable, first: str) -> None:
    """Print a table of scores on stdout; `first` heads the column of labels."""
    rows = [[row.label, *row.texts, row.remark] for row in table.rows]
    print_rows([first, *table.columns, ""], rows, right=range(1, len(table.columns) + 1))


def print_distances(distances: PoolDistances) -> None:
    """Print where each ingredient stands: the length of its delta in each component, the nearest other, a verdict."""
    components = list(distances.ingredients[0].by_component)
    head = ["ingredient", f"|delta| / |{distances.reference}|", *components, "moved", "nearest", "cosine", ""]
    rows = []
    for row in distances.ingredients:
        name, cosine = row.nearest or ("", None)
        shares = [_share(row.by_component[component]) for component in components]
        nearest = [name, "" if cosine is None else f"{cosine:z.3f}"]
        rows.append([row.name, _share(row.norm), *shares, f"{row.moved:.1%}", *nearest, row.verdict])
    print_rows(head, rows, right=[*range(1, len(components) + 3), len(components) + 4])
    if distances.frozen:
        print_line(f"frozen in all: {', '.join(distances.frozen)}")


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.4f}"


def print_moves(moves: Moves, most: int) -> None:
    """Print how far each component is from the base's, and then each block; at most so many rows of each."""
    head = ["|delta| / |base|", "tensors moved", "elements moved"]
    for title, parts in (("component", moves.components), ("block, from 0", moves.blocks)):
        rows = [
            [
                part.component if part.block is None else f"{part.component} {part.block} of {part.blocks}",
                _share(part.norm),
                f"{part.tensors_moved:,} of {part.tensors:,}",
                f"{part.moved:.1%}",
            ]
            for part in parts
        ]
        if rows:
            print_rows([title, *head], rows, right=range(1, 4), most=most)


def print_sweep(sweep: Sweep) -> None:
    """Print the scores along a line, a row for each point, and each barrier with its place."""
    first, losses = sweep.points[0].trial, [*sweep.points[0].losses]
    silent = [*sweep.no_loss]
    head = ["t", *first.scores, "overall", *(["report overall"] if first.report else [])]
    head += [f"{name} loss" for name in (*losses, *silent)]
    rows = []
    for point in sweep.points:
        trial = point.trial
        values = [*(score.value for score in trial.scores.values()), trial.overall]
        values += [] if trial.report_overall is None else [trial.report_overall]
        cells = [*(f"{value:.2f}" for value in values), *(f"{point.losses[name]:.4f}" for name in losses)]
        name = {0.0: sweep.names[0], 1.0: sweep.names[1]}.get(point.t, "")
        rows.append([f"{point.t:.3f}", *cells, *("-" for _ in silent), name])
    print_rows([*head, ""], rows, right=range(len(head)))
    for name, barrier in sweep.barriers.items():
        where = f" at t = {barrier.t:.3f}" if barrier.height else ""
        print_line(f"{name}: the largest dip below the line between both is {barrier.height:.2f}{where}")
    for name, barrier in sweep.loss_barriers.items():
        where = f" at t = {barrier.t:.3f}" if barrier.height else ""
        print_line(f"{name}: the largest rise of the loss above that line is {barrier.height:.4f}{where}")
    for reason in dict.fromkeys(sweep.no_loss.values()):
        names = [name for name in silent if sweep.no_loss[name] == reason]
        print_line(f"{', '.join(names)}: no loss, for {reason}")


def print_rows(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] | range = (), most: int | None = None
) -> None:
    """Print rows of text as a table on stdout.

    Args:
        head: The names of the columns.
        rows: The cells below.
        right: The numbers of the columns that are flushed right, as those of figures are.
        most: Rows beyond so many are only counted; None: all are printed.
    """
    if most is not None and len(rows) > most:
        print_rows(head, rows[:most], right)
        print_line(f"... and {len(rows) - most} more (--json has all)")
        return
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=240)
    columns = [[printable(row[i]) for row in (head, *rows)] for i in range(len(head))]
    least = [_narrowest(i in right, columns[i], console.is_terminal) for i in range(len(head))]
    widths = _widths([max(map(cell_len, column)) for column in columns], least, console.width - GAP * len(head))
    console.width = sum(widths) + GAP * len(head)  # maybe beyond the terminal's, which folds: nothing is cut off
    with console.capture() as capture:
        console.print(_table(head, rows, right, widths))
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _narrowest(is_number: bool, texts: Sequence[str], is_terminal: bool) -> int:
    """Return how narrow a column may become: numbers stay whole, and words where no terminal asks for less.

    Args:
        is_number: Whether cells are numbers, whose head may be folded.
        texts: The head, and the cells below.
        is_terminal: Whether somebody looks at it; a file is searched for names.
    """
    parts = texts[1:] if is_number else [word for text in texts for word in text.split()]
    width = max(map(cell_len, parts), default=1)
    return min(width, NARROWEST_TEXT) if is_terminal and not is_number else width


def _widths(wanted: Sequence[int], least: Sequence[int], available: int) -> list[int]:
    """Return the widths of columns: the widest give way where all are too wide; what is left goes to the first."""
    for most in range(max(wanted), 0, -1):
        widths = [max(least[i], min(wanted[i], most)) for i in range(len(wanted))]
        if sum(widths) <= available:
            break
    for i in range(len(widths)):
        widths[i] += max(0, min(wanted[i] - widths[i], available - sum(widths)))
    return widths


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] | range, widths: Sequence[int]
) -> Table:
    """Lay rows out, in columns of these widths."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(head):
        side: Literal["left", "right"] = "right" if i in right else "left"
        shown.add_column(_plain(name), justify=side, overflow="fold", width=widths[i])
    for row in rows:
        shown.add_row(*map(_plain, row))
    return shown


def _plain(text: str, keep: str = "") -> str:
    """Escape what a terminal or rich would act on."""
    return escape(printable(text, keep))


def print_line(text: str, keep: str = "") -> None:
    """Print one line on stdout, or more where `keep` is the line's end; what a terminal would act on is escaped."""
    click.echo(printable(text, keep))


def print_json(document: Mapping[str, object]) -> None:
    """Print one JSON document on stdout."""
    print_line(json.dumps(document, indent=2, ensure_ascii=False), keep="\n")  # whose escapes are JSON's, too


def print_plan(plan: Mapping[str, object], *, as_json: bool) -> None:
    """Print what a command would do, on stdout: as one JSON document, or as a table in words."""
    if as_json:
        print_json(plan)
        return
    rows = [_plan_row(key, value) for key, value in plan.items() if key not in ("schema", "warnings")]
    print_rows(["plan", ""], rows)


def _plan_row(key: str, value: object) -> list[str]:
    """Return the words of a plan's key, and its value with the unit that the key has for its suffix."""
    name, _, suffix = key.rpartition("_")
    if suffix == "bytes" and isinstance(value, int):
        return [_words(name), format_bytes(value)]
    if suffix == "seconds" and isinstance(value, float):
        return [_words(name), f"about {format_duration(value)}"]
    if suffix == "about" and isinstance(value, int | float):
        return [_words(name), f"about {value:,}"]
    return [_words(key), cell(value)]


def _words(key: str) -> str:
    return key.replace("_", " ")


def show_plan(values: Values, make_plan: Callable[[], Mapping[str, Any]]) -> None:
    """Make a command's plan and print it; its `warnings` are told on stderr, as the command itself tells them."""
    with open_board(values) as board:
        plan = make_plan()
        for text in plan["warnings"]:
            board.warn(text)
    print_plan(plan, as_json=values["as_json"])


def cell(value: object) -> str:
    """Return a value as a table shows it: `yes` and `no`, lists by commas and cut if long, nothing for None."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items())
    if not isinstance(value, list | tuple):
        return str(value)
    if len(value) <= MOST_LISTED:
        return ", ".join(map(cell, value))
    return f"{', '.join(map(cell, value[: MOST_LISTED // 2]))}, ..., {cell(value[-1])} ({len(value):,}; --json has all)"
