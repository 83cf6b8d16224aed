"""CMA-ES over the weights: a population of weighted means, drawn ever closer around the best.

Source: Akiba et al., Evolutionary Optimization of Model Merging Recipes, arXiv 2403.13187, section 3.1; the search
itself is Hansen's, arXiv 1604.00772, by the library `cma`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from soup.errors import RecipeError
from soup.search.strategies.acceptance import Rule, best_of, careful_rule, describe_overall
from soup.search.strategies.base import (
    Budget,
    Choice,
    Scored,
    ScoreFunction,
    Watched,
    allowed,
    budget,
    unknown,
)
from soup.search.strategies.greedy import greedy
from soup.search.strategies.weight_space import WeightedSoup, WeightSpace, refuse_components, summit
from soup.support.extras import install_line
from soup.support.options import option_name
from soup.support.text import pluralize

__all__ = ["cma"]

T = TypeVar("T")

SIGMA = 0.5
"""The first spread of the coordinates: weights then differ by a factor of two or so."""

BROKEN = 1000.0  # a soup that breaks a guard ranks below all others
MANY_DIMENSIONS = 12  # beyond which a hundred soups are few


def _budget(
    count: int,
    *,
    seed: int = 0,
    evaluations: int = 100,
    start: str = "average",
    scale: bool = False,
    components: Sequence[str] = (),
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
    refuse_components(components)
    _library()
    return Budget(singles=count, soups=count + evaluations if count > 1 else 0)


@budget(_budget)
def cma(
    pool: Sequence[T],
    score: ScoreFunction,
    *,
    seed: int = 0,
    evaluations: int = 100,
    start: str = "average",
    scale: bool = False,
    components: Sequence[str] = (),
    accept: str | None = None,
) -> Choice:
    """Search the weights by CMA-ES, and keep them only if they beat greedy's soup and the average.

    What is searched are k - 1 coordinates of the weights' logarithms, which treat all ingredients alike; weights are
    rounded to 3 decimals. The last two soups are the middle of the last generation, and the top of a parabola fitted to
    all that were scored. Needs the library `cma`: `pip install "vlm-soup[cma]"`.

    Args:
        pool: The ingredients.
        score: Scores weighted means of them.
        seed: Seeds the draws: the same seed goes the same way.
        evaluations: How many weightings are scored at most, beside greedy's 2 k - 1 soups and the average.
        start: Where the search starts: `average`, or `greedy`.
        scale: Whether the distance from the base is searched, too, from 0 to 1.5 (method `task-arithmetic`).
        components: Components that get weights of their own, such as `[vision, llm]`; what is not named shares one more
            vector of weights. Each adds k - 1 numbers to the search.
        accept: When a less simple soup replaces a simpler: `gt`, `ge`, or `p>0.9`. By default `p>0.8` where the points
            of each question are known, and `gt` elsewhere.

    Raises:
        RecipeError: A wrong option, or the library is not installed.
    """
    watched = Watched(score)
    rule = careful_rule(accept, watched([pool[0]]))
    rule.check(watched([pool[0]]))
    plain: list[list[T]] = [greedy(pool, watched), list(pool)]
    trials = [(WeightedSoup(soup), watched(soup)) for soup in plain]
    chosen, best = trials[0]
    if watched.met_guess or len(pool) == 1:
        return Choice(chosen.chosen)
    space = WeightSpace(pool, tuple(components), scale=scale)
    evaluated: list[tuple[WeightedSoup, Scored]] = []
    for generation in _generations(
        space, score, space.first(plain[0] if start == "greedy" else pool), seed, evaluations
    ):
        if unknown(trial for _, trial in generation):
            return Choice(chosen.chosen)
        evaluated += generation
    path = [best]
    for soup, trial in [*trials[1:], *([best_of(evaluated)] if evaluated else [])]:  # from simple to less so
        if rule.admits(trial, best):
            chosen, best = soup, trial
            path.append(best)
    notes = [_describe_search(space, evaluated, rule)] if evaluated else []
    return Choice(chosen.chosen, chosen.method, chosen.params, path, notes)


def _generations(
    space: WeightSpace, score: ScoreFunction, first: list[float], seed: int, evaluations: int
) -> Iterator[list[tuple[WeightedSoup, Scored]]]:
    """Yield the soups of each generation with their trials; the next is bred from them."""
    import numpy as np

    draws = np.random.default_rng(seed)
    options = {
        "bounds": space.bounds,
        "maxstd": math.inf,  # a limit makes the library fail in one dimension, where one of two ingredients is best
        "popsize": 4 + math.floor(3 * math.log(len(first))),
        "randn": lambda *shape: draws.standard_normal(shape),
        "seed": math.nan,  # the library's own would be the whole process's
        "verbose": -9,
        "verb_log": 0,
    }
    search = _library().CMAEvolutionStrategy(first, SIGMA, options)
    done, known = 0, list[tuple[Sequence[float], float]]()
    while not search.stop() and done + search.popsize <= evaluations - 2:
        vectors = search.ask()
        generation = [(soup, soup.score(score)) for soup in map(space.soup, vectors)]
        yield generation
        search.tell(vectors, [(0.0 if allowed(trial) else BROKEN) - trial.overall for _, trial in generation])
        known += [(v, trial.overall) for v, (_, trial) in zip(vectors, generation, strict=True) if allowed(trial)]
        done += len(generation)
    last = [search.result.xfavorite]  # the middle, which chance helped less than the best
    last += [top] if (top := summit(known)) else []
    yield [(soup, soup.score(score)) for soup in map(space.soup, last)]


def _describe_search(space: WeightSpace, evaluated: Sequence[tuple[WeightedSoup, Scored]], rule: Rule) -> str:
    soup, trial = best_of(evaluated)
    text = f"The best of {pluralize(len(evaluated), 'weighting')}: {soup}, {describe_overall(trial)}"
    text += f" (kept if it beats the simpler soups by {rule.text})."
    if space.dimensions > MANY_DIMENSIONS:
        text += (
            f" {len(evaluated)} soups are few for {space.dimensions} numbers: fewer components, or more evaluations."
        )
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
        raise RecipeError(f"cma needs the library cma: {install_line('cma')}") from error
    return library
