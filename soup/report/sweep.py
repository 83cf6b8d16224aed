"""The line between two models: (1 - t) A + t B, its scores, and the barrier in between.

Each point is an ordinary recipe, a weighted mean whose weights may be below 0 beyond the two ends. It goes through the
scorer of searches: scores are remembered, and typing the same again asks for nothing twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from soup.board.board import shown
from soup.checkpoints.weight_files import is_adapter
from soup.errors import PoolError, RecipeError
from soup.evaluation.api import LIKELIHOOD
from soup.evaluation.benchmark_names import parse_benchmarks, secret_remarks
from soup.evaluation.config import BenchmarkNames, EvalConfig
from soup.evaluation.objective import PLAIN
from soup.evaluation.pace import Evaluations
from soup.evaluation.progress import Progress, SearchStart
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.suite import BenchmarkSuite, build_suite, check_entries, likelihood_suite
from soup.evaluation.trial import Trial
from soup.merging.options import MergeOptions
from soup.merging.pool import Pool
from soup.merging.template import RecipeTemplate
from soup.report.sweep_result import Sweep, SweepPoint
from soup.search.session import Session, answering_settings
from soup.support.atomic_files import write_atomic
from soup.support.options import option_name, refuse_wrong_type
from soup.support.text import bullet_list

__all__ = ["SweepArguments", "plan_sweep", "run_sweep", "sweep"]

Location = str | Path

MOST_REACH = 10.0


@dataclass(frozen=True)
class SweepArguments:
    """The arguments of `sweep`, which says what they are.

    Raises:
        RecipeError: arguments of a wrong type, less than two points, or a line that goes on too far.
    """

    a: Location
    b: Location
    eval: BenchmarkNames | EvalConfig
    steps: int = 11
    extrapolate: float = 0.0
    run_dir: str | Path | None = None
    merge: MergeOptions | None = None
    loss: bool = True

    def __post_init__(self) -> None:
        kinds: dict[str, type | tuple[type, ...]] = {
            "a": (str, Path),
            "b": (str, Path),
            "steps": int,
            "extrapolate": (int, float),
            "run_dir": (str, Path, type(None)),
            "merge": (MergeOptions, type(None)),
            "loss": bool,
        }
        refuse_wrong_type({name: getattr(self, name) for name in kinds}, kinds, RecipeError)
        if self.steps < 2:
            raise RecipeError(f"{option_name('steps')} must be at least 2, for both ends; found {self.steps}.")
        if not 0 <= self.extrapolate <= MOST_REACH:
            raise RecipeError(
                f"{option_name('extrapolate')} must lie between 0 and {MOST_REACH:g}; found {self.extrapolate}."
            )

    @property
    def line(self) -> list[float]:
        """Where the points are: evenly from 0 to 1, and no wider apart beyond, as far as the line goes."""
        inner = [step / (self.steps - 1) for step in range(self.steps)]
        beyond = math.ceil(round(self.extrapolate * (self.steps - 1), 9))
        outer = [self.extrapolate * step / beyond for step in range(1, beyond + 1)]
        return [*(-t for t in reversed(outer)), *inner, *(1 + t for t in outer)]


def sweep(
    a: Location,
    b: Location,
    *,
    eval: BenchmarkNames | EvalConfig,  # the word that users type
    steps: int = 11,
    extrapolate: float = 0.0,
    run_dir: str | Path | None = None,
    merge: MergeOptions | None = None,
    loss: bool = True,
    progress: Progress | None = None,
) -> Sweep:
    """Score the line from one model to another, and beyond both.

    Args:
        a: A directory or Hub id, where t = 0.
        b: The same, where t = 1.
        eval: As for `cook`.
        steps: How many points there are from A to B, both included.
        extrapolate: How far the line goes on beyond each end, as a share of the way between them.
        run_dir: Where journal, scratch and logs live; by default beside A.
        merge: Whose tokenizer the points take, and whether NaN and infinity are allowed.
        loss: Whether the loss of the reference answers is measured, too, where the harness can.
        progress: Who hears how far the run is; by default a board shows it, and `Progress()` is nobody.

    Raises:
        SoupError: the models do not belong together or are the same, a benchmark is unknown, or the harness failed.
    """
    with shown(progress) as progress:
        return run_sweep(SweepArguments(a, b, eval, steps, extrapolate, run_dir, merge, loss), progress)


def run_sweep(arguments: SweepArguments, progress: Progress) -> Sweep:
    """Do as `sweep` says."""
    with _prepared(arguments) as run:
        for text in run.warnings:
            progress.on_warning(text)
        trials = _trials(run, run.suite, run.config, arguments, progress)
        losses: dict[float, dict[str, float]] = {}
        if run.likelihoods:
            config = replace(run.config, split=None, objective=PLAIN)  # on the questions that choose
            for t, trial in _trials(run, run.likelihoods, config, arguments, progress).items():
                losses[t] = {name.removesuffix(LIKELIHOOD): score.loss for name, score in trial.scores.items()}
        a, b = run.pool.names
        points = tuple(SweepPoint(t, trial, losses.get(t, {})) for t, trial in trials.items())
        result = Sweep((a, b), points, run.no_loss)
        write_atomic(run.directory.sweep(a, b), json.dumps(result.as_json(), indent=2))
        return result


def _trials(
    run: _Run, suite: BenchmarkSuite, config: EvalConfig, arguments: SweepArguments, progress: Progress
) -> dict[float, Trial]:
    """Return the trial of each point on the benchmarks of a suite."""
    line, template = arguments.line, RecipeTemplate(options=arguments.merge or MergeOptions())
    expected = Evaluations.of_each(len(line), split=config.split is not None)
    names = tuple(entry.benchmark.name for entry in suite.entries)
    progress.on_search(SearchStart("sweep" if suite is run.suite else "losses of the sweep", names, (), expected.total))
    with Session.open(run.pool, suite, config, run.directory, template, progress, expected) as session:
        if len({digest.content for digest in session.scorer.recipes.digests.values()}) == 1:
            raise PoolError(f"{arguments.a} and {arguments.b} hold the same weights: there is no line between them.")
        return session.evaluate({t: _chosen(run.pool, t) for t in line})


def plan_sweep(arguments: SweepArguments) -> dict[str, object]:
    """Return what `run_sweep` would do with the same arguments, after the same checks and before any work.

    Raises:
        SoupError: as `sweep`.
    """
    with _prepared(arguments) as run:
        check_entries(run.suite.entries, run.pool)
        return {
            "schema": 1,
            "from": run.pool.names[0],
            "to": run.pool.names[1],
            "points": [round(t, 6) for t in arguments.line],
            "benchmarks": [entry.benchmark.name for entry in run.suite.entries],
            "no_loss": dict(run.no_loss),
            "evaluations_at_most": run.most_evaluations,
            "run": str(run.directory.path),
            "warnings": run.warnings,
        }


@dataclass(frozen=True)
class _Run:
    """A sweep that is prepared: everything checked that can be, nothing evaluated."""

    pool: Pool
    config: EvalConfig
    suite: BenchmarkSuite
    likelihoods: BenchmarkSuite | None
    no_loss: Mapping[str, str]
    directory: RunDirectory
    most_evaluations: int

    @property
    def warnings(self) -> list[str]:
        """What a user should know although it stops nothing."""
        return [*self.pool.warnings(), *secret_remarks((entry.benchmark for entry in self.suite.entries), self.config)]


@contextmanager
def _prepared(arguments: SweepArguments) -> Iterator[_Run]:
    """Check all that can be checked from names and headers alone."""
    ends, merge = [arguments.a, arguments.b], arguments.merge
    config = arguments.eval if isinstance(arguments.eval, EvalConfig) else EvalConfig(arguments.eval)
    benchmarks = config.parse() or tuple(parse_benchmarks([""]))  # none at all is an error here
    adapters = [str(end) for end in ends if is_adapter(Path(end))]
    if adapters:
        raise RecipeError(
            f"{' and '.join(adapters)}: a line goes between whole models, and this is an adapter: merge it into its "
            f"base first (soup average --pool {adapters[0]} -o out/)."
        )
    with Pool(ends) as pool:
        if skipped := pool.skipped[: len(ends) - len(pool)]:
            raise PoolError(f"A line goes from one checkpoint to another:\n{bullet_list(skipped)}")
        pool.take_tokenizer(merge.tokenizer if merge else None)
        pool.check(as_they_are=True)
        suite = build_suite(benchmarks, answering_settings(benchmarks, config))
        likelihoods, silent = likelihood_suite(suite) if arguments.loss else (None, {})
        rounds = (1 if config.split is None else 2) + (1 if likelihoods else 0)
        run = RunDirectory.choose(arguments.run_dir, ends)
        yield _Run(pool, config, suite, likelihoods, silent, run, rounds * len(arguments.line))


def _chosen(pool: Pool, t: float) -> Sequence[str] | Mapping[str, float]:
    """Return the ends as the single models that they are: their scores may be known already."""
    a, b = pool.names
    return {0.0: [a], 1.0: [b]}.get(t, {a: 1 - t, b: t})
