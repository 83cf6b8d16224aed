"""What answers prompts with a candidate's weights: the words between harnesses and engines.

An engine knows no benchmark and no score. It holds one candidate at a time, and is built once for a whole search.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from soup.errors import EvaluatorError
from soup.evaluation.api import Candidate
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name
from soup.support.plugins import ENGINES
from soup.support.text import did_you_mean, mask_secrets

__all__ = ["Engine", "OnBatch", "Prompt", "argument_flag", "build_engine", "engine_arguments", "identity_of"]

Prompt = list[dict[str, str]]
"""Parts in their order: `{"type": "image", "value": path}` or `{"type": "text", "value": text}`.

The frames of a video are images with its name, too: `{"type": "image", "value": path, "video": "walk.mp4"}`.
"""

OnBatch = Callable[[list[Prompt], list[str]], None]
"""Hears of some prompts and the replies to them, as soon as they are there."""


@runtime_checkable
class Engine(Protocol):
    """What answers prompts, with one candidate's weights in it at a time.

    It is called in this order: `identity` and `check` at any time; `open`; then `swap`, `answer` and again; `close`,
    after which it may be opened again. A candidate whose files around the weights differ (another tokenizer, another
    configuration) is never swapped in: the engine is closed, and opened on it.

    The registered class or function is called with `EvalSettings` and, by name, with the engine's own arguments
    (`--engine-arg`): its keyword-only parameters.
    """

    def identity(self) -> Mapping[str, object]:
        """Return all that can change an answer besides the candidate and the prompt, as JSON values.

        It is a part of the keys of scores and of remembered answers, so that those of two engines are never mixed: name
        the engine and its version, and the host of an endpoint that it asks (`EvalSettings.engine_url`). It is asked
        for before anything is opened, and is the place to say what is missing.

        Raises:
            EvaluatorError: a library is not installed, or an argument is missing or wrong.
        """

    def check(self, checkpoint: Path) -> None:
        """Look for what would stop this engine, from the files around a checkpoint's weights alone.

        Args:
            checkpoint: A directory whose config, tokenizer and processor files candidates will have.

        Raises:
            EvaluatorError: candidates with such files can't be asked.
        """

    def open(self, candidate: Candidate) -> None:
        """Start with a candidate's weights; nothing is open.

        Args:
            candidate: Whose `directory` is loaded, or whose weights are streamed in by `load_into`.

        Raises:
            EvaluatorError: it did not start; nothing is left open.
        """

    def swap(self, candidate: Candidate) -> None:
        """Put another candidate's weights in place of those that are held; every answer after it is the candidate's.

        Args:
            candidate: Its names, shapes and dtypes are those of what is held.

        Raises:
            Exception: any. What is held then is nobody's: the engine is closed, and opened on the candidate.
        """

    def answer(self, prompts: list[Prompt], on_batch: OnBatch) -> list[str]:
        """Give one answer per prompt, in their order; an answer must not depend on its neighbours.

        Args:
            prompts: All that there are, in any order: how many are asked at a time is the engine's business.
            on_batch: Called once for every prompt, with some of them at a time, as answers come. It may be called from
                one thread only at a time.

        Raises:
            EvaluatorError: an answer did not come. Never an empty text in its place.
        """

    def close(self) -> None:
        """Give back all that is held: memory, processes, files. Nothing happens where nothing is open."""


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
            taken = f"it takes {', '.join(known)}" if known else "it takes none"
            raise EvaluatorError(
                f"{flag} {name}: the engine {settings.engine} has no such argument; {taken}.{did_you_mean(name, known)}"
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
