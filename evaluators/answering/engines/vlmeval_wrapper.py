"""`--model vlmeval:CLASS`: VLMEvalKit's own wrapper of a model, in a full install of VLMEvalKit.

A wrapper keeps its weights where it likes, so that nothing is streamed into it: it is built anew for each candidate.
Prompts are the data set's, as with every model here, and not the wrapper's own for that data set.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soup.errors import EvaluatorError
from soup.evaluation.api import Prompt
from soup.support.extras import install_line
from soup.support.options import option_name
from soup.support.text import did_you_mean

__all__ = ["PREFIX", "WrapperEngine", "identity", "wrapper_class"]

PREFIX = "vlmeval:"


def identity(model: str) -> Mapping[str, object]:
    """Return what can change an answer besides the checkpoint, as JSON values."""
    from evaluators.vlmeval_version import version

    return {"model": model, "vlmeval": version()}


def wrapper_class(model: str) -> Any:
    """Import the class that `vlmeval:CLASS` names.

    Raises:
        EvaluatorError: VLMEvalKit is not installed in full, or has no such class.
    """
    name = model.removeprefix(PREFIX)
    try:
        wrappers = importlib.import_module("vlmeval.vlm")
    except ImportError as cause:
        raise EvaluatorError(
            f"{option_name('model')} {model} needs VLMEvalKit in full, not importable here ({cause}): "
            f"{install_line('vlmeval', 'vlmeval')}."
        ) from cause
    wrapper = getattr(wrappers, name, None)
    if not callable(getattr(wrapper, "generate", None)):
        known = [word for word in vars(wrappers) if callable(getattr(vars(wrappers)[word], "generate", None))]
        raise EvaluatorError(
            f"{option_name('model')} {model}: VLMEvalKit has no model class '{name}'.{did_you_mean(name, known)}"
        )
    return wrapper


class WrapperEngine:
    """A wrapper of VLMEvalKit as an engine, which answers one prompt after the other.

    Args:
        wrapper: VLMEvalKit's class, from `wrapper_class`.
        directory: The checkpoint that it is built from.
    """

    def __init__(self, wrapper: Any, directory: Path) -> None:
        self._model = wrapper(model_path=str(directory))

    def answer(self, prompts: list[Prompt], /) -> list[str]:
        """Answer the prompts one after the other: the wrapper knows no batches."""
        return [self._model.generate(message=[dict(part) for part in prompt]) for prompt in prompts]
