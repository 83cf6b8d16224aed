"""Which version of VLMEvalKit is installed, and how to install it."""

from __future__ import annotations

import importlib.metadata

from soup.errors import EvaluatorError

__all__ = ["INSTALL", "version"]

DISTRIBUTIONS = ("ms-vlmeval", "vlmeval")
INSTALL = (
    'pip install "vlm-soup[vlmeval]" (or, where torchvision can\'t go: '
    'pip install "vlm-soup[vlmeval-light]" && pip install --no-deps ms-vlmeval)'
)


def version() -> str:
    """Return VLMEvalKit's version, without importing it.

    Raises:
        EvaluatorError: it is not installed.
    """
    for name in DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise EvaluatorError(f"This benchmark is scored by VLMEvalKit, which is not installed: {INSTALL}.")
