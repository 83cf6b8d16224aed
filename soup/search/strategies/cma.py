"""CMA-ES over the weights: a population of weighted means, drawn ever closer around the best.

Source: Akiba et al., Evolutionary Optimization of Model Merging Recipes, arXiv 2403.13187, section 3.1; the search
itself is Hansen's, arXiv 1604.00772, by the library `cma`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from soup.errors import RecipeError
from soup.search.strategies.acceptance import Rule, best_of, careful_rule
from soup.search.strategies.base import (
    Budget,
    Choice,
    Chosen,
    Scored,
    ScoreFunction,
    Watched,
    allowed,
    budget,
    unknown,
)
from soup.search.strategies.greedy import greedy
from soup.search.strategies.weighting import describe_weights, weighted
from soup.support.options import option_name

__all__ = ["cma"]

T = TypeVar("T")

SIGMA, BOUND, ABSENT = 0.5, 6.0, -3.0
"""The first spread of the logits, their largest size, and the logit of what greedy's soup does not have."""

SCALES = (0.0, 1.5)
DECIMALS = 3  # of weights: soups so alike are one in the journal
BROKEN = 1000.0  # a soup that breaks a guard ranks below all others


@dataclass(frozen=True)
class _Point:
    """A soup of a population; `scale` is None where it does not vary."""

    chosen: Chosen
    scale: float | None = None

    def score(self, score: ScoreFunction) -> Scored:
        if self.scale is None:
            return score(self.chosen)
        return score(self.chosen, "task-arithmetic", {"scale": self.scale})


def _budget(
    count: int,
    *,
    seed: int = 0,
    evaluations: int = 100,
    start: str = "average",
    scale: bool = False,
    accept: str | None = None,
) -> Budget:
    if accept is not None:
        Rule.parse(accept)
    for name, value, least in (("seed", seed, 0), ("evaluations", evaluations, 10)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise RecipeError(f"{name} must be a whole number of at least {least}; found {value!r}.")
    if start not in ("average", "greedy"):
        raise RecipeError(f"start must be average or greedy; found {start!r}.")
    if not isinstance(scale, bool):
        raise RecipeError(f"scale must be true or false; found {scale!r}.")
    _library()
    return Budget(singles=count, soups=count + evaluations)


@budget(_budget)
def cma(
    pool: Sequence[T],
    score: ScoreFunction,
    *,
    seed: int = 0,
    evaluations: int = 100,
    start: str = "average",
    scale: bool = False,
    accept: str | None = None,
) -> Choice:
    """Search the weights by CMA-ES, and keep them only if they beat greedy's soup and the average.

    Weights are a softmax of k - 1 numbers and 0, rounded to 3 decimals. Needs the library `cma`:
    `pip install "vlm-soup[cma]"`.

    Args:
        pool: The ingredients.
        score: Scores weighted means of them.
        seed: Seeds the draws: the same seed goes the same way.
        evaluations: How many weightings are scored at most, beside greedy's 2 k - 1 soups and the average.
        start: Where the search starts: `average`, or `greedy`.
        scale: Whether the distance from the base is searched, too, from 0 to 1.5 (method `task-arithmetic`).
        accept: When a less simple soup replaces a simpler: `gt`, `ge`, or `p>0.9`. By default `p>0.8` where the points
            of each question are known, and `gt` elsewhere.

    Raises:
        RecipeError: A wrong option, or the library is not installed.
    """
    _budget(len(pool), seed=seed, evaluations=evaluations, start=start, scale=scale, accept=accept)
    watched = Watched(score)
    rule = careful_rule(accept, watched([pool[0]]))
    rule.beats(watched([pool[0]]), watched([pool[0]]))  # a rule that the evaluator can't serve fails now
    plain: list[list[T]] = [greedy(pool, watched), list(pool)]
    trials = [(_Point(soup), watched(soup)) for soup in sorted(plain, key=len)]
    chosen, best = trials[0]
    if watched.met_guess or len(pool) == 1:
        return Choice(chosen.chosen)
    evaluated: list[tuple[_Point, Scored]] = []
    for generation in _generations(pool, score, _first(pool, plain[0], start), seed, evaluations, scale=scale):
        if unknown(trial for _, trial in generation):
            return Choice(chosen.chosen)
        evaluated += generation
    path = [best]
    for point, trial in [*trials[1:], *([best_of(evaluated)] if evaluated else [])]:  # from simple to less so
        if rule.admits(trial, best):
            chosen, best = point, trial
            path.append(best)
    notes = [_describe_search(evaluated, rule)] if evaluated else []
    varied = chosen.scale is not None
    params = {"scale": chosen.scale} if varied else None
    return Choice(chosen.chosen, "task-arithmetic" if varied else None, params, path, notes)


def _first(pool: Sequence[T], soup: Sequence[T], start: str) -> list[float]:
    """Return the logits of the average or of greedy's soup, less the last one's."""
    logits = [0.0 if start == "average" or any(part is other for other in soup) else ABSENT for part in pool]
    return [logit - logits[-1] for logit in logits[:-1]]


def _generations(
    pool: Sequence[T], score: ScoreFunction, first: list[float], seed: int, evaluations: int, *, scale: bool
) -> Iterator[list[tuple[_Point, Scored]]]:
    """Yield the soups of each generation with their trials; the next is bred from them."""
    import numpy as np

    draws = np.random.default_rng(seed)
    dimensions, extra = len(first), int(scale)
    options = {
        "bounds": [[-BOUND] * dimensions + [SCALES[0]] * extra, [BOUND] * dimensions + [SCALES[1]] * extra],
        "popsize": 4 + math.floor(3 * math.log(dimensions + extra)),
        "randn": lambda *shape: draws.standard_normal(shape),
        "seed": math.nan,  # the library's own would be the whole process's
        "verbose": -9,
        "verb_log": 0,
    }
    search = _library().CMAEvolutionStrategy([*first, *[1.0] * extra], SIGMA, options)
    done = 0
    while not search.stop() and done + search.popsize < evaluations:
        vectors = search.ask()
        points = [_point(pool, [float(value) for value in vector], scale=scale) for vector in vectors]
        trials = [point.score(score) for point in points]
        yield list(zip(points, trials, strict=True))
        search.tell(vectors, [(0.0 if allowed(trial) else BROKEN) - trial.overall for trial in trials])
        done += len(points)
    point = _point(pool, [float(value) for value in search.result.xfavorite], scale=scale)
    yield [(point, point.score(score))]  # the middle of the last, which chance did less for than for the best


def _point(pool: Sequence[T], vector: Sequence[float], *, scale: bool) -> _Point:
    logits = [*(vector[:-1] if scale else vector), 0.0]
    powers = [math.exp(logit) for logit in logits]
    weights = [round(power / math.fsum(powers), DECIMALS) for power in powers]
    return _Point(weighted(pool, weights), round(vector[-1], DECIMALS) if scale else None)


def _describe_search(evaluated: Sequence[tuple[_Point, Scored]], rule: Rule) -> str:
    point, trial = best_of(evaluated)
    scale = "" if point.scale is None else f", scale {point.scale}"
    text = f"The best of {len(evaluated)} weightings: {describe_weights(point.chosen)}{scale}, {trial.overall:.2f}"
    text += f" (kept if it beats the simpler soups by {rule.text})."
    if getattr(trial, "part", "all") == "all":
        errors = math.sqrt(2 * math.log(len(evaluated)))
        text += (
            f" The best of so many is up to {errors:.1f} standard errors too good by chance alone, and all questions "
            f"chose: {option_name('split')} 0.5 keeps half of them apart."
        )
    return text


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses matplotlib, for plots that nobody asks for
            import cma as library
    except ImportError as error:
        raise RecipeError('cma needs the library cma: pip install "vlm-soup[cma]"') from error
    return library
