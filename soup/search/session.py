"""A run's scores, open for asking: one by one in this process, or through workers."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from soup.checkpoints.digest import ContentDigest, DigestCache
from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Benchmark, Split
from soup.evaluation.config import EvalConfig
from soup.evaluation.harnesses import can_be_dealt, count
from soup.evaluation.journal import Journal
from soup.evaluation.pace import Evaluations
from soup.evaluation.progress import Progress
from soup.evaluation.question_rule import AuditSize
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.scorer import Scorer
from soup.evaluation.settings import EvalSettings
from soup.evaluation.suite import BenchmarkSuite
from soup.evaluation.trial import Trial
from soup.merging.ingredient import Ingredient
from soup.merging.pool import Pool
from soup.merging.pool_locations import PoolLocations
from soup.merging.pool_recipes import PoolRecipes
from soup.merging.recipe import Recipe
from soup.merging.template import RecipeTemplate
from soup.search.confirmation import choose_confirmed
from soup.search.strategies.base import Choice, Chosen, ScoreFunction
from soup.search.workers.dealing import DealingPool
from soup.search.workers.local import LocalPool
from soup.search.workers.protocol import Event, JobPool, WorkerSpec
from soup.search.workers.ray import RayPool, actor_device
from soup.search.workers.speculation import SpeculativeRunner
from soup.search.workers.watched import WatchedPool
from soup.search.workers.worker import Worker
from soup.support.options import option_name
from soup.support.plugins import ENGINES, EVALUATORS, METHODS, Registry

__all__ = ["Session", "answering_settings", "started_workers"]

T = TypeVar("T")
Point = TypeVar("Point")


@dataclass(frozen=True)
class Session:
    """A run's scores, open for asking: through this process, or through workers if there are any."""

    scorer: Scorer
    runner: SpeculativeRunner | None
    split: float | None

    @classmethod
    @contextmanager
    def open(
        cls,
        pool: Pool,
        suite: BenchmarkSuite,
        config: EvalConfig,
        run: RunDirectory,
        template: RecipeTemplate,
        progress: Progress,
        expected: Evaluations | None = None,
        audit: AuditSize | None = None,
        workers: LocalPool[Event] | None = None,
    ) -> Iterator[Session]:
        """Open a search over a pool; the journal belongs to this process until it is left.

        `expected` and `audit` are as for `Scorer`. `workers` are those of `started_workers`.

        Raises:
            JournalError: another run uses the journal, or it is damaged.
            EvaluatorError: no question of a benchmark is left for those that only report.
        """
        if config.split is not None:
            for entry in suite.on(Split("report", config.split)).entries:
                count(entry.evaluator, entry.benchmark)  # now, and not after the search
        with _journal(run) as journal:
            recipes = _recipes(pool, run, template, progress)
            scorer = Scorer(recipes, suite, journal, run, config.objective, progress, expected, audit)
            with _runner(scorer, config, workers) as runner:
                yield cls(scorer, runner, config.split)

    def choose(self, strategy: Callable[[ScoreFunction], T]) -> T:
        """Return what a strategy chooses, given a score."""
        return self.runner.choose(strategy) if self.runner else strategy(self.scorer)

    def choose_confirmed(self, strategy: Callable[[ScoreFunction], Choice]) -> Choice:
        """Return what a strategy chooses; where estimates led there, its choice was asked everything, and held."""
        return choose_confirmed(self.scorer, self.choose, strategy, self._complete)

    def _complete(self, recipes: Iterable[Recipe]) -> None:
        if self.runner:
            self.runner.complete(recipes, self.scorer.suite.split)

    def evaluate_singles(self) -> None:
        """Score each ingredient alone; see `reported`."""
        if self.runner:
            singles = [self.scorer.recipe([ingredient]) for ingredient in self.scorer.pool]
            self.runner.complete(singles, self.scorer.suite.split)
        for ingredient in self.scorer.pool:
            self.scorer([ingredient])

    def evaluate(self, chosen: Mapping[Point, Chosen]) -> dict[Point, Trial]:
        """Return the trial of each of several soups, on both parts of the questions where they are split.

        Args:
            chosen: What each is made of, by whatever it is known to the caller.
        """
        recipes = [self.scorer.recipe(parts) for parts in chosen.values()]
        if self.runner:
            self.runner.complete(recipes, self.scorer.suite.split)
        trials = {point: self.scorer(parts) for point, parts in chosen.items()}
        if self.split is None:
            return trials
        report = Split("report", self.split)
        if self.runner:
            self.runner.complete(recipes, report)
        return {point: self.scorer.report(trial, report) for point, trial in trials.items()}

    def reported(self, recipe: Recipe | None = None) -> tuple[Trial, ...]:
        """All trials; with a split, single models and the recipe are evaluated on the report questions too.

        So are soups that were asked everything after an estimate.
        """
        if self.split is not None:
            report = Split("report", self.split)
            plan = self.scorer.question_plan
            chosen = {recipe.digest} if recipe else set[str]()
            chosen |= plan.everything if plan else set()
            trials = self.scorer.trials.values()
            wanted = [trial for trial in trials if trial.is_single or trial.recipe.digest in chosen]
            if self.runner:
                self.runner.complete([trial.recipe for trial in wanted], report)
            for trial in wanted:
                self.scorer.report(trial, report)
        return tuple(self.scorer.trials.values())


@contextmanager
def _journal(run: RunDirectory) -> Iterator[Journal]:
    """Own a run's journal and scratch for the time of a search."""
    with Journal(run.journal) as journal:
        run.clear_scratch()
        try:
            yield journal
        except KeyboardInterrupt:
            run.clear_scratch()
            raise
        finally:
            with suppress(OSError):
                run.scratch.rmdir()  # what a failed evaluation left there stays


def _recipes(pool: Pool, run: RunDirectory, template: RecipeTemplate, progress: Progress) -> PoolRecipes:
    """Return what seals the pool's recipes, after a read through what has no digest in the run's directory."""
    cache, base = DigestCache(run.digests), pool.base
    inputs = [*pool, *([base] if base and (template.needs_base or pool.has_adapters) else [])]
    digests = _digests(inputs, cache, progress)
    sources = [part.source(digest.content) for part, digest in zip(pool, digests, strict=False)]
    for remark in Recipe.uniform(sources).repeated:
        progress.on_warning(remark)
    by_name = dict(zip([*pool.names, *(part.location for part in inputs[len(pool) :])], digests, strict=True))
    digest_base = (lambda: _digests([base], cache, progress)[0].content) if base else None
    return PoolRecipes(pool, template, by_name, digest_base)


def _digests(inputs: Sequence[Ingredient], cache: DigestCache, progress: Progress) -> list[ContentDigest]:
    """Return the digests of all that is merged: the ingredients', then the base's if the method reads it."""
    unknown = [part.checkpoint for part in inputs if not cache.knows(part.checkpoint)]
    if unknown:
        progress.on_phase("reading the pool", sum(checkpoint.bytes for checkpoint in unknown))
    return [cache.get(part.checkpoint, progress.on_bytes) for part in inputs]


@contextmanager
def started_workers(
    benchmarks: Sequence[Benchmark], config: EvalConfig, run: RunDirectory
) -> Iterator[LocalPool[Event] | None]:
    """Have this host's workers import what they will need, while this process reads its data; None: there are none.

    Args:
        benchmarks: What will be evaluated.
        config: The run's.
        run: Its directory.
    """
    if not config.workers or config.ray:
        yield None
        return
    workers = LocalPool[Event](config.workers, run.logs, _imports(benchmarks, config.settings))
    try:
        yield workers
    finally:
        workers.close()


def answering_settings(benchmarks: Sequence[Benchmark], config: EvalConfig) -> EvalSettings:
    """Return what evaluators are built from; on a cluster, with what its actors compute on, if an engine is asked.

    Args:
        benchmarks: What will be evaluated.
        config: The run's.

    Raises:
        EvaluatorError: there is no cluster, or it has no torch.
    """
    if not config.ray or not _is_engine_asked(benchmarks):
        return config.settings
    return replace(config.settings, device=actor_device(config.ray))


def _imports(benchmarks: Iterable[Benchmark], settings: EvalSettings) -> Sequence[str]:
    """Return the modules that an engine names, where one will be asked."""
    try:
        return getattr(ENGINES.get(settings.engine), "imports", ()) if _is_engine_asked(benchmarks) else ()
    except SoupError:  # whoever builds it will say why
        return ()


def _is_engine_asked(benchmarks: Iterable[Benchmark]) -> bool:
    try:
        return any(can_be_dealt(EVALUATORS.get(each.harness), each) for each in benchmarks)
    except SoupError:  # whoever builds it will say why
        return False


@contextmanager
def _runner(scorer: Scorer, config: EvalConfig, local: LocalPool[Event] | None) -> Iterator[SpeculativeRunner | None]:
    """Workers for the time of a search; None where candidates are evaluated one by one, in this process."""
    if not config.workers and not config.ray:
        yield None
        return
    start = partial(Worker, _worker_spec(scorer, config))
    workers: JobPool
    if config.ray:
        workers = RayPool(start, config.workers, config.ray)
    else:
        workers = local or LocalPool(config.workers, scorer.run.logs)
        workers.open(start)
    watched = WatchedPool(workers, scorer.suite, scorer.progress.on_worker)
    runner = SpeculativeRunner(scorer, DealingPool(watched, scorer.suite, scorer.candidate))
    gc.freeze()  # or Python looks for garbage in all that is imported, for a quarter of a second, while workers wait
    try:
        yield runner
    finally:
        gc.unfreeze()
        runner.close()
        scorer.run.clear_unfinished()  # of soups that were still being evaluated in vain


def _worker_spec(scorer: Scorer, config: EvalConfig) -> WorkerSpec:
    """Return what workers need to know of a search.

    Raises:
        EvaluatorError: a plug-in exists in this process alone.
    """
    pool, benchmarks = scorer.pool, tuple(entry.benchmark for entry in scorer.suite.entries)
    for entry in scorer.suite.entries:
        if getattr(entry.evaluator, "only_in_this_process", False):
            raise EvaluatorError(
                f"{entry.benchmark.name}: a function of this process, which workers don't have. Put it into a file and "
                f"name it python:FILE.py:FUNCTION, or leave {option_name('workers')} out."
            )
    modules = {
        *_modules(METHODS, [scorer.recipes.template.options.method]),
        *_modules(EVALUATORS, [benchmark.harness for benchmark in benchmarks]),
    }
    locations = PoolLocations.of(pool)
    return WorkerSpec(
        ingredients=locations.ingredients,
        base=locations.base,
        benchmarks=benchmarks,
        settings=config.settings,
        options=scorer.recipes.template.options,
        run=RunDirectory(scorer.run.path.absolute()),
        digests=scorer.recipes.digests,
        modules=tuple(sorted(modules)),
        tokenizer=locations.tokenizer,
    )


def _modules(registry: Registry, names: Sequence[str]) -> Iterator[str]:
    """Return the modules that registered these names in this process, for workers to import as well."""
    for name in names:
        if name in registry.registered:
            module = registry.registered[name].__module__
            if module == "__main__":
                raise EvaluatorError(
                    f"{registry.kind} '{name}' is known to this process alone, and workers do not run its script. "
                    f"Put it into a file and name it FILE.py:NAME, or leave {option_name('workers')} out."
                )
            yield module
