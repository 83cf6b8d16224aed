"""How a soup is chosen, over an injected `score`: one strategy a file."""

from soup.strategies.average import average
from soup.strategies.base import strategy
from soup.strategies.greedy import greedy
from soup.strategies.maximum import maximum

__all__ = ["average", "greedy", "maximum", "strategy"]
