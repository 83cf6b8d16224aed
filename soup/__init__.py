"""Model soups of instruction-tuned vision-language models: merge, search, judge.

    from soup import Pool, Recipe, average, greedy, maximum, merge, strategy, method
    import soup
    soup.cook("greedy", pool="ckpts/", eval=["mmbench", "ocrbench"], out="out/")

Everything is imported on first use, so that `soup --help` answers at once.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from soup._version import __version__

if TYPE_CHECKING:
    from soup.cook import cook
    from soup.merge import merge
    from soup.methods import method
    from soup.pool import Pool
    from soup.recipe import Recipe
    from soup.strategies import average, greedy, maximum, strategy

_HOMES = {
    "Pool": "soup.pool",
    "Recipe": "soup.recipe",
    "average": "soup.strategies",
    "cook": "soup.cook",
    "greedy": "soup.strategies",
    "maximum": "soup.strategies",
    "merge": "soup.merge",
    "method": "soup.methods",
    "strategy": "soup.strategies",
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
    if name not in _HOMES:
        raise AttributeError(f"module 'soup' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """Keeps `soup.merge` and `soup.cook` the functions: importing a submodule would put the module in their place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
