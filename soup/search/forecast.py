"""What a search will take, before its first question: evaluations and questions, and hours where they are known."""

from __future__ import annotations

from soup.evaluation.api import Split
from soup.evaluation.config import EvalConfig
from soup.evaluation.harnesses import count
from soup.evaluation.journal import Journal, score_key
from soup.evaluation.pace import ASKED, Evaluations, model_cost
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.suite import BenchmarkSuite
from soup.search.confirmation import FINALISTS
from soup.search.strategies.base import Budget

__all__ = ["forecast", "most_evaluations"]


def most_evaluations(budget: Budget, count: int, *, all_singles: bool, estimates: bool, split: bool) -> Evaluations:
    """Return what a strategy comes to.

    Args:
        budget: What it asks for.
        count: The size of the pool.
        all_singles: Whether all single models are asked, whatever the strategy asks for: guards compare with them.
        estimates: Whether soups are estimated: that asks for all single models, and for the finalists once more.
        split: Whether some questions only report: on the single models that were asked and on the choice.
    """
    singles = count if all_singles or estimates else budget.singles
    if not estimates:
        return Evaluations(singles + budget.soups, 0, budget.singles + 1 if split else 0)
    return Evaluations(singles + FINALISTS, budget.soups, count + FINALISTS if split else 0)


def forecast(
    evaluations: Evaluations, suite: BenchmarkSuite, config: EvalConfig, run: RunDirectory
) -> dict[str, float]:
    """Return about how many questions are asked, and hours where the journal has seen these benchmarks so answered.

    Args:
        evaluations: How many models, at most.
        suite: The benchmarks, over the questions that choose.
        config: The run's: which questions only report, and how many models are evaluated at once.
        run: Where its journal may be.
    """
    models = [evaluations.whole + ASKED * evaluations.estimates, evaluations.reported]
    suites = [suite] if config.split is None else [suite, suite.on(Split("report", config.split))]
    plan: dict[str, float] = {}
    counts = [[count(entry.evaluator, entry.benchmark) for entry in suite.entries] for suite in suites]
    if not any(None in row for row in counts):
        plan["questions_about"] = round(
            sum(share * sum(number or 0 for number in row) for share, row in zip(models, counts, strict=False))
        )
    seconds = [_seconds(suite, run) for suite in suites]
    if None not in seconds:
        spent = sum(share * (cost or 0.0) for share, cost in zip(models, seconds, strict=False))
        hours = spent / 3600 / max(1, config.workers)
        plan["hours_about"] = round(hours, 2) or float(f"{hours:.1g}")
    return plan


def _seconds(suite: BenchmarkSuite, run: RunDirectory) -> float | None:
    """Return what a model takes over a suite, by scores of the same data, harness and engine; None without such."""
    if not run.journal.is_file():
        return None
    entries = suite.entries
    with Journal(run.journal, write=False) as journal:
        known = [
            remembered
            for remembered in journal
            if any(remembered.key == score_key(remembered.recipe, entry.benchmark, entry.identity) for entry in entries)
        ]
    cost = model_cost(known, [entry.benchmark.name for entry in entries])
    return None if cost is None else cost.seconds
