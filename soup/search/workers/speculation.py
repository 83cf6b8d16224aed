"""A strategy over many workers, with the outcome of one: its next questions are guessed, never its answers.

A strategy is a function of scores. So it is run again whenever more scores are known, on the true ones alone, until
it asks for none that is unknown: what it then returns is what it would have returned one by one. On the way, where it
meets an unknown score, it is let go on as if that soup had been bad. A greedy search then asks for S + b while S + a
is still being judged, then for S + c: the very soups that come next if S + a is refused. If it is accepted they were
judged in vain, and stay in the journal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from soup.errors import SoupError
from soup.evaluation.api import Split
from soup.evaluation.scorer import Scorer
from soup.merging.recipe import Recipe
from soup.search.workers.local import EvalTask, ScoreEvent, TaskDone, WorkerPool

__all__ = ["SpeculativeRunner"]

_PATIENCE = 1000
"""So often may a strategy ask for unknown scores in one pass: one that waits for an improvement would never end."""


class _Enough(BaseException):
    """There is work for every worker. No Exception, or a strategy that catches those would go on."""


@dataclass(frozen=True)
class _Assumed:
    """What a strategy is told of a soup that nobody has judged yet."""

    overall: float = -math.inf
    report_overall: float | None = None
    allowed: bool = False

    def better_than(self, other: Any) -> float:
        return 0.0


@dataclass
class SpeculativeRunner:
    """Runs strategies and lists of recipes over a crew; the scores go through the scorer's journal."""

    scorer: Scorer
    crew: WorkerPool
    _running: dict[tuple[str, Split], EvalTask] = field(default_factory=dict)
    _failed: dict[tuple[str, Split], SoupError] = field(default_factory=dict)

    def choose(self, strategy: Callable[[Callable[..., Any]], Any]) -> Any:
        """What `strategy(score)` returns on true scores.

        Raises:
            SoupError: what the strategy or an evaluation raised that one by one would have been met, too.
        """
        while True:
            probe = _Probe(self.scorer, self.crew.size)
            try:
                strategy(probe)
            except _Enough:
                pass
            except Exception:
                if not probe.wanted:
                    raise
                # Else it stumbled over an assumption, which is no fault of the strategy's.
            if not probe.wanted:
                return strategy(
                    self.scorer
                )  # the same once more, which notes the soups that it asks for, and no others
            self._advance(probe.wanted)

    def complete(self, recipes: Iterable[Recipe], split: Split) -> None:
        """Have all recipes judged over a part of the questions.

        Raises:
            SoupError: an evaluation failed.
        """
        jury = self.scorer.jury.on(split)
        while wanted := [recipe for recipe in recipes if self.scorer.unknown(recipe, jury)]:
            self._advance(wanted, split)

    def _advance(self, wanted: list[Recipe], split: Split | None = None) -> None:
        """Keep the crew busy with the first of `wanted`, and take in what it tells next."""
        part = split or self.scorer.jury.seats[0][0].split
        if error := self._failed.get((wanted[0].digest, part)):
            raise error  # the first is no guess: one by one it would have been met here, too
        jury = self.scorer.jury.on(part)
        for recipe in wanted:
            key = (recipe.digest, part)
            if self.crew.idle and key not in self._running and key not in self._failed:
                places = self.scorer.unknown(recipe, jury)
                task = EvalTask(recipe, part, tuple(places))
                for place in places:
                    self.scorer.starting(recipe, jury.seats[place][0])
                self._running[key] = task
                self.crew.start(task)
        for event in self.crew.wait():
            if isinstance(event, ScoreEvent):
                own = self.scorer.jury.on(event.task.split)
                self.scorer.remember(event.task.recipe, own, event.place, event.score, event.seconds)
            elif isinstance(event, TaskDone):
                key = event.task.key
                self._running.pop(key)
                if event.error is not None:
                    self._failed[key] = event.error
                elif event.task.split == self.scorer.jury.seats[0][0].split and not self.scorer.objective.guards:
                    self.scorer.announce(self.scorer.trial(event.task.recipe))


class _Probe:
    """The `score` that a strategy is given: true where it is known, assumed and noted down where not."""

    def __init__(self, scorer: Scorer, room: int) -> None:
        self._scorer, self._room, self._asked = scorer, room, 0
        self.wanted: list[Recipe] = []

    def __call__(self, chosen: Any, /) -> Any:
        # Guards hold every soup against the single models, so that these come first.
        singles = [[part] for part in self._scorer.pool] if self._scorer.objective.guards else []
        unknown = [self._scorer.recipe(each) for each in [*singles, chosen] if not self._is_known(each)]
        if not unknown:
            return self._scorer.trial(self._scorer.recipe(chosen))
        for recipe in unknown:
            if all(recipe.digest != other.digest for other in self.wanted):
                self.wanted.append(recipe)
        self._asked += 1
        if len(self.wanted) >= self._room or self._asked > _PATIENCE:
            raise _Enough
        return _Assumed()

    def _is_known(self, chosen: Any) -> bool:
        return not self._scorer.unknown(self._scorer.recipe(chosen), self._scorer.jury)
