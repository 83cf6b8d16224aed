"""How a soup is chosen, with a `score` function as argument: one strategy per file."""

from __future__ import annotations

from soup.search.strategies.average import average
from soup.search.strategies.base import Budget, Choice, budget, strategy, tell_best
from soup.search.strategies.greedy import greedy
from soup.search.strategies.maximum import maximum

__all__ = ["Budget", "Choice", "average", "budget", "greedy", "maximum", "strategy", "tell_best"]
