"""A strategy's whole run: open the pool, search over scores, merge what was chosen, tell.

Type the same call again after a kill: remembered scores answer at once, and the soup has the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from soup.checkpoints.writer import refuse_destination
from soup.errors import OutputError, RecipeError
from soup.evaluation.api import EvalSettings
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.scorer import Trial, shares_of
from soup.merging.block_loop import Options
from soup.merging.merge import earlier_soup, merge, plan_merge, refuse_inputs_as_output
from soup.merging.plan import merge_plan
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe
from soup.search.bound_strategy import BoundStrategy, ingredient_names
from soup.search.result import Soup, card_scores, save_result
from soup.search.session import Judging, Progress, Session
from soup.support.text import bullet_list

__all__ = ["cook", "evaluate", "plan_cook"]


@dataclass(frozen=True)
class _Output:
    """Where and how the soup is written."""

    out: Path
    overwrite: bool
    max_shard_bytes: int | None
    allow_nonfinite: bool = False
    threads: int | None = None


def cook(
    strategy: str | Callable[..., Any],
    *,
    pool: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    eval: str | Sequence[str] = (),  # the word that users type
    base: str | Path | None = None,
    exclude: Sequence[str] = (),
    run: str | Path | None = None,
    split: float | None = None,
    objective: Objective = PLAIN,
    options: Mapping[str, Any] | None = None,
    method: str = "linear",
    params: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    drop: Sequence[str] = (),
    overwrite: bool = False,
    max_shard_bytes: int | None = None,
    allow_nonfinite: bool = False,
    settings: EvalSettings | None = None,
    workers: int = 0,
    ray: str | None = None,
    listener: Progress | None = None,
    threads: int | None = None,
) -> Soup:
    """Choose a soup from a pool by a strategy, and write it to `out` (default `soups/<strategy>/`).

    `strategy` is a name, `FILE.py:FUNCTION`, or a function `f(pool, score, **options)`. `eval` names benchmarks as on
    the command line; without it only strategies that ask for no score can run. With `split`, that share of each
    benchmark's questions chooses and the others report. `objective` weighs benchmarks and guards them against a drop.
    With `workers`, so many processes judge candidates side by side, one GPU each; with `ray` (an address, or `local`),
    actors of a cluster, by default one a GPU. The outcome is the same.

    Raises:
        SoupError: see the tree in `soup/errors.py`. What can be checked is checked before the first evaluation.
    """
    listener = listener or Progress()
    choice = BoundStrategy.of(strategy, options)
    fields = _fields(choice, objective, method, params, dtype, drop)
    more = {"objective": objective, "workers": workers, "ray": ray, "allow_nonfinite": allow_nonfinite}
    judging = Judging.of(eval, run, pool, split, settings=settings or EvalSettings(), **more)
    output = _Output(choice.out(out), overwrite, max_shard_bytes, allow_nonfinite, threads)
    with Pool.open(pool, base, exclude) as opened:
        opened.check(dtype, drop)
        warnings = _warn(opened, drop, listener)
        _refuse_out(output, choice, opened, pool)
        plan_merge(_unsealed(opened, list(opened), fields), opened)  # method, params, dtype: wrong ones are told now
        search = _search_and_write if judging.benchmarks else _write_unscored
        soup = search(choice, opened, judging, fields, output, listener)
    return Soup(soup.strategy, soup.out, soup.chosen, soup.recipe, soup.trials, (*warnings, *soup.warnings))


def _fields(
    choice: BoundStrategy,
    objective: Objective,
    method: str,
    params: Mapping[str, Any] | None,
    dtype: str | None,
    drop: Sequence[str],
) -> dict[str, Any]:
    """What all recipes of a search have in common."""
    told = {"strategy": choice.name, "objective": objective.as_json()}
    return {**told, "method": method, "params": dict(params or {}), "dtype": dtype, "drop": tuple(drop)}


def _search_and_write(
    choice: BoundStrategy, pool: Pool, judging: Judging, fields: Mapping[str, Any], output: _Output, listener: Progress
) -> Soup:
    judging.refuse_as_output(output.out)
    with Session.open(pool, judging, fields, listener) as search:
        picked = search.choose(lambda score: choice.picks(pool, score))
        recipe = _guarded(search.scorer(picked)).recipe
        trials = search.reported(recipe)
    recipe = _write(pool, recipe, output, trials, listener)
    soup = Soup(choice.name, output.out, ingredient_names(picked), recipe, trials, tuple(recipe.repeated))
    save_result(judging.home, soup)
    return soup


def _write_unscored(
    choice: BoundStrategy, pool: Pool, judging: Judging, fields: Mapping[str, Any], output: _Output, listener: Progress
) -> Soup:
    picked = choice.picks(pool, None)
    recipe = _write(pool, _unsealed(pool, picked, fields), output, (), listener)
    for text in recipe.repeated:  # a search tells them before it begins; here the merge was the first to read
        listener.warn(text)
    return Soup(choice.name, output.out, ingredient_names(picked), recipe, (), tuple(recipe.repeated))


def evaluate(
    checkpoints: Sequence[str | Path],
    *,
    eval: str | Sequence[str],
    run: str | Path | None = None,
    split: float | None = None,
    allow_nonfinite: bool = False,
    settings: EvalSettings | None = None,
    workers: int = 0,
    ray: str | None = None,
    listener: Progress | None = None,
) -> list[Trial]:
    """Score checkpoints one by one, each alone, into the journal. They need not belong together.

    Raises:
        SoupError: a checkpoint is damaged, a benchmark unknown or its data not here, or the harness failed.
    """
    more = {"workers": workers, "ray": ray, "allow_nonfinite": allow_nonfinite}
    judging = Judging.of(eval or [""], run, checkpoints, split, settings=settings or EvalSettings(), **more)
    with (
        Pool.open([*checkpoints]) as opened,
        Session.open(opened, judging, {}, listener or Progress()) as search,
    ):
        search.judge_singles()
        return list(search.reported())


def _guarded(trial: Trial) -> Trial:
    """The chosen soup, unless it breaks a guard: whatever the strategy, such a soup is not written."""
    if trial.broken:
        raise RecipeError(
            f"The chosen soup, {' + '.join(trial.names)}, breaks what --guard asks for, and was not written:\n"
            f"{bullet_list(trial.broken)}\nAll scores are kept: another strategy or a wider guard starts from them."
        )
    return trial


def _unsealed(pool: Pool, chosen: Sequence[Any] | Mapping[Any, float], fields: Mapping[str, Any]) -> Recipe:
    base = pool.base.source() if pool.base else None
    return Recipe(ingredients=tuple(shares_of(pool, chosen)), base=base, **fields)


def _warn(pool: Pool, drop: Sequence[str], listener: Progress) -> list[str]:
    warnings = pool.warnings(drop)
    if len(pool) == 1:
        warnings.append(f"a pool of one: the soup will be {pool.names[0]} itself")
    for text in warnings:
        listener.warn(text)
    return warnings


def _refuse_out(output: _Output, choice: BoundStrategy, pool: Pool, places: Any) -> None:
    """Say before the first evaluation what would stop the last step.

    An earlier soup of the same strategy and pool may be this very one: that shows when the recipe is known.
    """
    out = output.out
    folder = Path(places) if isinstance(places, str | Path) else None
    if folder is not None and folder.is_dir() and out.resolve().parent == folder.resolve():
        raise OutputError(
            f"{out}: lies in the pool, where the next run would take it for an ingredient. Choose another -o/--out."
        )
    refuse_inputs_as_output(pool, out)
    earlier = earlier_soup(out)
    if earlier and not output.overwrite and earlier.strategy == choice.name and {*earlier.names} <= {*pool.names}:
        return
    refuse_destination(out, overwrite=output.overwrite)


def _write(pool: Pool, recipe: Recipe, output: _Output, trials: Sequence[Trial], listener: Progress) -> Recipe:
    plan = plan_merge(recipe, pool, max_shard_bytes=output.max_shard_bytes)
    listener.phase("merging", plan.read_bytes)
    final = [trial for trial in trials if trial.recipe == recipe]
    return merge(
        recipe,
        output.out,
        overwrite=output.overwrite,
        max_shard_bytes=output.max_shard_bytes,
        allow_nonfinite=output.allow_nonfinite,
        scores=card_scores(final[0]) if final else None,
        options=Options(threads=output.threads, progress=listener.progress),
        pool=pool,
    )


def plan_cook(strategy: str | Callable[..., Any], **wishes: Any) -> dict[str, Any]:
    """What `cook` would do with the same arguments, after the same checks and before any work.

    Sizes are those of the largest soup that it could write, the mean of the whole pool.

    Raises:
        SoupError: as `cook`.
    """
    given = signature(cook).bind(strategy, **wishes)
    given.apply_defaults()
    wish = SimpleNamespace(**given.arguments)
    choice = BoundStrategy.of(strategy, wish.options)
    output = _Output(choice.out(wish.out), wish.overwrite, wish.max_shard_bytes)
    fields = _fields(choice, wish.objective, wish.method, wish.params, wish.dtype, wish.drop)
    settings = wish.settings or EvalSettings()
    judging = Judging.of(wish.eval, wish.run, wish.pool, wish.split, settings=settings, objective=wish.objective)
    with Pool.open(wish.pool, wish.base, wish.exclude) as opened:
        opened.check(wish.dtype, wish.drop)
        _refuse_out(output, choice, opened, wish.pool)
        merging = plan_merge(_unsealed(opened, list(opened), fields), opened, max_shard_bytes=wish.max_shard_bytes)
        plan: dict[str, Any] = merge_plan(merging, output.out)
        if judging.benchmarks:
            judging.refuse_as_output(output.out)
            judging.jury()
            plan["benchmarks"] = [benchmark.name for benchmark in judging.benchmarks]
            plan["evaluations_at_most"] = _most_evaluations(choice.name, len(opened), judging)
            plan["run"] = str(judging.home)
    return {"schema": 1, "strategy": choice.name, **plan}


def _most_evaluations(strategy: str, count: int, judging: Judging) -> int | str:
    """How many soups are judged at most, on both parts of the questions where they are split."""
    if strategy not in ("average", "greedy", "maximum"):
        return "as many as the strategy asks for"
    singles = count if strategy != "average" or judging.objective.guards else 0
    chosen = 1 if strategy == "average" else count - 1  # less the single models: all but the first have one more in it
    reported = (count if strategy != "average" else 0) + 1 if judging.split is not None else 0
    return singles + chosen + reported
