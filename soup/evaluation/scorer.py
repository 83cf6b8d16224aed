"""Score a recipe: look it up, else merge, evaluate, remember, tidy. What comes back to a strategy is one float."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

from soup.checkpoints.digest import ContentDigest, side_digest
from soup.errors import EvaluatorError, RecipeError
from soup.evaluation.api import Benchmark, Score, Split
from soup.evaluation.bootstrap import paired_difference
from soup.evaluation.candidate import SoupCandidate
from soup.evaluation.journal import Journal, score_key
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.suite import BenchmarkSuite, evaluate_once
from soup.merging.pool import Ingredient, Pool
from soup.merging.recipe import Recipe, Share
from soup.support.text import did_you_mean

__all__ = ["Scorer", "Trial", "clear_scratch", "shares_of"]


TrialKey = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class Trial:
    """One recipe and its scores by benchmark: `scores` over the questions that choose, `report` over the others.

    `seconds` is what the evaluations took that were made now; None when all of them were remembered. `broken` names
    the guards of the objective that the scores break, `part` which questions chose.
    """

    recipe: Recipe
    scores: Mapping[str, Score]
    report: Mapping[str, Score] = field(default_factory=dict)
    seconds: float | None = None
    objective: Objective = PLAIN
    broken: tuple[str, ...] = ()
    part: str = "all"

    @property
    def overall(self) -> float:
        """The objective over the questions that choose: the mean of the benchmarks' scores, weighted if so wished."""
        return self.objective.overall(self.scores)

    @property
    def report_overall(self) -> float | None:
        """The objective over the questions that only report, where they were asked."""
        return self.objective.overall(self.report) if self.report else None

    @property
    def allowed(self) -> bool:
        """Whether it breaks no guard."""
        return not self.broken

    def better_than(self, other: Trial) -> float:
        """The probability that this soup beats another: the paired bootstrap over the questions that choose.

        Raises:
            EvaluatorError: a benchmark does not tell its questions' points.
        """
        found = paired_difference(self.scores, other.scores, self.objective)
        if found is None:
            silent = [name for name, score in self.scores.items() if not score.questions]
            raise EvaluatorError(
                f"--accept p>... needs the points of each question, and {', '.join(silent)} gives none. "
                "Use --accept ge or gt."
            )
        return found.p_better

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the ingredients, in recipe order."""
        return self.recipe.names


@dataclass
class Scorer:
    """`score(ingredients)` for a strategy: the trial of their mean. Ask twice and it is evaluated once.

    `digests` are the ingredients' by name, `base_digest` is the base's where the method reads it, `fields` are the
    recipe's fields that all trials share (method, its code's digest, dtype, ...).
    `starting` is told what is about to be evaluated, `answered` how far that is, `told` each new trial. `trials` keeps
    them in the order asked, `fresh` the journal's keys of what was evaluated now and not remembered.
    """

    pool: Pool
    jury: BenchmarkSuite
    journal: Journal
    scratch: Path
    digests: Mapping[str, ContentDigest]
    fields: Mapping[str, Any] = field(default_factory=dict)
    objective: Objective = PLAIN
    allow_nonfinite: bool = False
    starting: Callable[[Recipe, Benchmark], None] = lambda recipe, benchmark: None
    told: Callable[[Trial], None] = lambda trial: None
    answered: Callable[[int, int], None] = lambda count, of: None
    trials: dict[TrialKey, Trial] = field(default_factory=dict)
    announced: set[TrialKey] = field(default_factory=set)
    fresh: set[str] = field(default_factory=set)
    made: dict[TrialKey, tuple[dict[str, Score], float | None]] = field(default_factory=dict)
    base_digest: str | None = None

    def __call__(self, chosen: Sequence[Any] | Mapping[Any, float], /) -> Trial:
        """The trial of the mean of some ingredients (or of their names), or of a weighted one.

        Raises:
            EvaluatorError: the harness failed, timed out, or gave no score.
            RecipeError: nothing to score, or an ingredient that the pool does not have.
        """
        recipe = self.recipe(chosen)
        key = _key(recipe)
        if key not in self.trials:
            self.trials[key] = self.trial(recipe)
            self.announce(self.trials[key])
        return self.trials[key]

    def trial(self, recipe: Recipe) -> Trial:
        """A recipe's trial, evaluated if need be, without a note that it was asked for."""
        scores, seconds = self._judged(recipe)
        # Guards compare with the single models, which are scored for them where nobody has asked yet.
        alone = [self._judged(self.recipe([part]))[0] for part in self.pool] if self.objective.guards else []
        broken = self.objective.broken(scores, alone)
        return Trial(recipe, scores, {}, seconds, self.objective, broken, self.jury.part)

    def announce(self, trial: Trial) -> None:
        """Tell a trial, once."""
        if _key(trial.recipe) not in self.announced:
            self.announced.add(_key(trial.recipe))
            self.told(trial)

    def report(self, trial: Trial, split: Split) -> Trial:
        """The same trial with its scores over the questions that only report."""
        scores, seconds = self._scores(trial.recipe, self.jury.on(split))
        spent = [part for part in (trial.seconds, seconds) if part is not None]
        judged = replace(trial, report=scores, seconds=sum(spent) if spent else None)
        self.trials[_key(trial.recipe)] = judged
        self.told(judged)
        return judged

    def recipe(self, chosen: Sequence[Any] | Mapping[Any, float]) -> Recipe:
        """The sealed recipe of a choice. Ingredients stand in the pool's order, so that one set is one recipe."""
        shares = shares_of(self.pool, chosen)
        sealed = [share.model_copy(update={"digest": self.digests[share.name].content}) for share in shares]
        lead = self.pool.base or self.pool[sealed[0].name]
        base = self.pool.base.source(self.base_digest) if self.pool.base else None
        side = side_digest(lead.checkpoint)
        return Recipe(ingredients=tuple(sealed), base=base, side_digest=side, **self.fields)

    def _judged(self, recipe: Recipe) -> tuple[dict[str, Score], float | None]:
        """The scores over the questions that choose, and the seconds that they took; made once."""
        key = _key(recipe)
        if key not in self.made:
            made = self._scores(recipe, self.jury)
            self.objective.check(list(made[0]))
            self._refuse_others(recipe, made[0])
            self.made[key] = made
        return self.made[key]

    def _refuse_others(self, recipe: Recipe, scores: Mapping[str, Score]) -> None:
        """An overall of other benchmarks is another number: a harness names its parts alike for every soup."""
        first = next((known for known, _ in self.made.values()), scores)
        if first.keys() != scores.keys():
            raise EvaluatorError(
                f"{'+'.join(recipe.names)}: its scores can't be held against the others': expected "
                f"{', '.join(first)}, found {', '.join(scores)}. Make the evaluator give the same names for every "
                "checkpoint, and choose another --run where wrong ones are remembered."
            )

    def unknown(self, recipe: Recipe, jury: BenchmarkSuite) -> list[int]:
        """The places of the benchmarks on which a recipe has no remembered score yet."""
        keys = [score_key(recipe.digest, benchmark, identity) for benchmark, _, identity in jury.seats]
        return [place for place, key in enumerate(keys) if self.journal.find(key) is None]

    def remember(self, recipe: Recipe, jury: BenchmarkSuite, place: int, score: Score, seconds: float) -> None:
        """Journal a score that was given now, here or by a worker."""
        benchmark, _, identity = jury.seats[place]
        key = score_key(recipe.digest, benchmark, identity)
        if self.journal.find(key) is None:
            self.journal.remember(key, recipe, benchmark, identity, score, seconds)
            self.fresh.add(key)

    def _scores(self, recipe: Recipe, jury: BenchmarkSuite) -> tuple[dict[str, Score], float | None]:
        if unknown := self.unknown(recipe, jury):
            self._evaluate(recipe, jury, unknown)
        found: dict[str, Score] = {}
        seconds: float | None = None
        for benchmark, _, identity in jury.seats:
            entry = self.journal.find(score_key(recipe.digest, benchmark, identity))
            assert entry is not None
            _add(found, benchmark.name, entry.score)
            if entry.key in self.fresh:
                seconds = (seconds or 0.0) + entry.seconds
        return found, seconds

    def _evaluate(self, recipe: Recipe, jury: BenchmarkSuite, places: Sequence[int]) -> None:
        candidate = make_candidate(recipe, self.pool, self.scratch, self.digests, self.allow_nonfinite)
        candidate.answered = self.answered
        try:
            for place in places:
                benchmark, evaluator, _ = jury.seats[place]
                self.starting(recipe, benchmark)
                score, seconds = evaluate_once(evaluator, candidate, benchmark, jury.timeout_seconds)
                self.remember(recipe, jury, place, score, seconds)
        finally:
            candidate.remove()


def make_candidate(
    recipe: Recipe, pool: Pool, scratch: Path, digests: Mapping[str, ContentDigest], allow_nonfinite: bool
) -> SoupCandidate:
    """A recipe's candidate, with its own place in the run's scratch."""
    home = scratch / recipe.digest[7:19]
    kept = scratch.parent / "answers" / home.name
    return SoupCandidate(recipe, pool, home, digests.values(), allow_nonfinite=allow_nonfinite, kept=kept)


def _key(recipe: Recipe) -> TrialKey:
    """Two ingredients may hold the same weights, and are two trials all the same; the journal answers the second."""
    return recipe.names, recipe.digest


def _add(found: dict[str, Score], name: str, score: Score) -> None:
    """A benchmark's score, or those of its parts, each a benchmark of its own."""
    parts = {part: Score(value, None) for part, value in score.parts.items()} or {name: score}
    twice = sorted(parts.keys() & found.keys())
    if twice:
        raise EvaluatorError(
            f"{name}: gives scores under names that another benchmark has: {', '.join(twice)}. Rename them in one "
            "of the two, or leave one out of --eval."
        )
    found.update(parts)


def shares_of(pool: Pool, chosen: Sequence[Any] | Mapping[Any, float]) -> list[Share]:
    """A strategy's choice as shares in the pool's order: a uniform mean, or the weights that it gave.

    Raises:
        RecipeError: nothing chosen, chosen twice, or not of this pool.
    """
    if isinstance(chosen, str | Ingredient) or not isinstance(chosen, Iterable):
        raise RecipeError(f"Expected a list of ingredients or of their names, or a weight for each; found {chosen!r}.")
    chosen = chosen if isinstance(chosen, Mapping) else list(chosen)
    weights = dict(chosen) if isinstance(chosen, Mapping) else None
    names = [part.name if isinstance(part, Ingredient) else str(part) for part in chosen]
    for name in names:
        if name not in pool.names:
            raise RecipeError(f"The pool has no ingredient '{name}'.{did_you_mean(name, pool.names)}")
    if not names or len(set(names)) < len(names):
        raise RecipeError(f"A soup needs at least one ingredient, and each once; chosen were {names}.")
    given = dict(zip(names, weights.values(), strict=True)) if weights else dict.fromkeys(names, 1 / len(names))
    wrong = [f"{name}: {weight!r}" for name, weight in given.items() if not _is_weight(weight)]
    if wrong or not any(given.values()):
        raise RecipeError(f"Weights must be finite numbers, and not all 0; found {', '.join(wrong) or given}.")
    return [
        Share(name=part.name, path=part.place, weight=float(given[part.name])) for part in pool if part.name in given
    ]


def _is_weight(weight: Any) -> bool:
    return not isinstance(weight, bool) and isinstance(weight, Real) and math.isfinite(weight)  # numpy's are Real, too


def clear_scratch(scratch: Path) -> None:
    """Remove what a killed run left; only for the holder of the journal's lock."""
    shutil.rmtree(scratch, ignore_errors=True)
