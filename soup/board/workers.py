"""What each worker is at, how fast it answers, and when it is done with that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from soup.board.evaluations import name_evaluation
from soup.board.layout import cut, plain
from soup.support.text import format_duration

if TYPE_CHECKING:
    from soup.evaluation.progress import WorkerState

__all__ = ["Workers"]


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

    def text(self, now: float) -> str:
        """Return `: 12 of 64 questions, about 2.8 a second, about 20 s left`."""
        if self.state is None:
            return "waits"
        questions, rate = self.state.questions, self.rate(now)
        parts = [] if questions is None else [f"{self.state.answered:,} of {questions:,} questions"]
        if rate:
            parts.append(f"about {rate:.3g} a second")
        if rate and questions:
            left = (questions - self.state.answered) / rate
            parts.append(f"about {format_duration(left)} left")
        return f": {', '.join(parts)}" if parts else f": {format_duration(now - self.began)} so far"


@dataclass
class Workers:
    """All workers by their numbers.

    Args:
        now: The clock, in seconds.
    """

    now: Callable[[], float]
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
            head, told = f"worker {number} ", worker.text(now)
            name = name_evaluation(worker.state.recipe, worker.state.benchmark) if worker.state else ""
            lines.append(f"{head}{cut(name, max(8, width - len(head) - len(told)))}{told}")
        if hidden := len(self.known) - len(lines):
            busy = sum(worker.state is not None for worker in self.known.values())
            lines.append(f"... {hidden} more workers; {busy} of {len(self.known)} are at work")
        return [plain(line, width) for line in lines]
