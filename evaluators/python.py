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
from typing import Any

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Benchmark, Candidate, Harness, Score
from soup.evaluation.settings import EvalSettings
from soup.support.plugins import load_object

__all__ = ["PythonFunction", "refuse_split", "to_score"]


class PythonFunction(Harness):
    """Calls the user's function with the candidate's directory; a dict of numbers counts as one benchmark each."""

    target_hint = "FILE.py:FUNCTION"

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings

    def identity(self, benchmark: Benchmark) -> Mapping[str, Any]:
        """The function's place and the digest of its source file (of that file alone, not of what it imports)."""
        refuse_split(benchmark)
        _function(benchmark)
        place, _, name = benchmark.target.rpartition(":")
        source = _source_file(place)
        code = hashlib.sha256(source.read_bytes()).hexdigest() if source else None
        where = source.name if source and place.endswith(".py") else place
        return {"evaluator": "python", "function": f"{where}:{name}", "code": code}

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """What the function says of the candidate's directory."""
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


def to_score(value: Any, name: str) -> Score:
    """A score from a number, or from a dict of numbers: each one is a part, their plain mean the value.

    Raises:
        EvaluatorError: anything else, such as NaN, a bool, a text, a number beyond 0 to 100, an empty dict.
    """
    if not isinstance(value, Mapping):
        return _score(name, _plain(value))
    if not value or not all(isinstance(key, str) for key in value):
        raise EvaluatorError(f"{name}: expected a number or a dict of names to numbers, found {value!r:.200}.")
    parts = {key: _score(f"{name}, {key}", _plain(number)).value for key, number in value.items()}
    return Score(statistics.fmean(parts.values()), parts=parts)


def refuse_split(benchmark: Benchmark) -> None:
    """Says that a harness which does not tell its questions can't count a part of them.

    Raises:
        EvaluatorError: the benchmark's split is not `all`.
    """
    if benchmark.split.part != "all":
        raise EvaluatorError(
            f"{benchmark.name}: its questions are not known to soup, so they can't be split; leave --split out, "
            f"or divide them yourself."
        )


def _score(name: str, value: Any) -> Score:
    try:
        return Score(value)
    except EvaluatorError as cause:
        raise EvaluatorError(f"{name}: {cause}") from cause


def _plain(value: Any) -> Any:
    """The Python number in a numpy scalar or a torch tensor of one element; anything else as it is."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    return value


def _function(benchmark: Benchmark) -> Callable[[str], Any]:
    found = load_object(benchmark.target, "function", EvaluatorError)
    if not callable(found):
        raise EvaluatorError(f"{benchmark.name}: expected a function, found {found!r:.80}.")
    return found  # type: ignore[no-any-return]


def _source_file(place: str) -> Path | None:
    if place.endswith(".py"):
        return Path(place)
    spec = importlib.util.find_spec(place)
    path = Path(spec.origin) if spec and spec.origin else None
    return path if path and path.is_file() else None
