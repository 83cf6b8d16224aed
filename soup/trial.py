"""Score a recipe: look it up, else merge, evaluate, remember, tidy. What comes back to a strategy is one float."""

from __future__ import annotations

import math
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from soup.candidate import SoupCandidate
from soup.certainty import paired_difference
from soup.digest import ContentDigest, side_digest
from soup.errors import EvaluatorError, RecipeError, SoupError, did_you_mean
from soup.evaluation import Benchmark, Evaluator, Score, Settings, Split
from soup.journal import Journal, score_key
from soup.objective import PLAIN, Objective
from soup.plugins import EVALUATORS
from soup.pool import Ingredient, Pool
from soup.recipe import Recipe, Share

__all__ = ["Jury", "Scorer", "Trial", "make_jury"]


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


@dataclass(frozen=True)
class Jury:
    """The benchmarks of a run, each with its evaluator and that evaluator's identity for it: ready before any work."""

    seats: tuple[tuple[Benchmark, Evaluator, Mapping[str, Any]], ...]
    timeout_seconds: float | None = None

    @property
    def part(self) -> str:
        """Which of the questions are asked: all, those that choose, or those that report."""
        return self.seats[0][0].split.part

    def on(self, split: Split) -> Jury:
        """The same benchmarks over another part of their questions."""
        seats = [(replace(benchmark, split=split), evaluator) for benchmark, evaluator, _ in self.seats]
        return Jury(tuple((b, e, e.identity(b)) for b, e in seats), self.timeout_seconds)


def make_jury(benchmarks: Sequence[Benchmark], settings: Settings) -> Jury:
    """Build each harness once and ask it about its benchmarks.

    Raises:
        EvaluatorError: a harness is not installed, its data are not here, or it can't split; all are listed.
    """
    if settings.timeout_seconds is not None and not settings.timeout_seconds > 0:
        raise EvaluatorError(f"--timeout must be a number of seconds above 0; found {settings.timeout_seconds}.")
    built: dict[str, Evaluator] = {}
    seats, failed = [], []
    for benchmark in benchmarks:
        try:
            if benchmark.harness not in built:
                built[benchmark.harness] = EVALUATORS.get(benchmark.harness)(settings)
            evaluator = built[benchmark.harness]
            seats.append((benchmark, evaluator, evaluator.identity(benchmark)))
        except EvaluatorError as error:
            failed.append(str(error))
    if failed:
        raise EvaluatorError("\n".join(dict.fromkeys(failed)))
    return Jury(tuple(seats), settings.timeout_seconds)


@dataclass
class Scorer:
    """`score(ingredients)` for a strategy: the trial of their mean. Ask twice and it is evaluated once.

    `digests` are the ingredients' by name, `fields` the recipe's fields that all trials share (method, dtype, ...).
    `starting` is told what is about to be evaluated, `told` each new trial. `trials` keeps them in the order asked.
    """

    pool: Pool
    jury: Jury
    journal: Journal
    scratch: Path
    digests: Mapping[str, ContentDigest]
    fields: Mapping[str, Any] = field(default_factory=dict)
    objective: Objective = PLAIN
    allow_nonfinite: bool = False
    starting: Callable[[Recipe, Benchmark], None] = lambda recipe, benchmark: None
    told: Callable[[Trial], None] = lambda trial: None
    trials: dict[TrialKey, Trial] = field(default_factory=dict)
    made: dict[TrialKey, tuple[dict[str, Score], float | None]] = field(default_factory=dict)

    def __call__(self, chosen: Sequence[Any] | Mapping[Any, float], /) -> Trial:
        """The trial of the mean of some ingredients (or of their names), or of a weighted one.

        Raises:
            EvaluatorError: the harness failed, timed out, or gave no score.
            RecipeError: nothing to score, or an ingredient that the pool does not have.
        """
        recipe = self.recipe(chosen)
        key = _key(recipe)
        if key not in self.trials:
            scores, seconds = self._judged(recipe)
            # Guards compare with the single models, which are scored for them where nobody has asked yet.
            alone = [self._judged(self.recipe([part]))[0] for part in self.pool] if self.objective.guards else []
            broken = self.objective.broken(scores, alone)
            self.trials[key] = Trial(recipe, scores, {}, seconds, self.objective, broken, self.jury.part)
            self.told(self.trials[key])
        return self.trials[key]

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
        base = self.pool.base.source() if self.pool.base else None
        side = side_digest(lead.checkpoint)
        return Recipe(ingredients=tuple(sealed), base=base, side_digest=side, **self.fields)

    def _judged(self, recipe: Recipe) -> tuple[dict[str, Score], float | None]:
        """The scores over the questions that choose, and the seconds that they took; made once."""
        key = _key(recipe)
        if key not in self.made:
            self.made[key] = self._scores(recipe, self.jury)
            self.objective.check(list(self.made[key][0]))
        return self.made[key]

    def _scores(self, recipe: Recipe, jury: Jury) -> tuple[dict[str, Score], float | None]:
        home = self.scratch / recipe.digest[7:19]
        known = self.digests.values()
        kept = self.scratch.parent / "answers" / home.name
        candidate = SoupCandidate(recipe, self.pool, home, known, allow_nonfinite=self.allow_nonfinite, kept=kept)
        found: dict[str, Score] = {}
        seconds: float | None = None
        try:
            for benchmark, evaluator, identity in jury.seats:
                key = score_key(recipe.digest, benchmark, identity)
                entry = self.journal.find(key)
                if entry is None:
                    self.starting(recipe, benchmark)
                    score, took = _evaluate(evaluator, candidate, benchmark, jury.timeout_seconds)
                    entry = self.journal.remember(key, recipe, benchmark, identity, score, took)
                    seconds = (seconds or 0.0) + took
                _add(found, benchmark.name, entry.score)
        finally:
            candidate.remove()
        return found, seconds


def _key(recipe: Recipe) -> TrialKey:
    """Two ingredients may hold the same weights, and are two trials all the same; the journal answers the second."""
    return recipe.names, recipe.digest


def _add(found: dict[str, Score], name: str, score: Score) -> None:
    """A benchmark's score, or those of its parts, each a benchmark of its own."""
    parts = {part: Score(value, None) for part, value in score.parts.items()} or {name: score}
    twice = sorted(parts.keys() & found.keys())
    if twice:
        raise EvaluatorError(f"{name}: gives scores under names that another benchmark has: {', '.join(twice)}.")
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
    return [Share(name=part.name, path=part.place, weight=given[part.name]) for part in pool if part.name in given]


def _is_weight(weight: Any) -> bool:
    return isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)


def _evaluate(
    evaluator: Evaluator, candidate: SoupCandidate, benchmark: Benchmark, timeout_seconds: float | None
) -> tuple[Score, float]:
    began = time.monotonic()
    what = f"{'+'.join(candidate.names)} on {benchmark.name}"
    with candidate.evaluation(f"{benchmark.name}-{benchmark.split.part}") as scratch:
        try:
            with deadline(timeout_seconds), redirect_stdout(sys.stderr):  # stdout is for the answer
                score = evaluator.evaluate(candidate, benchmark)
            if not isinstance(score, Score):
                raise EvaluatorError(f"expected a soup.evaluation.Score, found {score!r:.80}.")
        except (Exception, SystemExit) as error:  # a harness may call sys.exit
            if isinstance(error, SoupError) and not isinstance(error, EvaluatorError):
                raise
            raise EvaluatorError(f"{what}: {_failure(error, benchmark, scratch)}") from error
    return score, time.monotonic() - began


def _failure(error: BaseException, benchmark: Benchmark, scratch: Path) -> str:
    """What went wrong, and the log where the whole of it stands: a harness's own, or else the trace."""
    if isinstance(error, EvaluatorError):
        text = str(error).removeprefix(f"{benchmark.name}: ").rstrip()  # the name is told already
    else:
        text = f"the harness failed:\n{''.join(traceback.format_exception(error)[-3:]).rstrip()}"
    if str(scratch) not in text:
        for log in sorted(scratch.glob("*.log")):
            text += f"\nLog: {log}, which ends:\n{log.read_bytes()[-2000:].decode(errors='replace').rstrip()}"
        log = scratch / "error.log"
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        text += f"\nThe whole trace: {log}"
    return f"{text}\nScores told so far are kept: mend the cause and type the same command."


class _TimeUp(BaseException):
    """Raised into an evaluator that took too long. No Exception, or a harness that catches those would swallow it."""


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Interrupt what runs within after so many seconds, by a timer signal; where there is none, tell afterwards.

    Raises:
        EvaluatorError: the time is up.
    """
    message = f"no answer within --timeout {seconds:g} seconds" if seconds else ""
    began = time.monotonic()
    can_interrupt = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not can_interrupt:
        yield
        if seconds is not None and time.monotonic() - began > seconds:
            raise EvaluatorError(f"{message}.")
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    # And again each second, for code that swallows it once; for longer than the clock can count is for ever.
    signal.setitimer(signal.ITIMER_REAL, min(seconds, 1e8), 1.0)
    try:
        yield
    except _TimeUp as up:
        *_, place, _ring = traceback.extract_tb(up.__traceback__)
        raise EvaluatorError(f"{message}; it was in {place.name} ({place.filename}:{place.lineno}).") from up
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def clear_scratch(scratch: Path) -> None:
    """Remove what a killed run left; only for the holder of the journal's lock."""
    shutil.rmtree(scratch, ignore_errors=True)
