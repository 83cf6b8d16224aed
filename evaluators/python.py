"""A function of the user's as a benchmark: `python:FILE.py:FUNCTION` or `python:package.module:FUNCTION`.

def score(checkpoint):                      # the candidate's directory, as text
    return 61.8                             # 0 to 100, higher is better; or {"task": 61.8, ...}
"""

from __future__ import annotations

import hashlib
import importlib.util
import statistics
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Benchmark, Candidate, Harness, Score
from soup.evaluation.settings import EvalSettings
from soup.support.options import option_name
from soup.support.plugins import load_object

__all__ = ["PythonFunction", "refuse_split", "to_score"]


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
        function = _function(benchmark)
        directory = str(candidate.directory())
        try:
            value = function(directory)
        except SoupError:
            raise
        except Exception as cause:
            tail = "".join(traceback.format_exception(cause)[-4:])
            raise EvaluatorError(
                f"{benchmark.name}: the function raised. Call it with a checkpoint's directory to see it alone:\n{tail}"
            ) from cause
        return to_score(value, benchmark.name)


def to_score(value: object, name: str) -> Score:
    """Make a score of a number, or of a dict of numbers: each is a part, their plain mean the value.

    Args:
        value: What a user's code gave.
        name: The benchmark's, for errors.

    Raises:
        EvaluatorError: anything else, such as NaN, a bool, a text, a number beyond 0 to 100, an empty dict.
    """
    if not isinstance(value, Mapping):
        return _score(name, _python_number(value))
    if not value or not all(isinstance(key, str) for key in value):
        raise EvaluatorError(f"{name}: expected a number or a dict of names to numbers, found {value!r:.200}.")
    parts = {key: _score(f"{name}, {key}", _python_number(number)).value for key, number in value.items()}
    return Score(statistics.fmean(parts.values()), parts=parts)


def refuse_split(benchmark: Benchmark) -> None:
    """Refuse a split for a harness that does not know its questions, and so can't count a part of them.

    Raises:
        EvaluatorError: the benchmark's split is not `all`.
    """
    if benchmark.split.part != "all":
        raise EvaluatorError(
            f"{benchmark.name}: its questions are not known to soup, so they can't be split; leave "
            f"{option_name('split')} out, "
            f"or divide them yourself."
        )


def _score(name: str, value: object) -> Score:
    try:
        return Score(value)  # type: ignore[arg-type]  # it refuses what is no number
    except EvaluatorError as cause:
        raise EvaluatorError(f"{name}: {cause}") from cause


def _python_number(value: object) -> object:
    """Return the Python number in a numpy scalar or a torch tensor of one element; anything else as it is."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    return value


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
