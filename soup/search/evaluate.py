"""Score checkpoints one by one into the journal, or one model that is loaded already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from soup.board.board import shown
from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Score
from soup.evaluation.benchmark_names import parse_benchmarks, secret_remarks
from soup.evaluation.config import BenchmarkNames, EvalConfig
from soup.evaluation.loaded_model import evaluate_loaded
from soup.evaluation.pace import Evaluations
from soup.evaluation.progress import Progress, SearchStart
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.suite import build_suite, check_entries
from soup.evaluation.trial import Trials
from soup.merging.options import MergeOptions
from soup.merging.pool import Locations, Pool
from soup.merging.pool_folders import list_locations
from soup.merging.template import RecipeTemplate
from soup.search.forecast import forecast
from soup.search.session import Session, answering_settings, started_workers
from soup.support.options import refuse_wrong_type

__all__ = ["evaluate", "plan_evaluate"]


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
    refuse_wrong_type(
        {"run_dir": run_dir, "merge": merge},
        {"run_dir": (str, Path, type(None)), "merge": (MergeOptions, type(None))},
        EvaluatorError,
    )
    with shown(progress) as progress:
        if model is None:
            return _evaluate_checkpoints(checkpoints, EvalConfig.of(eval), run_dir, merge or MergeOptions(), progress)
        if checkpoints or run_dir or merge:
            raise EvaluatorError("model: is evaluated where it is; leave checkpoints, run_dir and merge out.")
        return evaluate_loaded(model, processor, EvalConfig.of(eval), progress)


def _evaluate_checkpoints(
    checkpoints: Locations,
    config: EvalConfig,
    run_dir: str | Path | None,
    options: MergeOptions,
    progress: Progress,
) -> Trials:
    locations, benchmarks, run = _parsed(checkpoints, config, run_dir)
    template = RecipeTemplate(options=options)
    with started_workers(benchmarks, config, run) as workers:
        suite = build_suite(benchmarks, answering_settings(benchmarks, config))
        for text in secret_remarks(benchmarks, config):
            progress.on_warning(text)
        with Pool(locations) as pool:
            most = Evaluations.of_each(len(pool), split=config.split is not None)
            names = tuple(each.name for each in benchmarks)
            progress.on_search(SearchStart("eval", names, tuple(pool.names), most.total))
            with Session.open(pool, suite, config, run, template, progress, most, workers=workers) as session:
                session.evaluate_singles()
                return Trials(session.reported())


def plan_evaluate(checkpoints: Locations, config: EvalConfig, run_dir: str | Path | None) -> dict[str, object]:
    """Return what `evaluate` would do with the same arguments, after the same checks and before any work.

    Raises:
        SoupError: as `evaluate`.
    """
    locations, benchmarks, run = _parsed(checkpoints, config, run_dir)
    suite = build_suite(benchmarks, answering_settings(benchmarks, config))
    with Pool(locations) as pool:
        check_entries(suite.entries, pool)
        most = Evaluations.of_each(len(pool), split=config.split is not None)
        return {
            "schema": 1,
            "checkpoints": list(pool.names),
            "benchmarks": [benchmark.name for benchmark in benchmarks],
            "evaluations_at_most": most.total,
            **forecast(most, suite, config, run),
            "run": str(run.path),
            "warnings": secret_remarks(benchmarks, config),
        }


def _parsed(
    checkpoints: Locations, config: EvalConfig, run_dir: str | Path | None
) -> tuple[list[str | Path], Sequence[Benchmark], RunDirectory]:
    locations = list_locations(checkpoints)
    benchmarks = config.parse() or parse_benchmarks([""])  # none at all is an error here
    return locations, benchmarks, RunDirectory.choose(run_dir, locations)
