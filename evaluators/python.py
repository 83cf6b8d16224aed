"""A function of the user's as a benchmark: `python:FILE.py:FUNCTION` or `python:package.module:FUNCTION`.

def score(checkpoint):                      # the candidate's directory, as text
    return 61.8                             # 0 to 100, higher is better; or {"task": 61.8, ...}
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Candidate, Harness, Score
from soup.evaluation.functions import call_function, refuse_split
from soup.evaluation.settings import EvalSettings
from soup.support.plugins import load_object

__all__ = ["PythonFunction"]


class PythonFunction(Harness):
    """Calls the user's function with the candidate's directory; a dict of numbers counts as one benchmark each."""

    target_hint = "FILE.py:FUNCTION"

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return the function's name and the digest of its source file (of that file alone, not of its imports)."""
        refuse_split(benchmark)
        _function(benchmark)
        module, _, name = benchmark.target.rpartition(":")
        path = _source_file(module)
        code = hashlib.sha256(path.read_bytes()).hexdigest() if path else None
        shown = path.name if path and module.endswith(".py") else module
        return {"evaluator": "python", "function": f"{shown}:{name}", "code": code}

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Return what the function says of the candidate's directory."""
        refuse_split(benchmark)
        return call_function(_function(benchmark), str(candidate.directory()), benchmark.name)


def _function(benchmark: Benchmark) -> Callable[[str], object]:
    function: object = load_object(benchmark.target, "function", EvaluatorError)
    if not callable(function):
        raise EvaluatorError(f"{benchmark.name}: expected a function, found {function!r:.80}.")
    return function


def _source_file(module: str) -> Path | None:
    """Return the file of `FILE.py` or `package.module`; None where there is none."""
    if module.endswith(".py"):
        return Path(module)
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin) if spec and spec.origin else None
    return path if path and path.is_file() else None
