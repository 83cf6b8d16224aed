"""A strategy's whole run: open the pool, search over scores, merge what was chosen.

Type the same call again after a kill: remembered scores answer at once, and the soup has the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from soup.board.board import shown
from soup.errors import RecipeError
from soup.evaluation.config import BenchmarkNames, EvalConfig
from soup.evaluation.progress import Progress, SearchStart
from soup.evaluation.scorer import Scorer
from soup.evaluation.suite import build_suite, check_entries
from soup.evaluation.trial import Trial
from soup.merging.merge import write_soup
from soup.merging.options import MergeOptions, WriteOptions
from soup.merging.plan import plan_merge
from soup.merging.pool import Locations
from soup.merging.recipe import Recipe
from soup.search.bound_strategy import ingredient_names
from soup.search.forecast import forecast
from soup.search.preparation import CookArguments, PreparedRun, prepare
from soup.search.result import Soup, card_scores, save_result
from soup.search.session import Session, answering_settings, started_workers
from soup.search.strategies.base import Choice, Strategy
from soup.search.workers.local import LocalPool
from soup.search.workers.protocol import Event
from soup.support.options import option_name
from soup.support.text import bullet_list, pluralize

__all__ = ["cook", "plan_cook", "run_cook"]


def cook(
    strategy: str | Strategy,
    pool: Locations,
    *,
    out: str | Path | None = None,
    eval: BenchmarkNames | EvalConfig = (),  # the word that users type
    base: str | Path | None = None,
    exclude: Sequence[str] = (),
    run_dir: str | Path | None = None,
    strategy_args: Mapping[str, Any] | None = None,
    merge: MergeOptions | None = None,
    write: WriteOptions | None = None,
    progress: Progress | None = None,
) -> Soup:
    """Choose a soup from a pool by a strategy, and write it.

    Args:
        strategy: A name, `FILE.py:FUNCTION`, or a function `f(pool, score, **arguments)`.
        pool: A directory whose subdirectories are the ingredients, or checkpoints one by one (directories, Hub ids).
        out: Where the soup goes; by default `soups/<strategy>/`.
        eval: Benchmarks as on the command line, or a function that scores a checkpoint's directory; or an `EvalConfig`
            for all that can be said of them. Without, only strategies that ask for no score can run.
        base: The model that the ingredients were tuned from.
        exclude: Names of ingredients to leave out, or patterns of such (`run-*`).
        run_dir: Where journal, scratch and logs live; by default beside the pool.
        strategy_args: The strategy's keyword arguments.
        merge: How ingredients become one model.
        write: How the soup is written.
        progress: Who hears how far the run is; by default a board shows it, and `Progress()` is nobody.

    Raises:
        SoupError: see the tree in `soup/errors.py`. What can be checked is checked before the first evaluation.
    """
    arguments = CookArguments(strategy, pool, out, eval, base, exclude, run_dir, strategy_args, merge, write)
    with shown(progress) as progress:
        return run_cook(arguments, progress)


def run_cook(arguments: CookArguments, progress: Progress) -> Soup:
    """Cook with these arguments; see `cook`."""
    with prepare(arguments) as run:
        for text in run.warnings:
            progress.on_warning(text)
        return _search_and_write(run, progress) if run.benchmarks else _write_unscored(run, progress)


def plan_cook(arguments: CookArguments) -> dict[str, object]:
    """Return what `run_cook` would do with the same arguments, after the same checks and before any work.

    Sizes are those of the largest soup that it could write, the mean of the whole pool.

    Raises:
        SoupError: as `cook`.
    """
    with prepare(arguments) as run:
        plan: dict[str, object] = {"schema": 1, "strategy": run.strategy.name, **run.largest.as_json(run.out)}
        if run.benchmarks:
            suite = build_suite(run.benchmarks, answering_settings(run.benchmarks, run.config))
            check_entries(suite.entries, run.pool)
            plan["benchmarks"] = [benchmark.name for benchmark in run.benchmarks]
            most = run.evaluations
            plan["evaluations_at_most"] = "as many as the strategy asks for" if most is None else most.total
            if most is not None:
                plan |= forecast(most, suite, run.config, run.directory)
            plan["run"] = str(run.directory.path)
        plan["warnings"] = list(run.warnings)
    return plan


def _search_and_write(run: PreparedRun, progress: Progress) -> Soup:
    with started_workers(run.benchmarks, run.config, run.directory) as workers:
        choice, recipe, trials, scorer = _search(run, progress, workers)
    recipe = _write(run, recipe, trials, progress, scorer.suite.notes)
    soup = _soup(run, choice, recipe, trials, scorer.remarks.values())
    save_result(run.directory, soup)
    return soup


def _search(
    run: PreparedRun, progress: Progress, workers: LocalPool[Event] | None
) -> tuple[Choice, Recipe, tuple[Trial, ...], Scorer]:
    suite = build_suite(run.benchmarks, answering_settings(run.benchmarks, run.config))
    expected = run.evaluations
    benchmarks = tuple(benchmark.name for benchmark in run.benchmarks)
    progress.on_search(
        SearchStart(run.strategy.name, benchmarks, run.sure_singles, expected.total if expected else None)
    )
    if hint := run.hint(suite):
        progress.on_hint(hint)
    if run.audit is None and run.config.question_rule.audit is not None:
        progress.on_hint("Every soup is asked all questions: asking fewer would save none in so short a search.")
    with Session.open(
        run.pool,
        suite,
        run.config,
        run.directory,
        run.template,
        progress,
        expected,
        run.audit,
        workers,
    ) as session:
        choice = session.choose_confirmed(lambda score: run.strategy.choose(run.pool, score))
        trial = _within_guards(session.scorer(choice.chosen, choice.method, choice.params))
        recipe = trial.recipe
        session.scorer.remark_on_choice()
        return choice, recipe, session.reported(recipe), session.scorer


def _write_unscored(run: PreparedRun, progress: Progress) -> Soup:
    choice = run.strategy.choose(run.pool, None)
    recipe = _write(run, run.recipe(choice), (), progress)
    for text in recipe.repeated:  # a search finds them before it begins; here the merge was the first to read
        progress.on_warning(text)
    return _soup(run, choice, recipe, ())


def _soup(
    run: PreparedRun, choice: Choice, recipe: Recipe, trials: tuple[Trial, ...], remarks: Iterable[str] = ()
) -> Soup:
    warnings = (*run.warnings, *recipe.repeated, *remarks)
    path = tuple(trial.recipe.digest for trial in choice.path if isinstance(trial, Trial))
    names, notes = ingredient_names(choice.chosen), tuple(choice.notes)
    return Soup(run.strategy.name, run.out, names, recipe, trials, warnings, path, notes, run.arguments)


def _write(
    run: PreparedRun,
    recipe: Recipe,
    trials: Sequence[Trial],
    progress: Progress,
    notes: Mapping[str, str] | None = None,
) -> Recipe:
    """Merge the chosen recipe; its plan is made once, and is the one that was checked where that is the whole pool."""
    known = run.largest
    plan = known if known.recipe == recipe else plan_merge(recipe, run.pool, known.options, known.write)
    progress.on_phase("merging", plan.read_bytes)
    final = [trial for trial in trials if trial.recipe == recipe]
    scores = card_scores(final[0], notes) if final else None
    return write_soup(
        plan,
        run.out,
        scores=scores,
        scores_note=_estimates_note(trials),
        on_bytes=progress.on_bytes,
        on_remark=progress.on_warning,
    )


def _estimates_note(trials: Sequence[Trial]) -> str:
    """Say on the card that other soups were not asked everything; the soup itself was."""
    count = sum(trial.is_estimated for trial in trials)
    if not count:
        return ""
    return (
        f"On its way the search estimated {pluralize(count, 'other soup')} from the questions on which the single "
        "models differ and a sample of the others; the scores above are those of all questions."
    )


def _within_guards(trial: Trial) -> Trial:
    """Return the chosen soup's trial, unless it breaks a guard: such a soup is not written, whatever the strategy."""
    if trial.broken:
        raise RecipeError(
            f"The chosen soup, {' + '.join(trial.names)}, breaks what {option_name('guard')} asks for, and was not "
            f"written:\n{bullet_list(trial.broken)}\n"
            "All scores are kept: another strategy or a wider guard starts from them."
        )
    return trial
