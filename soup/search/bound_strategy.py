"""Call a strategy: find it, refuse arguments that it does not take, hold what it returns against the pool."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from soup.errors import EvaluatorError, RecipeError, SoupError
from soup.evaluation.run_directory import strategy_file_name
from soup.merging.ingredient import Ingredient
from soup.merging.pool import Pool
from soup.merging.shares import Chosen, shares_of
from soup.search.strategies.base import Budget, Choice, Scored, ScoreFunction, Strategy
from soup.support.foreign_code import INTERRUPTIONS
from soup.support.options import option_name
from soup.support.plugins import STRATEGIES

__all__ = ["BoundStrategy", "ingredient_names"]


@dataclass(frozen=True)
class BoundStrategy:
    """A strategy with its name and arguments."""

    function: Strategy
    name: str
    arguments: Mapping[str, Any]

    @classmethod
    def bind(cls, strategy: str | Strategy, arguments: Mapping[str, Any] | None) -> BoundStrategy:
        """Return a strategy with its arguments, before anything is asked of it.

        Args:
            strategy: Its name, `FILE.py:FUNCTION`, or the function itself.
            arguments: Its keyword arguments beside pool and score.

        Raises:
            RecipeError: there is no such strategy, or it does not take these arguments.
        """
        function = STRATEGIES.get(strategy) if isinstance(strategy, str) else strategy
        name = strategy if isinstance(strategy, str) else getattr(strategy, "__name__", "strategy")
        _refuse_arguments(function, name, arguments or {})
        return cls(function, name, dict(arguments or {}))

    @property
    def default_out(self) -> Path:
        """Where the soup goes if the user names no other directory: `soups/<strategy>`."""
        return Path("soups") / strategy_file_name(self.name)

    @property
    def varied_arguments(self) -> dict[str, Any]:
        """The arguments that are not the function's defaults."""
        try:
            known = inspect.signature(self.function).parameters
        except ValueError:  # a callable written in C
            return dict(self.arguments)
        return {key: value for key, value in self.arguments.items() if key not in known or known[key].default != value}

    def budget(self, count: int) -> Budget | None:
        """Return how many soups it asks for at most over a pool of `count`; None where it does not say.

        Raises:
            RecipeError: it refuses its options, or such a pool; or what tells its budget failed, or gave none.
        """
        most: Callable[..., Budget] | None = getattr(self.function, "budget", None)
        if most is None:
            return None
        with _wrap_failures(self.name):
            budget = most(count, **self.arguments)
            if not isinstance(budget, Budget):
                raise RecipeError(f"expected its budget to be a Budget, found {budget!r:.80}.")
        return budget

    def check(self, pool: Pool, benchmarks: Sequence[str] | None) -> None:
        """Have the strategy refuse what it would refuse later.

        Args:
            pool: The ingredients.
            benchmarks: Their names; None where only scores tell them.

        Raises:
            RecipeError: it does, or its check failed.
        """
        if check := getattr(self.function, "check", None):
            with _wrap_failures(self.name):
                check(pool, benchmarks, **self.arguments)

    def choose(self, pool: Pool, score: ScoreFunction | None) -> Choice:
        """Call the strategy, and return its choice.

        Raises:
            RecipeError: the strategy failed, or returned something else.
        """
        with _wrap_failures(self.name):
            returned = self.function(pool, score or _no_score, **self.arguments)
            choice = returned if isinstance(returned, Choice) else Choice(returned)
            chosen = dict(choice.chosen) if isinstance(choice.chosen, Mapping) else _as_list(choice.chosen)
            shares_of(pool, chosen)
        return replace(choice, chosen=chosen)


@contextmanager
def _wrap_failures(name: str) -> Iterator[None]:
    """Name the strategy that refuses, or fails by whatever it raises.

    Raises:
        RecipeError: it did. Other errors of soup's own go on as they are.
    """
    try:
        yield
    except RecipeError as error:
        raise RecipeError(f"Strategy {name}: {error}") from error
    except (SoupError, *INTERRUPTIONS):
        raise
    except BaseException as error:
        tail = "".join(traceback.format_exception(error)[-4:]).rstrip()
        raise RecipeError(f"Strategy {name} failed:\n{tail}") from error


def _no_score(chosen: object, /, method: object = None, params: object = None) -> Scored:
    example = "--eval mmbench,ocrbench" if option_name("eval").startswith("--") else 'eval="mmbench,ocrbench"'
    raise EvaluatorError(f"This strategy asks for scores: pass {option_name('eval')}, e.g. {example}.")


def _refuse_arguments(function: Callable[..., object], name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments with which the strategy can't be called, before the first evaluation."""
    if not callable(function):
        raise RecipeError(f"Strategy {name}: expected a function of a pool and a score, found {function!r:.80}.")
    try:
        inspect.signature(function).bind(None, None, **arguments)
    except TypeError as error:
        raise RecipeError(
            f"Strategy {name}: {error}. It is called as strategy(pool, score, **options), options being "
            f"{', '.join(arguments) or 'none'}; it takes {inspect.signature(function)}."
        ) from error
    except ValueError:
        return  # a callable written in C has no signature to look at


def _as_list(returned: object) -> list[Ingredient | str]:
    if isinstance(returned, str) or not isinstance(returned, Iterable):
        raise RecipeError(
            f"expected to be given a list of ingredients or names, or a weight for each; found {returned!r}."
        )
    return list(returned)


def ingredient_names(chosen: Chosen) -> tuple[str, ...]:
    """Return the short names of chosen ingredients, in their order."""
    return tuple(part.name if isinstance(part, Ingredient) else str(part) for part in chosen)
