"""What the command line prints: tables and JSON on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table as RichTable

from soup.checkpoints.hub_downloads import listening_to_downloads
from soup.cli.evaluations import Evaluations, Heartbeat, describe_evaluation
from soup.support.text import format_bytes, format_duration, printable

# Commands that only print, such as a launcher that waits for days, need no torch for it.
if TYPE_CHECKING:
    from soup.evaluation.api import Benchmark
    from soup.evaluation.pace import Pace
    from soup.evaluation.progress import Progress
    from soup.evaluation.trial import Trial
    from soup.merging.recipe import Recipe
    from soup.report.moves import Moves
    from soup.report.pool_distances import PoolDistances
    from soup.report.sweep import Sweep
    from soup.report.tables import ScoreTable

PLAIN_SECONDS = 60.0  # between two lines of one training job where there is no terminal

__all__ = [
    "Console",
    "cell",
    "print_json",
    "print_line",
    "print_moves",
    "print_plan",
    "print_rows",
    "print_sweep",
    "print_table",
]


class Console:
    """Progress on a terminal, plain lines elsewhere; always on stderr. A context manager around the work.

    Within it stdout is stderr: whatever a user's own code or a harness prints, the answer stands alone on stdout.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = RichConsole(stderr=True, quiet=quiet, highlight=False, soft_wrap=not sys.stderr.isatty())
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = RichProgress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task: Any = None
        self._evaluating = ""
        self._evaluations = Evaluations(lambda: time.monotonic())
        self._clocks: dict[str, Any] = {}
        bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
        self._steps = RichProgress(
            *bars, TimeRemainingColumn(), console=self._console, disable=not self._console.is_terminal
        )
        self._clock = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        # One live area for all: rich allows no second one.
        self._board = _Board()
        parts = Group(self._bar, self._steps, self._clock, self._board)
        self._live = Live(parts, console=self._console, transient=True)
        self._jobs: dict[str, Any] = {}
        self._downloads: dict[str, Any] = {}
        self._spoken: dict[str, float] = {}
        self._heartbeat = Heartbeat(PLAIN_SECONDS, self._beat)
        self._around = ExitStack()

    @property
    def progress(self) -> Progress:
        """What `cook` and its like are given."""
        from soup.evaluation.progress import Progress

        return Progress(
            on_warning=self.warn,
            on_budget=self.show_budget,
            on_hint=self.say,
            on_pace=self.show_pace,
            on_start=self.show_start,
            on_end=self.show_end,
            on_answers=self.show_answers,
            on_worker_answers=self.show_worker_answers,
            on_trial=self.show_trial,
            on_phase=self.start_phase,
            on_bytes=self.advance,
        )

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(printable(text, keep="\n"), markup=False)

    def warn(self, text: str) -> None:
        """Print a remark that stops nothing."""
        self._console.print(f"[yellow]warning:[/yellow] {_plain(text, keep=chr(10))}")

    def show_budget(self, strategy: str, most: int) -> None:
        """Say how many evaluations there will be at most."""
        self.say(f"{strategy}: at most {most} evaluations")

    def show_pace(self, pace: Pace) -> None:
        """Show from now on how far the search is."""
        self._evaluations.pace = pace

    def show_start(self, recipe: Recipe, benchmark: Benchmark) -> None:
        """Show that an evaluation begins: a running clock on a terminal, a line elsewhere."""
        self._end_phase()
        self._evaluating = printable(describe_evaluation(recipe, benchmark))
        line = self._evaluations.start(self._evaluating)
        if self._console.is_terminal:
            self._clocks[self._evaluating] = self._clock.add_task(_plain(line))
        else:
            self.say(f"{line} ...")

    def show_end(self, recipe: Recipe, benchmark: Benchmark) -> None:
        """Show that an evaluation is over."""
        name = printable(describe_evaluation(recipe, benchmark))
        self._evaluations.end(name)
        if name in self._clocks:
            self._clock.remove_task(self._clocks.pop(name))

    def show_answers(self, count: int, total: int) -> None:
        """Show how many prompts are answered: beside the clock, or a line now and then."""
        self._show_answers(self._evaluating, count, total, f"{count:,} of {total:,} answers")

    def show_worker_answers(self, recipe: Recipe, benchmark: Benchmark, count: int, total: int) -> None:
        """Show the same of a worker's evaluation, of which there may be several."""
        name = printable(describe_evaluation(recipe, benchmark))
        self._show_answers(name, count, total, f"{name}: {count:,} of {total:,} answers")

    def _show_answers(self, name: str, count: int, total: int, line: str) -> None:
        self._evaluations.answer(name, count, total)
        if name in self._clocks:
            self._clock.update(self._clocks[name], description=_plain(self._evaluations.line(name)))
        elif not self._console.is_terminal and self._evaluations.may_speak(name, PLAIN_SECONDS):
            self.say(f"  {line}")

    def _beat(self) -> None:
        for line in self._evaluations.due(PLAIN_SECONDS):
            self.say(line)

    def show_trial(self, trial: Trial) -> None:
        """Print a trial's scores."""
        self._end_phase()
        part, judged = ("report ", trial.report) if trial.report else ("", trial.scores)
        texts = {name: f"{'~' if score.estimate else ''}{score.value:.2f}" for name, score in judged.items()}
        scores = ", ".join(f"{name} {text}" for name, text in texts.items())
        when = "remembered" if trial.seconds is None else f"{trial.seconds:.1f} s"
        overall = f"overall {trial.objective.overall(judged):.2f}"
        if trial.interval and not part:
            overall = "overall ~{:.2f}, estimated in {:.2f} to {:.2f}".format(trial.overall, *trial.interval)
        self.say(f"  {printable(trial.label)}: {part}{overall} ({scores}; {when})")

    def start_phase(self, name: str, total_bytes: int) -> None:
        """Show a bar for the bytes that follow."""
        self._end_phase()
        self._task = self._bar.add_task(name, total=total_bytes)

    def advance(self, count: int) -> None:
        """Move the bar on by so many bytes."""
        if self._task is not None:
            self._bar.advance(self._task, count)

    def show_download(self, name: str, count: int, total: int) -> None:
        """Show how much of a checkpoint is downloaded: without a terminal a line now and then."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._spoken.setdefault(name, now) > PLAIN_SECONDS:
            self._spoken[name] = now
            self.say(f"  {name}: {format_bytes(count)} of {format_bytes(total)}")
        if name not in self._downloads:
            self._downloads[name] = self._bar.add_task(_plain(name), total=total)
        self._bar.update(self._downloads[name], completed=count, total=total, visible=count < total)

    def show_step(self, name: str, step: int, steps: int, loss: float) -> None:
        """Show how far a training job is: without a terminal a line now and then, and the last step for good."""
        now = time.monotonic()
        if step >= steps:
            self.say(f"  {name}: {steps} steps, loss {loss:.3f}")
        elif not self._console.is_terminal and now - self._spoken.setdefault(name, now) > PLAIN_SECONDS:
            self._spoken[name] = now
            self.say(f"  {name}: step {step} of {steps}, loss {loss:.3f}")

    def show_rows(self, path: str, done: int, count: int) -> None:
        """Show how many rows of a data set are checked: without a terminal a line now and then."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._spoken.setdefault(path, now) > PLAIN_SECONDS:
            self._spoken[path] = now
            self.say(f"  {path}: {done:,} of {count:,} rows")
        if path not in self._jobs:
            self._jobs[path] = self._steps.add_task(_plain(path), total=count, loss="")
        self._steps.update(self._jobs[path], completed=done)

    @property
    def board_lines(self) -> int:
        """How many rows a board may have: a taller one would be cut off at its end."""
        return max(1, self._console.size.height - 4)

    def show_board(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Replace the table that stays at the bottom of the terminal; nothing elsewhere."""
        self._board.shown = _table(head, rows) if self._console.is_terminal else None

    def _end_phase(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = None

    def __enter__(self) -> Console:
        self._around.enter_context(redirect_stdout(sys.stderr))
        self._around.enter_context(listening_to_downloads(self.show_download))
        if self._console.is_terminal:
            self._live.start()
        else:
            self._heartbeat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_phase()
        self._heartbeat.stop()
        self._live.stop()
        self._around.close()


class _Board:
    """A table in the live area, replaced as a whole."""

    shown: RichTable | None = None

    def __rich__(self) -> RichTable | Group:
        return self.shown or Group()


def print_table(table: ScoreTable, first: str) -> None:
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
        shares = [f"{row.by_component[component]:.4f}" for component in components]
        nearest = [name, "" if cosine is None else f"{cosine:.3f}"]
        rows.append([row.name, f"{row.norm:.4f}", *shares, f"{row.moved:.1%}", *nearest, row.verdict])
    print_rows(head, rows, right=[*range(1, len(components) + 3), len(components) + 4])
    if distances.frozen:
        print_line(f"frozen in all: {', '.join(distances.frozen)}")


def print_moves(moves: Moves, most: int) -> None:
    """Print how far each component is from the base's, and then each block; at most so many rows of each."""
    head = ["|delta| / |base|", "tensors moved", "elements moved"]
    for title, parts in (("component", moves.components), ("block, from 0", moves.blocks)):
        rows = [
            [
                part.component if part.block is None else f"{part.component} {part.block} of {part.blocks}",
                f"{part.norm:.4f}",
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
    for name, reason in sweep.no_loss.items():
        print_line(f"{name}: no loss, for {reason}")


def print_rows(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] | range = (), most: int | None = None
) -> None:
    """Rows of text on stdout; `right` are the columns that hold numbers. Beyond `most` rows are only counted."""
    if most is not None and len(rows) > most:
        print_rows(head, rows[:most], right)
        print_line(f"... and {len(rows) - most} more (--json has all)")
        return
    console = RichConsole(highlight=False)
    console = console if console.is_terminal else RichConsole(highlight=False, width=240)
    with console.capture() as capture:
        console.print(_table(head, rows, right))
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] | range = ()) -> RichTable:
    shown = RichTable(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(head):
        shown.add_column(_plain(name), justify="right" if i in right else "left", overflow="fold")
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
    """One JSON document on stdout."""
    print_line(json.dumps(document, indent=2, ensure_ascii=False), keep="\n")  # whose escapes are JSON's, too


def print_plan(plan: Mapping[str, object], *, as_json: bool) -> None:
    """Print what a command would do, on stdout: as one JSON document, or as a table in which bytes are readable."""
    if as_json:
        print_json(plan)
        return
    rows = []
    for key, value in plan.items():
        if key.endswith("_bytes") and isinstance(value, int):
            rows.append([key.removesuffix("_bytes"), format_bytes(value)])
        elif key.endswith("_seconds") and isinstance(value, float):
            rows.append([key.removesuffix("_seconds"), f"about {format_duration(value)}"])
        elif key != "schema":
            rows.append([key, cell(value)])
    print_rows(["plan", ""], rows)


def cell(value: object) -> str:
    """Return a value as a table shows it: `yes` and `no`, lists by commas, nothing for None."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items())
    return ", ".join(map(cell, value)) if isinstance(value, list | tuple) else str(value)
