"""The part of a search's scorer that strategies need, over a table of scores: no model, no journal, no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Score, Split
from soup.evaluation.bootstrap import Difference, paired_difference
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.pace import Pace
from soup.evaluation.progress import Progress
from soup.evaluation.suite import BenchmarkSuite

__all__ = ["TableRecipe", "TableScorer"]

_BENCHMARK = Benchmark("table", "table", "table")


@dataclass(frozen=True)
class TableRecipe:
    """A soup of a table; it iterates over its names.

    Args:
        names: The ingredients', in the pool's order.
        weights: Theirs, of sum 1.
        method: Another method than the search's.
        params: Parameters of the method, sorted by name.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    method: str | None = None
    params: tuple[tuple[str, Any], ...] = ()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def digest(self) -> str:
        """What tells recipes apart: `a+b` for a plain mean."""
        uniform = len(set(self.weights)) == 1
        parts = self.names if uniform else map("{}*{}".format, self.weights, self.names)
        varied = [self.method or "", *map(str, self.params)] if self.method or self.params else []
        return " ".join(["+".join(parts), *varied])


@dataclass(frozen=True)
class _Trial:
    recipe: TableRecipe
    scores: Mapping[str, Score]
    objective: Objective
    broken: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return self.recipe.names

    @property
    def overall(self) -> float:
        return self.objective.overall(self.scores)

    @property
    def allowed(self) -> bool:
        return not self.broken

    @property
    def estimate(self) -> None:
        return None

    def difference(self, other: _Trial) -> Difference | None:
        return paired_difference(self.scores, other.scores, self.objective)

    def better_than(self, other: _Trial) -> float:
        if (difference := self.difference(other)) is None:
            raise EvaluatorError("The table has no points of questions.")
        return difference.p_better


@dataclass(frozen=True)
class _Entry:
    benchmark: Benchmark = _BENCHMARK


@dataclass(frozen=True)
class _Suite:
    entries: tuple[_Entry, ...] = (_Entry(),)
    split: Split = _BENCHMARK.split

    def on(self, split: Split) -> _Suite:
        return self


TableScores = float | Mapping[str, Score]


@dataclass
class TableScorer:
    """The part of a `Scorer` that a search needs, over a function of recipes.

    Args:
        pool: The ingredients' names.
        overall: Gives a recipe's overall, 0 to 100, or its scores by benchmark.
        suite: The benchmarks, for searches that ask for some questions alone.
        progress: Who hears of trials.
        objective: How scores become one number, and what a soup must not break.
        known: What `overall` gave, by the recipe's digest.
        trials: The digests of what was asked for, in that order.
    """

    pool: Sequence[str]
    overall: Callable[[TableRecipe], TableScores]
    suite: _Suite | BenchmarkSuite = _Suite()
    progress: Progress = field(default_factory=Progress)
    objective: Objective = PLAIN
    known: dict[str, TableScores] = field(default_factory=dict)
    trials: list[str] = field(default_factory=list)
    _scored: set[tuple[str, int]] = field(default_factory=set)

    def __call__(self, chosen: object, /, method: str | None = None, params: Mapping[str, Any] | None = None) -> _Trial:
        """Give a soup's trial, and add its digest to `trials`."""
        trial = self.trial(self.recipe(chosen, method, params))
        if trial.recipe.digest not in self.trials:
            self.trials.append(trial.recipe.digest)
        return trial

    def recipe(self, chosen: Any, method: str | None = None, params: Mapping[str, Any] | None = None) -> TableRecipe:
        """Make the recipe of a choice, in the pool's order."""
        shares = dict(chosen) if isinstance(chosen, Mapping) else dict.fromkeys(chosen, 1 / len(chosen))
        names = tuple(name for name in self.pool if name in shares)
        return TableRecipe(names, tuple(shares[name] for name in names), method, tuple(sorted((params or {}).items())))

    def trial(self, recipe: TableRecipe) -> _Trial:
        """Give a recipe's trial; a real scorer would evaluate it here."""
        scores = self._scores(recipe)
        guards = self.objective.guards
        singles = [self._scores(single) for single in self.singles] if guards else []
        return _Trial(recipe, scores, self.objective, self.objective.broken(scores, singles))

    def _scores(self, recipe: TableRecipe) -> Mapping[str, Score]:
        if recipe.digest not in self.known:
            self.known[recipe.digest] = self.overall(recipe)
        known = self.known[recipe.digest]
        return known if isinstance(known, Mapping) else {"table": Score(known)}

    needs_singles = False
    """A table has all points of all soups: nobody is asked less than everything."""

    @property
    def singles(self) -> list[TableRecipe]:
        """List the recipe of each name alone."""
        return [self.recipe([name]) for name in self.pool]

    def question_sets(self, recipe: TableRecipe, suite: _Suite | BenchmarkSuite) -> list[None]:
        """Say that everything is asked."""
        return [None] * len(suite.entries)

    def missing(self, recipe: TableRecipe, suite: _Suite | BenchmarkSuite) -> list[int]:
        """List the benchmarks without a score."""
        if recipe.digest in self.known:
            return []
        return [index for index in range(len(suite.entries)) if (recipe.digest, index) not in self._scored]

    def remember(self, recipe: TableRecipe, entry: Any, score: Score, seconds: float, questions: None = None) -> None:
        """Store a worker's score; what was asked is everything."""
        self._scored.add((recipe.digest, self.suite.entries.index(entry)))
        if not self.missing(recipe, self.suite):
            self.known[recipe.digest] = self.overall(recipe)

    def pace(self, at_once: int = 1) -> Pace:
        """How many soups are scored, however many at once."""
        return Pace(len(self.known))

    def check_first(self) -> None:
        """Do nothing: a table needs no checkpoint."""

    def remark(self, text: str, subject: str = "") -> None:
        """Do nothing: there is nothing strange about a table."""

    def announce(self, trial: _Trial) -> None:
        """Do nothing: there is no progress to show."""
