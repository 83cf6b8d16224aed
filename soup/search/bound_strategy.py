"""Call a strategy: find it, refuse options that it does not take, hold what it returns against the pool."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soup.errors import EvaluatorError, RecipeError, SoupError
from soup.evaluation.scorer import shares_of
from soup.merging.pool import Ingredient, Pool
from soup.support.plugins import STRATEGIES

__all__ = ["BoundStrategy", "ingredient_names"]


@dataclass(frozen=True)
class BoundStrategy:
    """A strategy with its name and options.

    Raises:
        RecipeError: there is no such strategy, or it does not take these options.
    """

    function: Callable[..., Any]
    name: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, strategy: str | Callable[..., Any], options: Mapping[str, Any] | None) -> BoundStrategy:
        """A strategy by its name, by `FILE.py:FUNCTION`, or as the function itself."""
        function = STRATEGIES.get(strategy) if isinstance(strategy, str) else strategy
        name = strategy if isinstance(strategy, str) else getattr(strategy, "__name__", "strategy")
        _refuse_options(function, name, options or {})
        return cls(function, name, dict(options or {}))

    def out(self, given: str | Path | None) -> Path:
        """Where the soup goes: what the user named, or `soups/<strategy>`."""
        return Path(given) if given is not None else Path("soups") / self.name.replace(":", "_").replace("/", "_")

    def picks(self, pool: Pool, score: Callable[..., Any] | None) -> list[Any] | dict[Any, float]:
        """What the strategy returns: ingredients or their names, or a weight for each.

        Raises:
            RecipeError: the strategy failed, or returned something else.
        """
        try:
            picked = self.function(pool, score or _no_score, **self.options)
            shares_of(pool, picked := dict(picked) if isinstance(picked, Mapping) else _listed(picked))
        except SoupError as error:
            if isinstance(error, RecipeError):
                raise RecipeError(f"Strategy {self.name}: {error}") from error
            raise
        except Exception as error:
            tail = "".join(traceback.format_exception(error)[-4:]).rstrip()
            raise RecipeError(f"Strategy {self.name} failed:\n{tail}") from error
        return picked


def _no_score(chosen: Any, /) -> Any:
    raise EvaluatorError("This strategy asks for scores: pass --eval, e.g. --eval mmbench,ocrbench.")


def _refuse_options(choose: Callable[..., Any], name: str, options: Mapping[str, Any]) -> None:
    """Say before the first evaluation that the strategy can't be called like this."""
    if not callable(choose):
        raise RecipeError(f"Strategy {name}: expected a function of a pool and a score, found {choose!r:.80}.")
    try:
        inspect.signature(choose).bind(None, None, **options)
    except TypeError as error:
        raise RecipeError(
            f"Strategy {name}: {error}. It is called as strategy(pool, score, **options), options being "
            f"{', '.join(options) or 'none'}; it takes {inspect.signature(choose)}."
        ) from error
    except ValueError:
        return  # a callable written in C has no signature to look at


def _listed(picked: Any) -> list[Any]:
    if isinstance(picked, str) or not isinstance(picked, Iterable):
        raise RecipeError(
            f"expected to be given a list of ingredients or names, or a weight for each; found {picked!r}."
        )
    return list(picked)


def ingredient_names(picked: Iterable[Any]) -> tuple[str, ...]:
    """The short names of picked ingredients, in their order."""
    return tuple(part.name if isinstance(part, Ingredient) else str(part) for part in picked)
