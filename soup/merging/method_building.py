"""A recipe's method, built from its name and parameters; what its code raises is told with its name."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache

from pydantic import TypeAdapter, ValidationError

from soup.errors import RecipeError, SoupError
from soup.merging.methods.base import Method
from soup.merging.recipe import Recipe
from soup.support.plugins import METHODS
from soup.support.text import bullet_list, did_you_mean

__all__ = ["build_method", "make_method", "wrap_method_errors"]


def build_method(recipe: Recipe) -> Method:
    """Return the recipe's method with its parameters, types checked.

    Raises:
        RecipeError: unknown method, or parameters or weights that it does not take.
    """
    method = make_method(recipe.method, recipe.params)
    method.check([share.weight for share in recipe.ingredients])
    return method


def make_method(name: str, params: Mapping[str, object]) -> Method:
    """Return the method of that name with its parameters, types checked.

    Raises:
        RecipeError: unknown method, or parameters that it does not take.
    """
    kind = METHODS.get(name)
    is_method = isinstance(kind, type) and issubclass(kind, Method) and is_dataclass(kind)
    if not is_method:
        raise RecipeError(
            f"Method {name}: expected a frozen dataclass that is a subclass of soup.merging.methods.Method, "
            f"found {kind!r}."
        )
    if kind.granularity not in ("element", "tensor"):
        raise RecipeError(f"Method {name}: granularity is element or tensor, found {kind.granularity!r}.")
    try:
        method: Method = _validator(kind).validate_python(dict(params), strict=False, extra="forbid")
    except ValidationError as error:
        known = [field.name for field in fields(kind) if field.init]
        raise RecipeError(f"Method {name} does not take these params:\n{bullet_list(_faults(error, known))}") from error
    return method


@cache
def _validator(kind: type[Method]) -> TypeAdapter[Method]:
    return TypeAdapter(kind)  # which takes longer than all else here


def _faults(error: ValidationError, known: Sequence[str]) -> Iterator[str]:
    """Yield a line for each fault, with its key and what was found, or the parameters that are known."""
    for fault in error.errors():
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "unexpected_keyword_argument":
            yield f"{key}: no such parameter.{did_you_mean(key, known)}"
        else:
            yield f"{key}: {fault['msg']}, found {fault['input']!r:.80}"


@contextmanager
def wrap_method_errors(method: str) -> Iterator[None]:
    """Turn what the code of a method raises while it merges into an error that names the method.

    Raises:
        RecipeError: The method failed; with the end of the trace.
    """
    try:
        yield
    except (SoupError, OSError, MemoryError):
        raise
    except Exception as cause:
        tail = "".join(traceback.format_exception(cause)[-3:]).rstrip()
        raise RecipeError(f"Method {method} failed; soup.testing.check_method tries it alone:\n{tail}") from cause
