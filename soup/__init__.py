"""Model soups of instruction-tuned vision-language models: merge, search, judge.

    from soup import Pool, Recipe, average, greedy, maximum, merge, strategy, method
    import soup
    soup.cook("greedy", pool="ckpts/", eval=["mmbench", "ocrbench"], out="out/")

Everything is imported on first use, so that `soup --help` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from soup._version import __version__

if TYPE_CHECKING:
    from soup.merging.merge import merge
    from soup.merging.methods import method
    from soup.merging.pool import Pool
    from soup.merging.recipe import Recipe
    from soup.search.run import cook
    from soup.search.strategies import average, greedy, maximum, strategy

_MODULES = {
    "Pool": "soup.merging.pool",
    "Recipe": "soup.merging.recipe",
    "average": "soup.search.strategies",
    "cook": "soup.search.run",
    "greedy": "soup.search.strategies",
    "maximum": "soup.search.strategies",
    "merge": "soup.merging.merge",
    "method": "soup.merging.methods",
    "strategy": "soup.search.strategies",
}

__all__ = [
    "Pool",
    "Recipe",
    "__version__",
    "average",
    "cook",
    "greedy",
    "maximum",
    "merge",
    "method",
    "strategy",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'soup' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)
