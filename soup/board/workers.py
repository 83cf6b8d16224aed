"""What each worker is at, how fast it answers, and when it is done with that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from soup.board.evaluations import name_evaluation
from soup.board.layout import cut, plain
from soup.support.text import format_duration, format_rate

if TYPE_CHECKING:
    from soup.evaluation.progress import WorkerState

__all__ = ["Workers"]

Expected = Callable[[str, str], "float | None"]
"""From a benchmark's name and the part of its questions to seconds, where they are known."""


@dataclass
class _Worker:
    """A worker: what it is at and since when; the questions that it answered before, and how long it took for them."""

    state: WorkerState | None = None
    began: float = 0.0
    answered: int = 0
    seconds: float = 0.0

    def rate(self, now: float) -> float:
        """Return how many questions it answers a second; 0 where nobody knows."""
        answered, seconds = self.answered, self.seconds
        if self.state and self.state.answered:
            answered, seconds = answered + self.state.answered, seconds + now - self.began
        return answered / seconds if seconds else 0.0

    def text(self, now: float, expected: Expected) -> str:
        """Return `: 12 of 64 questions, about 2.8 a second, about 20 s left`."""
        if self.state is None:
            return "waits"
        questions, rate, passed = self.state.questions, self.rate(now), now - self.began
        if questions is None:
            whole = expected(self.state.benchmark.name, self.state.benchmark.split.part)
            left = f", about {format_duration(whole - passed)} left" if whole is not None and whole > passed else ""
            return f": {format_duration(passed)} so far{left}"
        parts = [f"{self.state.answered:,} of {questions:,} questions"]
        if rate:
            parts.append(f"about {format_rate(rate)} a second")
            parts.append(f"about {format_duration((questions - self.state.answered) / rate)} left")
        return f": {', '.join(parts)}"


@dataclass
class Workers:
    """All workers by their numbers.

    Args:
        now: The clock, in seconds.
        expected: Gives what an evaluation on a benchmark takes that is not dealt out.
        known: Those that were told of, by their numbers.
    """

    now: Callable[[], float]
    expected: Expected
    known: dict[int, _Worker] = field(default_factory=dict)

    def take(self, number: int, state: WorkerState | None) -> None:
        """Take in what a worker is at from now on."""
        worker, now = self.known.setdefault(number, _Worker()), self.now()
        if worker.state and (state is None or not state.answered):  # it is done with what it had
            worker.answered += worker.state.answered
            worker.seconds += now - worker.began if worker.state.answered else 0.0
        if state is None or not state.answered:
            worker.began = now
        worker.state = state

    @property
    def rate(self) -> float:
        """How many questions all of them answer a second; 0 where nobody knows."""
        now = self.now()
        return sum(worker.rate(now) for worker in self.known.values() if worker.state)

    def lines(self, width: int, most: int) -> list[Text]:
        """Return a line for each of so many workers, the last of which counts the others; none where there are none."""
        now, lines = self.now(), []
        for number, worker in sorted(self.known.items())[: most if len(self.known) <= most else most - 1]:
            head, status = f"worker {number} ", worker.text(now, self.expected)
            name = name_evaluation(worker.state.recipe, worker.state.benchmark) if worker.state else ""
            lines.append(f"{head}{cut(name, max(8, width - len(head) - len(status)))}{status}")
        if hidden := len(self.known) - len(lines):
            busy = sum(worker.state is not None for worker in self.known.values())
            lines.append(f"... {hidden} more workers; {busy} of {len(self.known)} are at work")
        return [plain(line, width) for line in lines]
