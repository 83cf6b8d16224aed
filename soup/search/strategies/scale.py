"""A soup's scale: a line search over how far the mean goes from the base, or over other parameters of a method.

Sources: WiSE-FT, Wortsman et al., arXiv 2109.01903, section 3 (one coefficient between base and fine-tune); task
arithmetic, Ilharco et al., arXiv 2212.04089, section 2. Several parameters: one after another, coordinate search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from soup.errors import RecipeError
from soup.merging.method_building import make_method
from soup.merging.methods.base import Method
from soup.merging.pool import Pool
from soup.search.strategies.acceptance import Rule, best_of, describe_difference, describe_form, describe_overall
from soup.search.strategies.base import Budget, Choice, Chosen, ScoreFunction, Watched, budget, tell_best, unknown
from soup.search.strategies.weight_space import refuse_components
from soup.support.options import option_name
from soup.support.plugins import STRATEGIES

__all__ = ["scale"]

T = TypeVar("T")
Grid = Mapping[str, Sequence[object]]
Params = dict[str, Any]
Vary = Callable[[Params], Params]

SCALES: Grid = {"scale": (0.25, 0.5, 0.75, 1.25, 1.5)}
"""1 is the soup itself, whose score is known. Beyond 1.5 models were seen to lose the form of an answer."""

FACTORS = (0.5, 0.75, 1.25)
"""Of a component's weights; 1 is known."""


def _budget(
    count: int,
    *,
    start: str = "greedy",
    method: str = "task-arithmetic",
    grid: Grid = SCALES,
    components: Sequence[str] = (),
    accept: str = "gt",
) -> Budget:
    Rule.parse(accept)
    for option, name in (("start", start), ("method", method)):
        if not isinstance(name, str):
            raise RecipeError(f"{option} must be a name; found {name!r}.")
    _refuse_grid(grid)
    refuse_components(components)
    for varied_method in _methods(method, grid, components):
        varied_method.check([1.0] * count)
    if start == "scale" or getattr(STRATEGIES.get(start), "budget", None) is None:
        raise RecipeError(
            f"start must be a strategy that knows how many soups it asks for, such as greedy or "
            f"average; found {start!r}."
        )
    first: Budget = STRATEGIES.get(start).budget(count)
    count = sum(len(values) for values in grid.values()) + len(FACTORS) * len(components)
    return Budget(first.singles, first.soups + count)


def _check(
    pool: object,
    benchmarks: Sequence[str] | None,
    *,
    method: str = "task-arithmetic",
    grid: Grid = SCALES,
    components: Sequence[str] = (),
    **_: object,
) -> None:
    """Refuse a pool without the base that the method needs; a table of scores has none."""
    needs_base = any(varied_method.needs_base for varied_method in _methods(method, grid, components))
    if isinstance(pool, Pool) and needs_base and pool.base is None:
        raise RecipeError(f"{method} needs the base that the ingredients were tuned from: pass {option_name('base')}.")


@budget(_budget, _check)
def scale(
    pool: Sequence[T],
    score: ScoreFunction,
    *,
    start: str = "greedy",
    method: str = "task-arithmetic",
    grid: Grid = SCALES,
    components: Sequence[str] = (),
    accept: str = "gt",
) -> Choice:
    """Take another strategy's soup, and search its distance from the base; or other parameters, one after another.

    `base + scale * (mean - base)` for scale 0.25, 0.5, 0.75, 1.25 and 1.5; the best is kept if it beats the soup as it
    was. With `grid={density: [0.1, 0.3]}` and `method=ties` it searches those parameters of that method. Beside each
    score stands the share of answers that are none by their form, where the evaluator knows it.

    Args:
        pool: The ingredients.
        score: Scores a soup with other parameters of a method.
        start: The strategy that chooses the soup, with its defaults.
        method: The method whose parameters vary.
        grid: The values to try by parameter; a parameter keeps its best value while the next is searched.
        components: Components such as `[vision, llm]` whose factor is searched after the grid, one at a time: 0.5, 0.75
            and 1.25.
        accept: When a value replaces what was before: `gt`, `ge`, or `p>0.9`.

    Raises:
        RecipeError: A wrong option, a method that does not take such a value, or a missing base.
    """
    _check(pool, None, method=method, grid=grid, components=components)
    rule, watched = Rule.parse(accept), Watched(score)
    chosen = _chosen(STRATEGIES.get(start)(pool, watched))
    reference = best = score(chosen)
    if watched.met_guess or unknown([best]):
        return Choice(chosen)
    rule.check(best)
    tell_best(score, best)
    params: dict[str, Any] = {}
    path, notes = [best], []
    for title, ways in _coordinates(grid, components):
        tried = [(value, vary(params)) for value, vary in ways]
        trials = [((value, changed), score(chosen, method, changed)) for value, changed in tried]
        if unknown(trial for _, trial in trials):
            break
        rows = [
            f"  {value}: {describe_overall(trial)}, {describe_difference(trial, reference)}{describe_form(trial)}"
            for (value, _), trial in trials
        ]
        before = f"{describe_overall(reference)} of {start}'s soup{describe_form(reference)}"
        notes.append("\n".join([f"{method} with {title}, against {before}:", *rows]))
        (_, changed), trial = best_of(trials)
        if rule.admits(trial, best):
            params, best = changed, trial
            path.append(best)
            tell_best(score, best)
    return Choice(chosen, method if params else None, params, path, notes)


def _coordinates(grid: Grid, components: Sequence[str]) -> Iterator[tuple[str, list[tuple[object, Vary]]]]:
    """Yield what is searched one after another: its title, and each value with what makes parameters of it."""

    def set_parameter(name: str, value: object, params: Params) -> Params:
        return {**params, name: value}

    def set_factor(component: str, value: object, params: Params) -> Params:
        return {**params, "components": {**params.get("components", {}), component: value}}

    for name, values in grid.items():
        yield name, [(value, partial(set_parameter, name, value)) for value in values]
    for component in components:
        yield f"{component}'s factor", [(value, partial(set_factor, component, value)) for value in FACTORS]


def _chosen(returned: Chosen | Choice) -> Chosen:
    return returned.chosen if isinstance(returned, Choice) else returned


def _refuse_grid(grid: object) -> None:
    if not isinstance(grid, Mapping) or not grid:
        raise RecipeError(
            f"grid must name parameters with the values to try, such as scale: [0.5, 1.5]; found {grid!r:.80}."
        )
    for name, values in grid.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise RecipeError(f"grid: {name} must have a list of values to try; found {values!r:.80}.")
        wrong = [value for value in values if isinstance(value, float) and not math.isfinite(value)]
        if wrong:
            raise RecipeError(f"grid: {name} must have finite values; found {wrong[0]!r}.")


def _methods(method: str, grid: Grid, components: Sequence[str]) -> list[Method]:
    """Return the method with each value that is tried.

    Raises:
        RecipeError: An unknown method, or a value that it does not take.
    """
    return [make_method(method, vary({})) for _, ways in _coordinates(grid, components) for _, vary in ways]
