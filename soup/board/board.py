"""The board: what runs tell, kept in sections, and shown in one place."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.text import Text

from soup.board.displays import choose_display, is_terminal
from soup.board.evaluations import name_evaluation
from soup.board.search import SearchSection, describe_trial
from soup.board.transfers import TransferSection
from soup.checkpoints.hub_downloads import listening_to_downloads
from soup.errors import RecipeError
from soup.support.options import refuse_wrong_type
from soup.support.text import pluralize, printable

# Commands that only print, such as a launcher that waits for days, need nothing of evaluations.
if TYPE_CHECKING:
    from soup.evaluation.api import Benchmark, Score
    from soup.evaluation.pace import Pace
    from soup.evaluation.progress import Progress, SearchStart, WorkerState
    from soup.evaluation.trial import Trial
    from soup.merging.recipe import Recipe

__all__ = ["Board", "Section", "shown"]


class Section(Protocol):
    """A part of the board."""

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the part's lines; where not all has room, a line says so.

        Args:
            width: The most cells of a line.
            height: The most lines.
        """

    def line(self) -> str:
        """Return the same in one line; nothing where nothing is under way."""


class Board:
    """What runs tell, on stderr: a context manager around the work.

    Args:
        quiet: Whether warnings alone are printed.
        verbose: Whether each evaluation and each trial is printed, too, as it begins and ends.
        stays: Whether the last state of the board stays on a terminal.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, stays: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=not (sys.stderr and sys.stderr.isatty()))
        self._quiet, self._verbose = quiet, verbose
        self._has_lines = verbose or not (self._console.is_jupyter or is_terminal(self._console))
        self._lock = threading.RLock()  # never held where something is printed, which has a lock of its own
        self._search, self._transfer = SearchSection(lambda: time.monotonic()), TransferSection(self._console)
        self._sections: dict[str, Section] = {}  # beside those two, the first at the top
        self._downloads = listening_to_downloads(self.show_download)
        self._display = choose_display(self._console, self.lines, self.line, self.say, quiet=quiet, stays=stays)

    @property
    def progress(self) -> Progress:
        """What `cook` and its like are given."""
        from soup.evaluation.progress import Progress

        return Progress(
            on_warning=self.warn,
            on_hint=self.say,
            on_search=self._begin_search,
            on_pace=self._take_pace,
            on_start=self._start,
            on_answers=self._answer,
            on_score=self._take_score,
            on_end=self._end,
            on_worker=self._take_worker,
            on_trial=self._take_trial,
            on_best=self._take_best,
            on_phase=self.start_phase,
            on_bytes=self.advance,
        )

    def say(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            self._console.print(printable(text, keep="\n"), markup=False)

    def warn(self, text: str) -> None:
        """Print a remark that stops nothing."""
        self._console.print(Text.assemble(("warning:", "yellow"), " ", printable(text, keep="\n")))

    def show(self, name: str, section: Section) -> None:
        """Show a section from now on, in the place of the last one of that name."""
        with self._lock:
            self._sections[name] = section

    def start_stage(self) -> None:
        """Show no more what an earlier part of the work came to."""
        with self._lock:
            self._search.begin(None)
            self._transfer.end()
            self._sections.pop("jobs", None)

    def start_phase(self, name: str, total_bytes: int) -> None:
        """Show a bar for the bytes that follow."""
        with self._lock:
            self._transfer.begin(name, total_bytes)

    def advance(self, count: int) -> None:
        """Move the bar on by so many bytes."""
        with self._lock:
            self._transfer.advance(count)

    def show_download(self, name: str, count: int, total_bytes: int) -> None:
        """Show how much of a checkpoint is downloaded."""
        with self._lock:
            self._transfer.show_download(name, count, total_bytes)

    def show_rows(self, path: str, done: int, count: int) -> None:
        """Show how many rows of a data set are done."""
        with self._lock:
            self._transfer.show_rows(path, done, count)

    def show_step(self, name: str, step: int, steps: int, loss: float) -> None:
        """Say that a training job is done, where it is."""
        if step >= steps:
            self.say(f"  {name}: {steps} steps, loss {loss:.3f}")

    def lines(self, width: int, height: int) -> list[Text]:
        """Return all sections; where not all have room, those below leave half of it to each."""
        lines: list[Text] = []
        with self._lock:
            transfer = self._transfer.lines(width, height)
            sections = [*self._sections.values(), self._search]
            wanted = [len(section.lines(width, height)) for section in sections]
            for number, section in enumerate(sections, 1):
                left = height - len(transfer) - len(lines)
                lines += section.lines(width, left - min(left // 2, sum(wanted[number:])))[:left]
        return [*lines, *transfer]

    def line(self) -> str:
        """Return how far all is, in one line; nothing where nothing is under way."""
        with self._lock:
            sections = [*self._sections.values(), self._search, self._transfer]
            return "; ".join(filter(None, (section.line() for section in sections)))

    def _begin_search(self, start: SearchStart) -> None:
        with self._lock:
            self._search.begin(start)
        if start.evaluations is not None and self._has_lines:
            self.say(f"{start.title}: at most {pluralize(start.evaluations, 'evaluation')}")

    def _take_pace(self, pace: Pace) -> None:
        with self._lock:
            self._search.take_pace(pace)

    def _start(self, recipe: Recipe, benchmark: Benchmark) -> None:
        with self._lock:
            self._transfer.end()
            self._search.evaluations.start(recipe, benchmark)
        if self._verbose:
            self.say(f"evaluating {name_evaluation(recipe, benchmark)} ...")

    def _answer(self, recipe: Recipe, benchmark: Benchmark, count: int, total: int, what: str) -> None:
        with self._lock:
            self._search.evaluations.answer(recipe, benchmark, count, total, what)

    def _take_score(self, recipe: Recipe, benchmark: Benchmark, score: Score, seconds: float) -> None:
        with self._lock:
            self._search.take_score(recipe, benchmark, score, seconds)
        if self._verbose:
            mark = "~" if score.estimate else ""
            self.say(f"  {name_evaluation(recipe, benchmark)}: {mark}{score.value:.2f} ({seconds:.1f} s)")

    def _end(self, recipe: Recipe, benchmark: Benchmark) -> None:
        with self._lock:
            self._search.evaluations.end(recipe, benchmark)

    def _take_worker(self, number: int, state: WorkerState | None) -> None:
        with self._lock:
            self._search.workers.take(number, state)

    def _take_trial(self, trial: Trial) -> None:
        with self._lock:
            self._transfer.end()
            self._search.take_trial(trial)
        if self._has_lines:
            self.say(f"  {describe_trial(trial)}")

    def _take_best(self, trial: Trial) -> None:
        with self._lock:
            self._search.take_best(trial)

    def __enter__(self) -> Board:
        self._downloads.__enter__()
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with self._lock:
                self._transfer.end()
                self._search.is_over = True
        self._display.stop()
        self._downloads.__exit__(kind, error, trace)


@contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
    """Return who hears how far a run is; a board that stays, for the time of a `with`, where nobody was named.

    Raises:
        RecipeError: it is no `Progress`.
    """
    if progress is not None:
        from soup.evaluation.progress import Progress

        refuse_wrong_type({"progress": progress}, {"progress": (Progress, type(None))}, RecipeError)
        yield progress
        return
    with Board(stays=True) as board:
        yield board.progress
