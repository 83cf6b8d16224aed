"""A strategy's whole run: open the pool, search over scores, merge what was chosen.

Type the same call again after a kill: remembered scores answer at once, and the soup has the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from soup.board.board import shown
from soup.checkpoints.destination import refuse_destination, refuse_unwritable
from soup.errors import EvaluatorError, OutputError, RecipeError
from soup.evaluation.api import Benchmark, Score, Split
from soup.evaluation.benchmark_names import parse_benchmarks, secret_remarks
from soup.evaluation.config import BenchmarkNames, EvalConfig
from soup.evaluation.harnesses import asks_some
from soup.evaluation.loaded_model import evaluate_loaded
from soup.evaluation.progress import Progress, SearchStart
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.suite import BenchmarkSuite, build_suite, check_entries
from soup.evaluation.trial import Trial, Trials
from soup.merging.merge import earlier_soup, refuse_inputs_as_output, write_soup
from soup.merging.options import MergeOptions, WriteOptions
from soup.merging.plan import MergePlan, plan_merge
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe
from soup.merging.shares import shares_of
from soup.merging.template import RecipeTemplate
from soup.search.bound_strategy import BoundStrategy, ingredient_names
from soup.search.confirmation import saves_questions
from soup.search.forecast import Evaluations, forecast
from soup.search.result import Soup, card_scores, save_result
from soup.search.session import Session
from soup.search.strategies.base import Choice, Strategy
from soup.support.open_files import real_path
from soup.support.options import option_name, refuse_wrong_type, speaks_in_flags
from soup.support.text import bullet_list, pluralize

__all__ = ["CookArguments", "cook", "evaluate", "plan_cook", "run_cook"]

Locations = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class CookArguments:
    """The arguments of `cook`, which says what they are.

    Raises:
        RecipeError: arguments of a wrong type.
    """

    strategy: str | Strategy
    pool: Locations
    out: str | Path | None = None
    eval: BenchmarkNames | EvalConfig = ()
    base: str | Path | None = None
    exclude: Sequence[str] = ()
    run_dir: str | Path | None = None
    strategy_args: Mapping[str, Any] | None = None
    merge: MergeOptions | None = None
    write: WriteOptions | None = None

    def __post_init__(self) -> None:
        path = (str, Path, type(None))
        kinds: dict[str, type | tuple[type, ...]] = {
            "pool": (str, Path, Sequence),
            "out": path,
            "base": path,
            "exclude": (list, tuple),
            "run_dir": path,
            "strategy_args": (Mapping, type(None)),
            "merge": (MergeOptions, type(None)),
            "write": (WriteOptions, type(None)),
        }
        refuse_wrong_type({name: getattr(self, name) for name in kinds}, kinds, RecipeError)


@dataclass(frozen=True)
class _Run:
    """A run that is prepared: everything checked that can be, nothing evaluated, nothing written."""

    strategy: BoundStrategy
    pool: Pool
    config: EvalConfig
    benchmarks: tuple[Benchmark, ...]
    directory: RunDirectory
    template: RecipeTemplate
    out: Path
    largest: MergePlan
    warnings: tuple[str, ...]

    def recipe(self, choice: Choice) -> Recipe:
        """Return the recipe of a choice, not sealed yet."""
        return _recipe(self.template.varied(choice.method, choice.params), self.pool, choice.chosen)

    @property
    def evaluations(self) -> Evaluations | None:
        """How many models are evaluated at most; None: who knows."""
        budget, config = self.strategy.budget(len(self.pool)), self.config
        if budget is None:
            return None
        return Evaluations.most(
            budget,
            len(self.pool),
            all_singles=bool(config.objective.guards),
            estimates=self.audit is not None,
            split=config.split is not None,
        )

    @property
    def sure_singles(self) -> tuple[str, ...]:
        """The names of the ingredients that are scored alone, where that is sure to be all of them."""
        budget, count = self.strategy.budget(len(self.pool)), len(self.pool)
        all_singles = self.config.objective.guards or self.audit is not None or (budget and budget.singles == count)
        return tuple(self.pool.names) if all_singles else ()

    @property
    def audit(self) -> float | None:
        """The share of undisputed questions that soups are asked; None: all are asked everything."""
        is_worth_it = saves_questions(self.strategy.budget(len(self.pool)), len(self.pool))
        return self.config.question_rule.audit if is_worth_it else None

    def hint(self, suite: BenchmarkSuite) -> str | None:
        """Return how a long search could cost less; None where it could not, or does already."""
        budget, count = self.strategy.budget(len(self.pool)), len(self.pool)
        is_long = budget is not None and budget.singles + budget.soups > 2 * count
        if not is_long or self.audit is not None:
            return None
        if not any(asks_some(entry.evaluator, entry.benchmark) for entry in suite.entries):
            return None
        rule = "--questions disputed" if speaks_in_flags() else 'questions="disputed"'
        return f"{rule} would ask most soups a fraction of the questions (docs/questions.md)."


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
        exclude: Names of ingredients to leave out.
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
    with _prepared(arguments) as run:
        for text in run.warnings:
            progress.on_warning(text)
        return _search_and_write(run, progress) if run.benchmarks else _write_unscored(run, progress)


def plan_cook(arguments: CookArguments) -> dict[str, object]:
    """Return what `run_cook` would do with the same arguments, after the same checks and before any work.

    Sizes are those of the largest soup that it could write, the mean of the whole pool.

    Raises:
        SoupError: as `cook`.
    """
    with _prepared(arguments) as run:
        plan: dict[str, object] = {"schema": 1, "strategy": run.strategy.name, **run.largest.as_json(run.out)}
        if run.benchmarks:
            suite = build_suite(run.benchmarks, run.config.settings)
            check_entries(suite.entries, run.pool)
            plan["benchmarks"] = [benchmark.name for benchmark in run.benchmarks]
            most = run.evaluations
            plan["evaluations_at_most"] = "as many as the strategy asks for" if most is None else most.total
            if most is not None:
                split = run.config.split
                suites = [suite] if split is None else [suite, suite.on(Split("report", split))]
                plan |= forecast(most, suites, run.directory, run.config.workers)
            plan["run"] = str(run.directory.path)
    return plan


@overload
def evaluate(
    checkpoints: Locations,
    *,
    eval: BenchmarkNames | EvalConfig,
    run_dir: str | Path | None = None,
    merge: MergeOptions | None = None,
    progress: Progress | None = None,
) -> Trials: ...


@overload
def evaluate(
    *, model: object, processor: object, eval: BenchmarkNames | EvalConfig, progress: Progress | None = None
) -> dict[str, Score]: ...


def evaluate(
    checkpoints: Locations = (),
    *,
    eval: BenchmarkNames | EvalConfig,
    model: object = None,
    processor: object = None,
    run_dir: str | Path | None = None,
    merge: MergeOptions | None = None,
    progress: Progress | None = None,
) -> Trials | dict[str, Score]:
    """Score checkpoints one by one, each alone, into the journal. They need not belong together.

    Or score a model that is loaded already, where it is: then the scores by benchmark come back, those of the
    checkpoint that it would be saved as, and nothing is remembered.

    Args:
        checkpoints: Directories or Hub ids.
        model: A model of transformers, in place of checkpoints.
        processor: Its processor.
        eval: As for `cook`.
        run_dir: Where journal, scratch and logs live; by default beside the first checkpoint.
        merge: `allow_nonfinite` lets checkpoints be scored that hold NaN or infinity.
        progress: Who hears how far the run is; by default a board shows it, and `Progress()` is nobody.

    Raises:
        SoupError: a checkpoint is damaged, a benchmark unknown or its data not here, or the harness failed.
    """
    with shown(progress) as progress:
        if model is None:
            return _evaluate_checkpoints(checkpoints, _config(eval), run_dir, merge or MergeOptions(), progress)
        if checkpoints or run_dir or merge:
            raise EvaluatorError("model: is judged where it is; leave checkpoints, run_dir and merge out.")
        return evaluate_loaded(model, processor, _config(eval), progress)


def _evaluate_checkpoints(
    checkpoints: Locations,
    config: EvalConfig,
    run_dir: str | Path | None,
    options: MergeOptions,
    progress: Progress,
) -> Trials:
    locations = _locations(checkpoints)
    benchmarks = config.parse() or parse_benchmarks([""])  # none at all is an error here
    template, suite = RecipeTemplate(options=options), build_suite(benchmarks, config.settings)
    run = RunDirectory.choose(run_dir, locations)
    for text in secret_remarks(benchmarks):
        progress.on_warning(text)
    with Pool(locations) as pool:
        expected = len(pool) * (1 if config.split is None else 2)
        progress.on_search(SearchStart("eval", tuple(each.name for each in benchmarks), tuple(pool.names), expected))
        with Session.open(pool, suite, config, run, template, progress, expected) as session:
            session.evaluate_singles()
            return Trials(session.reported())


@contextmanager
def _prepared(arguments: CookArguments) -> Iterator[_Run]:
    """Check all that can be checked from names and headers alone.

    Raises:
        SoupError: the first kind of thing that would stop the run later.
    """
    bound = BoundStrategy.bind(arguments.strategy, arguments.strategy_args)
    config = _config(arguments.eval)
    benchmarks = config.parse()
    directory = RunDirectory.choose(arguments.run_dir, arguments.pool)
    out = Path(arguments.out) if arguments.out is not None else bound.default_out
    options, write = arguments.merge or MergeOptions(), arguments.write or WriteOptions()
    template = RecipeTemplate(bound.name, config.objective.as_json(), options)
    with Pool(arguments.pool, arguments.base, arguments.exclude) as pool:
        pool.take_tokenizer(options.tokenizer)
        pool.check(options.dtype, options.drop)
        bound.budget(len(pool))  # which refuses wrong options
        if benchmarks:
            directory.refuse_as_output(out)
        is_earlier = _refuse_out(out, write, bound, pool, arguments.pool)
        largest = plan_merge(_recipe(template, pool, list(pool)), pool, options, write)
        if not is_earlier:
            refuse_unwritable(out, largest.write_bytes)
        warnings = (*_warnings(pool, options.drop), *secret_remarks(benchmarks))
        yield _Run(bound, pool, config, benchmarks, directory, template, out, largest, warnings)


def _search_and_write(run: _Run, progress: Progress) -> Soup:
    suite = build_suite(run.benchmarks, run.config.settings)
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
        expected.total if expected else None,
        run.audit,
        expected.estimates if expected else 0,
    ) as session:
        choice = session.choose_confirmed(lambda score: run.strategy.choose(run.pool, score))
        trial = _within_guards(session.scorer(choice.chosen, choice.method, choice.params))
        recipe = trial.recipe
        session.scorer.remark_on_choice()
        trials = session.reported(recipe)
    recipe = _write(run, recipe, trials, progress, suite.notes)
    soup = _soup(run, choice, recipe, trials, session.scorer.remarks.values())
    save_result(run.directory, soup)
    return soup


def _write_unscored(run: _Run, progress: Progress) -> Soup:
    choice = run.strategy.choose(run.pool, None)
    recipe = _write(run, run.recipe(choice), (), progress)
    for text in recipe.repeated:  # a search finds them before it begins; here the merge was the first to read
        progress.on_warning(text)
    return _soup(run, choice, recipe, ())


def _soup(run: _Run, choice: Choice, recipe: Recipe, trials: tuple[Trial, ...], remarks: Iterable[str] = ()) -> Soup:
    warnings = (*run.warnings, *recipe.repeated, *remarks)
    path = tuple(trial.recipe.digest for trial in choice.path if isinstance(trial, Trial))
    names, notes = ingredient_names(choice.chosen), tuple(choice.notes)
    return Soup(run.strategy.name, run.out, names, recipe, trials, warnings, path, notes)


def _write(
    run: _Run, recipe: Recipe, trials: Sequence[Trial], progress: Progress, notes: Mapping[str, str] | None = None
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


def _config(eval: BenchmarkNames | EvalConfig) -> EvalConfig:
    return eval if isinstance(eval, EvalConfig) else EvalConfig(eval)


def _locations(checkpoints: Locations) -> list[str | Path]:
    return [checkpoints] if isinstance(checkpoints, str | Path) else list(checkpoints)


def _recipe(template: RecipeTemplate, pool: Pool, chosen: object) -> Recipe:
    return template.recipe(pool, shares_of(pool, chosen))


def _warnings(pool: Pool, drop: Sequence[str]) -> list[str]:
    warnings = pool.warnings(drop)
    if len(pool) == 1:
        warnings.append(f"a pool of one: the soup will be {pool.names[0]} itself")
    return warnings


def _refuse_out(out: Path, write: WriteOptions, strategy: BoundStrategy, pool: Pool, locations: Locations) -> bool:
    """Refuse before the first evaluation what would stop the last step; return whether an earlier soup may stay.

    An earlier soup of the same strategy and pool may be this very one: that shows when the recipe is known.
    """
    folder = Path(locations) if isinstance(locations, str | Path) else None
    if folder is not None and folder.is_dir() and real_path(out).parent == real_path(folder):
        raise OutputError(
            f"{out}: lies in the pool, where the next run would take it for an ingredient. Choose another "
            f"{option_name('out')}."
        )
    refuse_inputs_as_output(pool, out)
    earlier = earlier_soup(out)
    may_stay = not write.overwrite and not write.as_adapter
    if earlier and may_stay and earlier.strategy == strategy.name and {*earlier.names} <= {*pool.names}:
        return True
    refuse_destination(out, overwrite=write.overwrite)
    return False
