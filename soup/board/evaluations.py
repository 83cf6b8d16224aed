"""The evaluations that are running, as texts for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from rich.text import Text

from soup.board.layout import cut, plain
from soup.support.text import format_duration, printable

if TYPE_CHECKING:
    from soup.evaluation.api import Benchmark
    from soup.merging.recipe import Recipe

__all__ = ["Running", "RunningEvaluations", "name_evaluation"]

SHORT_SECONDS = 10.0
"""Of what began more recently nobody asks how long it runs."""


def name_evaluation(recipe: Recipe, benchmark: Benchmark) -> str:
    """Return `a + b on mmbench`, which names a running evaluation."""
    part = "" if benchmark.split.part == "all" else f" ({benchmark.split.part} questions)"
    return printable(f"{recipe.describe()} on {benchmark.name}{part}")


@dataclass
class Running:
    """One evaluation: what, since when, and how many prompts are answered.

    Args:
        label: The soup's.
        benchmark: The benchmark's name.
        part: Which of its questions are asked.
        began: When it began, by the board's clock in seconds.
        count: How many prompts are answered.
        total: How many there are.
        what: The word for what is counted: answers, and then the grades that an LLM judge gives them.
        first: When those were first told of, and how many there were by then: some may have been remembered.
    """

    label: str
    benchmark: str
    part: str
    began: float
    count: int = 0
    total: int = 0
    what: str = "answers"
    first: tuple[float, int] | None = None

    def seconds_left(self, now: float) -> float | None:
        """Return how long the other answers take, at the rate of those that came; None before there is one."""
        if self.first is None:
            return None
        began, before = self.first
        return (now - began) / (self.count - before) * (self.total - self.count) if self.count > before else None

    def text(self, now: float, expected_seconds: float | None) -> str:
        """Return `: 1,100 of 2,000 answers, about 15 min left, 3 min so far`.

        Args:
            now: The clock, in seconds.
            expected_seconds: What it takes as a whole, where others took something.
        """
        parts = [f"{self.count:,} of {self.total:,} {self.what}"] if self.total else []
        left = self.seconds_left(now)
        if left is None and expected_seconds is not None:
            left = expected_seconds - (now - self.began)
        if left is not None and left > 0:
            parts.append(f"about {format_duration(left)} left")
        if now - self.began > SHORT_SECONDS:
            parts.append(f"{format_duration(now - self.began)} so far")
        return f": {', '.join(parts)}" if parts else ""


@dataclass
class RunningEvaluations:
    """The running evaluations by what they are called.

    Args:
        now: The clock, in seconds.
        running: The evaluations, by what they are called.
    """

    now: Callable[[], float]
    running: dict[str, Running] = field(default_factory=dict)
    _seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def start(self, recipe: Recipe, benchmark: Benchmark) -> None:
        """Note that an evaluation begins."""
        running = Running(recipe.describe(), benchmark.name, benchmark.split.part, self.now())
        self.running[name_evaluation(recipe, benchmark)] = running

    def answer(self, recipe: Recipe, benchmark: Benchmark, count: int, total: int, what: str) -> None:
        """Note how many prompts are answered, or answers graded."""
        if running := self.running.get(name_evaluation(recipe, benchmark)):
            if what != running.what:
                running.what, running.first = what, None
            running.count, running.total = count, total
            running.first = running.first or (self.now(), count)

    def end(self, recipe: Recipe, benchmark: Benchmark) -> None:
        """Note that an evaluation is over."""
        self.running.pop(name_evaluation(recipe, benchmark), None)

    def learn(self, benchmark: Benchmark, seconds: float) -> None:
        """Note what a model took on a benchmark."""
        self._seconds[benchmark.name, benchmark.split.part].append(seconds)

    def expected_seconds(self, benchmark: str, part: str) -> float | None:
        """Return what a model takes on a benchmark, about; None where none was evaluated on it now."""
        known = self._seconds.get((benchmark, part))
        return fmean(known) if known else None

    @property
    def labels(self) -> set[str]:
        """The labels of the models that are being evaluated."""
        return {running.label for running in self.running.values()}

    def share(self, label: str, column: str) -> str:
        """Return what stands where a score will be: `45 %` of its answers, dots where nobody counts, else nothing."""
        for each in self.running.values():
            if each.label == label and (each.benchmark if each.part != "report" else "report") == column:
                return f"{100 * each.count // each.total} %" if each.total else "..."
        return ""

    def texts(self, most: int) -> list[str]:
        """Return a text for each of so many evaluations, the last of which counts the others."""
        texts = [f"{name}{self._text(running)}" for name, running in self.running.items()]
        return texts if len(texts) <= most else [*texts[: most - 1], f"and {len(texts) - most + 1} more evaluations"]

    def lines(self, width: int, most: int) -> list[Text]:
        """Return the same as lines of so many cells."""
        lines = []
        for name, running in list(self.running.items())[: most if len(self.running) <= most else most - 1]:
            status = self._text(running)
            lines.append(f"{cut(name, max(8, width - len(status)))}{status}")
        if hidden := len(self.running) - len(lines):
            lines.append(f"... {hidden} more evaluations")
        return [plain(line, width) for line in lines]

    def _text(self, running: Running) -> str:
        return running.text(self.now(), self.expected_seconds(running.benchmark, running.part))
