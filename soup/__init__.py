"""Model soups of instruction-tuned vision-language models: merge, search, evaluate.

    import soup
    soup.cook("greedy", "ckpts/", eval="mmbench,ocrbench", out="out/")

What there is, each imported on first use, so that `soup --help` answers at once:

    cook           choose a soup from a pool by a strategy, and write it
    merge          make a recipe's soup
    evaluate       score checkpoints, into the journal
    sweep          score the line from one model to another
    check          find what speaks against souping a pool

    Pool           the ingredients that may go into a soup, opened
    Recipe         all that is needed to make a soup again
    Journal        the scores of a run
    Progress       who hears how far a run is

    EvalConfig     by which benchmarks soups are scored, and by how many workers
    Objective      how benchmarks are weighed and guarded
    MergeOptions   how ingredients become one model
    WriteOptions   how a checkpoint is written

    average        the strategies that ship: the mean of all,
    maximum        the mean of the best individuals,
    greedy         each ingredient that does not make the mean worse

    strategy       decorators that make your own known by a name: a strategy,
    method         a method,
    evaluator      an evaluator
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from soup._version import __version__

if TYPE_CHECKING:
    from soup.evaluation.config import EvalConfig
    from soup.evaluation.journal import Journal
    from soup.evaluation.objective import Objective
    from soup.evaluation.progress import Progress
    from soup.merging.methods import method
    from soup.merging.options import MergeOptions, WriteOptions
    from soup.merging.pool import Pool
    from soup.merging.recipe import Recipe
    from soup.report.pool_check import check
    from soup.report.sweep import sweep
    from soup.search.evaluate import evaluate
    from soup.search.merge import merge
    from soup.search.run import cook
    from soup.search.strategies import average, greedy, maximum, strategy
    from soup.support.plugins import evaluator

_MODULES = {
    "EvalConfig": "soup.evaluation.config",
    "Journal": "soup.evaluation.journal",
    "MergeOptions": "soup.merging.options",
    "Objective": "soup.evaluation.objective",
    "Pool": "soup.merging.pool",
    "Progress": "soup.evaluation.progress",
    "Recipe": "soup.merging.recipe",
    "WriteOptions": "soup.merging.options",
    "average": "soup.search.strategies",
    "check": "soup.report.pool_check",
    "cook": "soup.search.run",
    "evaluate": "soup.search.evaluate",
    "evaluator": "soup.support.plugins",
    "greedy": "soup.search.strategies",
    "maximum": "soup.search.strategies",
    "merge": "soup.search.merge",
    "method": "soup.merging.methods",
    "strategy": "soup.search.strategies",
    "sweep": "soup.report.sweep",
}

__all__ = [
    "EvalConfig",
    "Journal",
    "MergeOptions",
    "Objective",
    "Pool",
    "Progress",
    "Recipe",
    "WriteOptions",
    "__version__",
    "average",
    "check",
    "cook",
    "evaluate",
    "evaluator",
    "greedy",
    "maximum",
    "merge",
    "method",
    "strategy",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'soup' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
