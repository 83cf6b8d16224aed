"""Prepare a strategy's run: check all that can be checked from names and headers, before anything is evaluated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from soup.checkpoints.destination import refuse_destination, refuse_unwritable
from soup.errors import RecipeError
from soup.evaluation.api import Benchmark
from soup.evaluation.benchmark_names import secret_remarks
from soup.evaluation.config import BenchmarkNames, EvalConfig
from soup.evaluation.harnesses import asks_some, may_have_parts
from soup.evaluation.pace import Evaluations
from soup.evaluation.question_rule import AuditSize
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.suite import BenchmarkSuite
from soup.merging.merge import refuse_inputs_as_output
from soup.merging.options import MergeOptions, WriteOptions
from soup.merging.plan import MergePlan, plan_merge
from soup.merging.pool import Locations, Pool
from soup.merging.recipe import Recipe
from soup.merging.shares import shares_of
from soup.merging.soup_files import earlier_soup
from soup.merging.template import RecipeTemplate
from soup.search.bound_strategy import BoundStrategy
from soup.search.confirmation import saves_questions
from soup.search.forecast import most_evaluations
from soup.search.strategies.base import Choice, Strategy
from soup.support.options import refuse_wrong_type, speaks_in_flags
from soup.support.yaml_text import plain_values

__all__ = ["CookArguments", "PreparedRun", "prepare"]


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
class PreparedRun:
    """A run that is prepared: everything checked that can be, nothing evaluated, nothing written.

    Args:
        strategy: What chooses.
        pool: The ingredients, open.
        config: How soups are scored.
        benchmarks: On what; none where the strategy asks for no score.
        directory: Where journal, scratch and logs lie.
        template: What all recipes have in common.
        out: Where the soup goes.
        largest: The merge of the whole pool, which no other one of the run needs more room than.
        warnings: What a user should know although it stops nothing.
    """

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
    def arguments(self) -> dict[str, Any]:
        """What the run was asked with, as JSON has it: see `Soup`."""
        arguments = {
            "pool": list(self.pool.names),
            "eval": [benchmark.name for benchmark in self.benchmarks],
            "split": self.config.split,
            "questions": self.config.questions,
            "strategy_args": plain_values(self.strategy.varied_arguments),
            "method": self.template.options.method,
            "method_args": plain_values(self.template.options.method_args),
        }
        return cast("dict[str, Any]", json.loads(json.dumps(arguments, default=str)))

    @property
    def evaluations(self) -> Evaluations | None:
        """How many models are evaluated at most; None: who knows."""
        budget, config = self.strategy.budget(len(self.pool)), self.config
        if budget is None:
            return None
        return most_evaluations(
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
    def audit(self) -> AuditSize | None:
        """How many undisputed questions soups are asked; None: all are asked everything."""
        budget = self.strategy.budget(len(self.pool))
        if not saves_questions(budget, len(self.pool)):
            return None
        return self.config.question_rule.audit_of(budget.soups if budget else 0, len(self.benchmarks))

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


@contextmanager
def prepare(arguments: CookArguments) -> Iterator[PreparedRun]:
    """Check all that can be checked from names and headers alone.

    Raises:
        SoupError: the first kind of thing that would stop the run later.
    """
    bound = BoundStrategy.bind(arguments.strategy, arguments.strategy_args)
    config = EvalConfig.of(arguments.eval)
    benchmarks = config.parse()
    directory = RunDirectory.choose(arguments.run_dir, arguments.pool)
    out = Path(arguments.out) if arguments.out is not None else bound.default_out
    options, write = arguments.merge or MergeOptions(), arguments.write or WriteOptions()
    template = RecipeTemplate(bound.name, config.objective.as_json(), options)
    with Pool(arguments.pool, arguments.base, arguments.exclude) as pool:
        pool.take_tokenizer(options.tokenizer)
        pool.check(options.dtype, options.drop)
        bound.budget(len(pool))  # which refuses wrong options
        has_parts = any(may_have_parts(benchmark.harness) for benchmark in benchmarks)
        bound.check(pool, None if has_parts or not benchmarks else [benchmark.name for benchmark in benchmarks])
        if benchmarks:
            directory.refuse_as_output(out)
        is_earlier = _refuse_out(out, write, bound, pool, arguments.pool)
        largest = plan_merge(_recipe(template, pool, list(pool)), pool, options, write)
        if not is_earlier:
            refuse_unwritable(out, largest.write_bytes)
        warnings = (*_warnings(pool, options.drop), *largest.idle_parameters, *secret_remarks(benchmarks, config))
        yield PreparedRun(bound, pool, config, benchmarks, directory, template, out, largest, warnings)


def _recipe(template: RecipeTemplate, pool: Pool, chosen: object) -> Recipe:
    return template.recipe(pool, shares_of(pool, chosen))


def _warnings(pool: Pool, drop: Sequence[str]) -> list[str]:
    warnings = pool.warnings(drop)
    if len(pool) == 1:
        warnings.append(f"a pool of one: {pool.names[0]} is averaged with no other")
    return warnings


def _refuse_out(out: Path, write: WriteOptions, strategy: BoundStrategy, pool: Pool, locations: Locations) -> bool:
    """Refuse before the first evaluation what would stop the last step; return whether an earlier soup may stay.

    An earlier soup of the same strategy and pool may be this very one: that shows when the recipe is known.
    """
    folder = Path(locations) if isinstance(locations, str | Path) else None
    refuse_inputs_as_output(pool, out, folder if folder is not None and folder.is_dir() else None)
    earlier = earlier_soup(out)
    if earlier and not write.overwrite and earlier.strategy == strategy.name and {*earlier.names} <= {*pool.names}:
        return True
    refuse_destination(out, overwrite=write.overwrite)
    return False
