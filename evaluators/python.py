"""A function of the user's as a benchmark: `python:FILE.py:FUNCTION` or `python:package.module:FUNCTION`.

def score(checkpoint):                      # the candidate's directory, as text
    return 61.8                             # 0 to 100, higher is better; or {"task": 61.8, ...}

`{"questions": {"q1": 1.0, "q2": 0.5, ...}}` gives each question's points, 0 to 1: the score is their mean, `--split`
can divide them, and soups are compared question by question. A file without the word `questions` gives none.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Candidate, Harness, Score
from soup.evaluation.functions import call_function, counting_part, refuse_split
from soup.evaluation.settings import EvalSettings
from soup.support.plugins import load_object

__all__ = ["PythonFunction"]


class PythonFunction(Harness):
    """Calls the user's function with the candidate's directory; a dict of numbers counts as one benchmark each.

    Args:
        settings: Not looked at: what a function depends on is its own.
    """

    target_hint = "FILE.py:FUNCTION"

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return the function's name and the digest of its source file (of that file alone, not of its imports)."""
        _function(benchmark)
        module, _, name = benchmark.target.rpartition(":")
        path = _source_file(module)
        _refuse_silent_split(benchmark, path)
        code = hashlib.sha256(path.read_bytes()).hexdigest() if path else None
        shown = path.name if path and module.endswith(".py") else module
        return {"evaluator": "python", "function": f"{shown}:{name}", "code": code}

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Return what the function says of the candidate's directory, over the questions that count."""
        _refuse_silent_split(benchmark, _source_file(benchmark.target.rpartition(":")[0]))
        score = call_function(_function(benchmark), str(candidate.directory()), benchmark.name)
        if score.questions is None:
            refuse_split(benchmark)
        return counting_part(score, benchmark)


def _function(benchmark: Benchmark) -> Callable[[str], object]:
    function: object = load_object(benchmark.target, "function", EvaluatorError)
    if not callable(function):
        raise EvaluatorError(f"{benchmark.name}: expected a function, found {function!r:.80}.")
    return function


def _refuse_silent_split(benchmark: Benchmark, source: Path | None) -> None:
    """Refuse a split before any work where the word `questions` is not in the file, so that it tells none."""
    if benchmark.split.part != "all" and source is not None and b"questions" not in source.read_bytes():
        refuse_split(benchmark)


def _source_file(module: str) -> Path | None:
    """Return the file of `FILE.py` or `package.module`; None where there is none."""
    if module.endswith(".py"):
        return Path(module)
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin) if spec and spec.origin else None
    return path if path and path.is_file() else None
