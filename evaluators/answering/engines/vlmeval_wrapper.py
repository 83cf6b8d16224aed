"""`--model vlmeval:CLASS`: VLMEvalKit's own wrapper of a model, in a full install of VLMEvalKit.

A wrapper keeps its weights where it likes, so that nothing is streamed into it: it is built anew for each candidate.
Prompts are the data set's, as with every model here, and not the wrapper's own for that data set.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators.answering.batching import Prompt
from soup.errors import EvaluatorError
from soup.support.text import did_you_mean

__all__ = ["PREFIX", "WrappedModel", "identity", "wrapper"]

PREFIX = "vlmeval:"


def identity(model: str) -> Mapping[str, Any]:
    """What can change an answer besides the checkpoint."""
    from evaluators.vlmeval_version import version

    return {"model": model, "vlmeval": version()}


def wrapper(model: str) -> Any:
    """The class that `vlmeval:CLASS` names.

    Raises:
        EvaluatorError: VLMEvalKit is not installed in full, or has no such class.
    """
    name = model.removeprefix(PREFIX)
    try:
        wrappers = importlib.import_module("vlmeval.vlm")
    except ImportError as cause:
        raise EvaluatorError(
            f'--model {model} needs VLMEvalKit in full, not importable here ({cause}): pip install "vlm-soup[vlmeval]".'
        ) from cause
    found = getattr(wrappers, name, None)
    if not callable(getattr(found, "generate", None)):
        known = [word for word in vars(wrappers) if callable(getattr(vars(wrappers)[word], "generate", None))]
        raise EvaluatorError(f"--model {model}: VLMEvalKit has no model class '{name}'.{did_you_mean(name, known)}")
    return found


class WrappedModel:
    """A wrapper that answers, one message after the other."""

    def __init__(self, kind: Any, directory: Path) -> None:
        self._model = kind(model_path=str(directory))

    def answer(self, messages: list[Prompt]) -> list[str]:
        """The wrapper's answers; it knows no batches."""
        return [self._model.generate(message=[dict(part) for part in message]) for message in messages]
