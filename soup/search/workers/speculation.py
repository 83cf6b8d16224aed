"""A strategy over many workers, with the outcome of one: its next questions are guessed, never its answers.

A strategy is a function of scores. So it is run again whenever more scores are known, on the true ones alone, until
it asks for none that is unknown: what it then returns is what it would have returned one by one. On the way, where it
meets an unknown score, it is let go on as if that soup had been bad. A greedy search then asks for S + b while S + a
is still being evaluated, then for S + c: the very soups that come next if S + a is refused. If it is accepted they were
evaluated in vain, and stay in the journal.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from soup.errors import SoupError
from soup.evaluation.api import Benchmark, Split
from soup.evaluation.estimates import refuse_failed_audit
from soup.evaluation.scorer import Scorer
from soup.evaluation.suite import BenchmarkSuite
from soup.evaluation.trial import Trial
from soup.merging.recipe import Recipe
from soup.search.strategies.base import Scored, ScoreFunction, tell_best
from soup.search.workers.protocol import AnswersEvent, EvalTask, Event, Remark, ScoreEvent, TaskDone, WorkerPool
from soup.support.foreign_code import Interruption

__all__ = ["SpeculativeRunner"]

T = TypeVar("T")

MOST_GUESSES = 1000
"""So often may a strategy ask for unknown scores in one pass: one that waits for an improvement would never end."""


class _EnoughError(Interruption):
    """There is work for every worker."""


@dataclass(frozen=True)
class _Assumed:
    """What a strategy learns of a soup that nobody has evaluated yet."""

    overall: float = -math.inf
    report_overall: float | None = None
    allowed: bool = False

    def better_than(self, other: object) -> float:
        return 0.0


@dataclass
class SpeculativeRunner:
    """Runs strategies and lists of recipes over a worker pool; the scores go through the scorer's journal."""

    scorer: Scorer
    workers: WorkerPool
    _running: dict[tuple[str, Split], EvalTask] = field(default_factory=dict)
    _failed: dict[tuple[str, Split], SoupError] = field(default_factory=dict)
    _shown: dict[tuple[tuple[str, Split], int], Benchmark] = field(default_factory=dict)
    _left: dict[tuple[str, Split], list[int]] = field(default_factory=dict)  # benchmarks of tasks that run

    def choose(self, strategy: Callable[[ScoreFunction], T]) -> T:
        """Run a strategy until `strategy(score)` returns on true scores alone, and return that.

        Raises:
            SoupError: what the strategy or an evaluation raised that one by one would have been met, too.
        """
        while True:
            probe = _Probe(self.scorer, self.workers.size)
            try:
                strategy(probe)
            except _EnoughError:
                pass
            except Exception:
                if not probe.wanted:
                    raise
                # Else it stumbled over an assumption, which is no fault of the strategy's.
            if not probe.wanted:
                return strategy(self.scorer)  # once more, which notes the soups that it asks for, and no others
            # What a strategy asks of single models hangs on no score, as good as always.
            sure = sum(1 for _ in itertools.takewhile(lambda recipe: len(recipe.names) == 1, probe.wanted))
            while not self._advance(probe.wanted, self.scorer.suite, max(1, sure)):
                pass  # it would want the same again

    def complete(self, recipes: Iterable[Recipe], split: Split) -> None:
        """Have all recipes evaluated over a part of the questions.

        Raises:
            SoupError: an evaluation failed.
        """
        suite, recipes = self.scorer.suite.on(split), list(recipes)
        while wanted := [recipe for recipe in recipes if self.scorer.missing(recipe, suite)]:
            self._advance(wanted, suite, len(wanted))

    def close(self) -> None:
        """End all workers, and show that what they evaluated in vain is over."""
        self.workers.close()
        for task in self._running.values():
            self._show_end(task, list(task.indices))

    def _advance(self, wanted: list[Recipe], suite: BenchmarkSuite, sure: int) -> bool:
        """Keep the workers busy with the first of `wanted`, and take in the next events; so many are no bets.

        Returns:
            Whether a task is done.
        """
        if error := self._failed.get((wanted[0].digest, suite.split)):
            raise error  # the first is no guess: one by one it would have been met here, too
        self.workers.want([(recipe.digest, suite.split) for recipe in wanted], sure)
        for recipe in wanted:
            key = (recipe.digest, suite.split)
            if self.workers.idle and key not in self._running and key not in self._failed:
                self._start(recipe, suite)
        events = self.workers.wait()
        for event in events:
            self._take_in(event)
        return any(isinstance(event, TaskDone) for event in events)

    def _start(self, recipe: Recipe, suite: BenchmarkSuite) -> None:
        self.scorer.check_first()
        indices = tuple(self.scorer.missing(recipe, suite))
        sets = enumerate(self.scorer.question_sets(recipe, suite))
        questions = {index: questions for index, questions in sets if questions is not None and index in indices}
        task = EvalTask(recipe, suite.split, indices, questions)
        self.scorer.progress.on_pace(self.scorer.pace(self.workers.size))
        self._running[task.key], self._left[task.key] = task, list(task.indices)
        self._show(task, task.indices[0])
        self.workers.start(task)

    def _take_in(self, event: Event) -> None:
        task = event.task
        if isinstance(event, AnswersEvent):
            self._show(task, event.index)
            benchmark = self.scorer.suite.on(task.split).entries[event.index].benchmark
            self.scorer.progress.on_answers(task.recipe, benchmark, event.count, event.total, event.what)
            return
        if isinstance(event, ScoreEvent):
            entry = self.scorer.suite.on(task.split).entries[event.index]
            self.scorer.remember(task.recipe, entry, event.score, event.seconds, task.questions.get(event.index))
            self._show_end(task, [event.index])
            return
        if isinstance(event, Remark):
            self.scorer.remark(event.text)
            return
        assert isinstance(event, TaskDone), "what workers say of chunks is for the pool"
        self._show_end(task, list(task.indices))
        self._running.pop(task.key)
        if event.error is not None:
            self._failed[task.key] = event.error
        elif task.split == self.scorer.suite.split and not self.scorer.objective.guards and self._is_whole(task):
            self.scorer.announce(self.scorer.trial(task.recipe))

    def _is_whole(self, task: EvalTask) -> bool:
        """Whether a task's scores are all that is wanted of its recipe: by now it may have to be asked more."""
        return not self.scorer.missing(task.recipe, self.scorer.suite)

    def _show(self, task: EvalTask, index: int) -> None:
        """Show that workers are at one of a task's benchmarks."""
        if (task.key, index) not in self._shown and index in self._left.get(task.key, ()):
            self._shown[task.key, index] = self.scorer.suite.on(task.split).entries[index].benchmark
            self.scorer.progress.on_start(task.recipe, self._shown[task.key, index])

    def _show_end(self, task: EvalTask, indices: Sequence[int]) -> None:
        """Show that benchmarks are done, and what workers go on with where nothing of the task is shown."""
        left = self._left[task.key] = [index for index in self._left.get(task.key, ()) if index not in indices]
        for index in indices:
            if (before := self._shown.pop((task.key, index), None)) is not None:
                self.scorer.progress.on_end(task.recipe, before)
        if left and not any((task.key, index) in self._shown for index in left):
            self._show(task, left[0])


class _Probe:
    """The `score` that a strategy is given: true where it is known, assumed and noted down where not."""

    def __init__(self, scorer: Scorer, most_wanted: int) -> None:
        self._scorer, self._most_wanted, self._calls = scorer, most_wanted, 0
        self.wanted: list[Recipe] = []
        self._known: dict[str, Trial] = {}

    def __call__(self, chosen: object, /, method: str | None = None, params: Mapping[str, Any] | None = None) -> Scored:
        scorer, recipe = self._scorer, self._scorer.recipe(chosen, method, params)
        # Guards hold every soup against the single models, so that these come first.
        singles = scorer.singles if scorer.objective.guards or scorer.needs_singles else []
        unknown = [single for single in singles if scorer.missing(single, scorer.suite)]
        # What the single models dispute says what a soup is asked.
        if not (unknown and scorer.needs_singles) and scorer.missing(recipe, scorer.suite):
            unknown.append(recipe)
        if not unknown:
            return self._true_trial(recipe)
        for recipe in unknown:
            if all(recipe.digest != other.digest for other in self.wanted):
                self.wanted.append(recipe)
        self._calls += 1
        if len(self.wanted) >= self._most_wanted or self._calls > MOST_GUESSES:
            raise _EnoughError
        return _Assumed()

    def on_best(self, trial: Scored) -> None:
        """Pass it on unless a guess led there."""
        if not self.wanted:
            tell_best(self._scorer, trial)

    def _true_trial(self, recipe: Recipe) -> Trial:
        trial = self._scorer.trial(recipe)
        if not self.wanted:  # else it may be none that one by one would have been asked for
            self._known[recipe.digest] = trial
            refuse_failed_audit(known.estimate for known in self._known.values())
        return trial
