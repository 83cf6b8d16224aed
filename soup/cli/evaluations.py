"""The evaluations that are running, one a worker, as lines for people: without a terminal, one a minute each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from soup.support.text import format_duration

if TYPE_CHECKING:
    from soup.evaluation.api import Benchmark
    from soup.evaluation.pace import Pace
    from soup.merging.recipe import Recipe

__all__ = ["Evaluations", "Heartbeat", "describe_evaluation"]

SHORTEST_SECONDS = 5.0


def describe_evaluation(recipe: Recipe, benchmark: Benchmark) -> str:
    """Return `evaluating a + b on mmbench`, which names a running evaluation."""
    part = "" if benchmark.split.part == "all" else f" ({benchmark.split.part} questions)"
    return f"evaluating {recipe.describe()} on {benchmark.name}{part}"


@dataclass
class _Running:
    """One evaluation: when it began, when a line last told of it, and how many prompts are answered.

    `first` is when answers were first told of, and how many there were by then: some may have been remembered.
    """

    began: float
    spoken: float
    answers: str = ""
    first: tuple[float, int] | None = None

    def seconds_left(self, now: float, count: int, total: int) -> float | None:
        """Return how long the other answers take, at the rate of those that came; None before there is one."""
        self.first = self.first or (now, count)
        began, before = self.first
        return (now - began) / (count - before) * (total - count) if count > before and now > began else None


@dataclass
class Evaluations:
    """The running evaluations by what they are called.

    Args:
        now: The clock, in seconds.
    """

    now: Callable[[], float]
    pace: Pace | None = None
    running: dict[str, _Running] = field(default_factory=dict)

    def start(self, name: str) -> str:
        """Note that an evaluation begins, and return its line."""
        now = self.now()
        self.running[name] = _Running(now, now)
        return self.line(name)

    def answer(self, name: str, count: int, total: int) -> None:
        """Note how many prompts are answered."""
        if name in self.running:
            running = self.running[name]
            left = running.seconds_left(self.now(), count, total)
            running.answers = f"{count:,} of {total:,} answers" + (f", {format_duration(left)} left" if left else "")

    def end(self, name: str) -> None:
        """Note that an evaluation is over."""
        self.running.pop(name, None)

    def line(self, name: str) -> str:
        """Return an evaluation's line, with how far the search is in front of it."""
        answers = self.running[name].answers if name in self.running else ""
        head = f"[{self.pace}] " if self.pace else ""
        return f"{head}{name}{f': {answers}' if answers else ''}"

    def due(self, seconds: float) -> list[str]:
        """Return the lines of evaluations of which nothing was told for so long, as told now."""
        lines = []
        for name, running in list(self.running.items()):
            if self.now() - running.spoken > seconds:
                running.spoken = self.now()
                lines.append(f"  {self.line(name)}, {(running.spoken - running.began) / 60:.0f} min so far")
        return lines

    def may_speak(self, name: str, seconds: float) -> bool:
        """Whether nothing was told of an evaluation for so long; if so, it counts as told now."""
        running = self.running.get(name)
        if running is None or self.now() - running.spoken <= seconds:
            return False
        running.spoken = self.now()
        return True


class Heartbeat:
    """A thread that calls a function again and again: harnesses that tell nothing are heard of all the same."""

    def __init__(self, seconds: float, beat: Callable[[], None]) -> None:
        self._seconds, self._beat = max(seconds, SHORTEST_SECONDS), beat
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def stop(self) -> None:
        """Call no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._beat()
