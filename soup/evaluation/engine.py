"""Build the engine that the settings name, of the arguments that its plug-in takes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping

from soup.errors import EvaluatorError
from soup.evaluation.api import Engine, OnBatch, Prompt  # the contract, which plug-ins may import from here, too
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name
from soup.support.plugins import ENGINES
from soup.support.text import did_you_mean, mask_secrets

__all__ = ["Engine", "OnBatch", "Prompt", "argument_flag", "build_engine", "engine_arguments", "identity_of"]

MEMBERS = ("identity", "check", "open", "swap", "answer", "close")


def build_engine(settings: EvalSettings, arguments: str = "engine_args") -> Engine:
    """Build the engine that the settings name.

    Args:
        settings: The engine's name and its arguments, and how it is asked.
        arguments: The setting that the arguments come from, for errors.

    Raises:
        EvaluatorError: it is unknown or can't be imported, is no engine, takes no such arguments, or needs others.
    """
    factory, named = ENGINES.get(settings.engine), engine_arguments(settings, arguments)
    try:
        _signature(factory).bind(settings, **named)
    except TypeError as reason:
        flag = argument_flag(arguments)
        raise EvaluatorError(
            f"The engine {settings.engine} can't be made of the settings and its {flag}: {reason}."
        ) from None
    engine: Engine = factory(settings, **named)
    if lacking := [name for name in MEMBERS if not callable(getattr(engine, name, None))]:
        raise EvaluatorError(f"The engine {settings.engine} is none: it lacks {', '.join(lacking)}.")
    return engine


def identity_of(identity: Callable[[], Mapping[str, object]], name: str) -> dict[str, object]:
    """Return an engine's identity, which keys are made of, with what looks like a key or a password as ***.

    Args:
        identity: The engine's method.
        name: The engine's name, for the error.

    Raises:
        EvaluatorError: it is no mapping of JSON values; or see `Engine.identity`.
    """
    said = identity()
    try:
        json.dumps(facts := dict(said), allow_nan=False)
    except (TypeError, ValueError) as reason:
        raise EvaluatorError(f"The engine {name}: identity() gives no mapping of JSON values: {reason}.") from None
    shown: dict[str, object] = mask_secrets(facts)
    return shown


def engine_arguments(settings: EvalSettings, arguments: str = "engine_args") -> dict[str, object]:
    """Return the arguments of the engine that the settings name, of the types that it says it takes.

    Args:
        settings: The engine's name and its arguments.
        arguments: The setting that the arguments come from, for errors.

    Raises:
        EvaluatorError: it is unknown or can't be imported, or takes no such arguments.
    """
    factory = ENGINES.get(settings.engine)
    known = {name: each for name, each in _signature(factory).parameters.items() if each.kind == each.KEYWORD_ONLY}
    flag = argument_flag(arguments)
    for name in settings.engine_args:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise EvaluatorError(
                f"{flag} {name}: the engine {settings.engine} has no such argument; {takes}.{did_you_mean(name, known)}"
            )
    return {name: _typed(f"{flag} {name}", known[name], value) for name, value in settings.engine_args.items()}


def argument_flag(arguments: str) -> str:
    """Return what a user types for a setting that holds an engine's arguments."""
    return option_name(arguments, arguments.replace("_args", "_arg").replace("_", "-"))


def _signature(factory: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(factory, eval_str=True)
    except (NameError, TypeError):  # its annotations are for readers alone
        return inspect.signature(factory)


def _typed(title: str, parameter: inspect.Parameter, value: object) -> object:
    """Return an argument's value as the type that its parameter is annotated with; as it is where that is no type."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    if parameter.annotation is parameter.empty or isinstance(parameter.annotation, str):
        return value
    try:
        adapter = TypeAdapter(parameter.annotation, config=ConfigDict(coerce_numbers_to_str=True))
    except PydanticUserError:  # a class that pydantic does not know
        return value
    try:
        typed: object = adapter.validate_python(value)
    except ValidationError as error:
        raise EvaluatorError(f"{title}: {error.errors()[0]['msg']}; found {value!r:.80}.") from error
    return typed
