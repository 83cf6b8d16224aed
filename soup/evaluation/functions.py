"""A function of the user's as a benchmark: it gets a candidate's directory, and gives a number or a dict of numbers.

    soup.cook("greedy", "ckpts/", eval=score, out="out/")    # def score(checkpoint): return 61.8

One that gives `{"questions": {"q1": 1.0, "q2": 0.5}}`, each question's points from 0 to 1, is scored by their mean; its
questions can be split, and its soups compared question by question.

From the command line, and for workers, the same function is `python:FILE.py:FUNCTION`.
"""

from __future__ import annotations

import functools
import inspect
import statistics
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence

from soup.errors import EvaluatorError, SoupError
from soup.evaluation.api import Benchmark, Candidate, Harness, Score, Split
from soup.evaluation.function_facts import called_function, function_facts
from soup.evaluation.settings import EvalSettings
from soup.support.foreign_code import INTERRUPTIONS
from soup.support.options import option_name

__all__ = [
    "FunctionEvaluator",
    "benchmark_of_function",
    "call_function",
    "counting_part",
    "refuse_split",
    "to_score",
]


ROUNDING = 1e-6
"""So much beyond 0 or the most a number may be, as a share of the most: what sums in float32 come to."""


def benchmark_of_function(function: Callable[[str], object], split: Split) -> Benchmark:
    """Make a function of this process a benchmark, known by its name."""
    called = function.func if isinstance(function, functools.partial) else function
    name = next(each.__qualname__ for each in (function, called, type(called)) if hasattr(each, "__qualname__"))
    return Benchmark(name.rpartition(".")[2], "function", name, split, function=function)


class FunctionEvaluator(Harness):
    """Calls a function that was given to `soup.cook` or `soup.evaluate` from Python, in this process alone."""

    target_hint = "a function, from Python"
    only_in_this_process = True

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return the digests of the function's source and of what it holds: see `function_facts`.

        Raises:
            EvaluatorError: the function is not known here, its source can't be read, or questions are split.
        """
        try:
            function = _function(benchmark)
            source, facts = inspect.getsource(called_function(function)), function_facts(function)
        except (OSError, TypeError) as cause:
            raise EvaluatorError(
                f"{benchmark.name}: its source can't be read ({cause}), so that another version's scores would be "
                "taken for its own. Put it into a file, and name it python:FILE.py:FUNCTION."
            ) from cause
        if "questions" not in source:  # it gives none, which is told before any work
            refuse_split(benchmark)
        return {"evaluator": "function", **facts}

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Return what the function says of the candidate's directory, over the questions that count."""
        score = call_function(_function(benchmark), str(candidate.directory()), benchmark.name)
        if score.questions is None:
            refuse_split(benchmark)
        return counting_part(score, benchmark)


def _function(benchmark: Benchmark) -> Callable[[str], object]:
    if benchmark.function is None:
        raise EvaluatorError(f"{benchmark.name}: no function of this process. Name it python:FILE.py:FUNCTION.")
    return benchmark.function


def call_function(function: Callable[[str], object], directory: str, name: str) -> Score:
    """Score a checkpoint by a user's function.

    Args:
        function: It gets the directory.
        directory: The checkpoint's.
        name: The benchmark's, for errors.

    Raises:
        EvaluatorError: the function raised, or gave no score.
    """
    try:
        value = function(directory)
    except (SoupError, *INTERRUPTIONS):
        raise
    except BaseException as cause:
        tail = "".join(traceback.format_exception(cause)[-4:])
        raise EvaluatorError(
            f"{name}: the function raised. Call it with a checkpoint's directory to see it alone:\n{tail}"
        ) from cause
    return to_score(value, name)


def to_score(value: object, name: str) -> Score:
    """Make a score of a number, of a dict of numbers (each is a part), or of `{"questions": {INDEX: POINTS}}`.

    The value is the parts' plain mean, or that of the questions' points as a percentage.

    Args:
        value: What a user's code gave.
        name: The benchmark's, for errors.

    Raises:
        EvaluatorError: anything else, such as NaN, a bool, a text, a number beyond 0 to 100, an empty dict.
    """
    if not isinstance(value, Mapping):
        return _score(name, value)
    if not value or not all(isinstance(key, str) for key in value):
        raise EvaluatorError(f"{name}: expected a number or a dict of names to numbers, found {value!r:.200}.")
    _refuse_half_characters(value, name)
    if isinstance(points := value.get("questions"), Mapping):
        return _score_of_questions(points, sorted(value.keys() - {"questions"}), name)
    parts = {key: _score(f"{name}, {key}", number).value for key, number in value.items()}
    return Score(statistics.fmean(parts.values()), parts=parts)


def counting_part(score: Score, benchmark: Benchmark) -> Score:
    """Return a score of questions over those of them that count; a score that does not tell them as it is.

    Raises:
        EvaluatorError: none counts, or none is left for the other part, which is asked after the search.
    """
    part = benchmark.split.part
    if part == "all" or score.questions is None:
        return score
    points = {index: value for index, value in score.questions.items() if benchmark.split.holds(index)}
    if not points or len(points) == len(score.questions):
        empty = part if not points else {"selection": "report", "report": "selection"}[part]
        raise EvaluatorError(
            f"{benchmark.name}: none of its {len(score.questions)} questions is in the {empty} part. Choose another "
            f"{option_name('split')}, or leave it out."
        )
    return _score_of_questions(points, [], benchmark.name)


def refuse_split(benchmark: Benchmark) -> None:
    """Refuse a split for a harness that does not know its questions, and so can't count a part of them.

    Raises:
        EvaluatorError: the benchmark's split is not `all`.
    """
    if benchmark.split.part != "all":
        raise EvaluatorError(
            f"{benchmark.name}: its questions are not known to soup, so they can't be split; leave "
            f"{option_name('split')} out, divide them yourself, or "
            'give {"questions": {INDEX: POINTS}}, each question\'s points from 0 to 1.'
        )


def _score_of_questions(points: Mapping[str, object], others: Sequence[str], name: str) -> Score:
    if others:
        raise EvaluatorError(f'{name}: expected "questions" alone, found {", ".join(others)} beside it.')
    questions: dict[str, float] = {}
    for index, value in points.items():
        number = _python_number(value, 1)
        if not isinstance(number, int | float) or not 0 <= number <= 1:
            raise EvaluatorError(f"{name}: question {index}: expected points from 0 to 1, found {number!r:.80}.")
        questions[str(index)] = float(number)
    _refuse_half_characters(questions, name)
    if len(questions) < max(1, len(points)):
        raise EvaluatorError(f"{name}: expected at least one question, and each once; found {[*points][:5]!r:.200}.")
    return Score(100 * statistics.fmean(questions.values()), len(questions), questions)


def _refuse_half_characters(keys: Iterable[str], name: str) -> None:
    """Refuse what no journal can hold: lone surrogates, which JSON and cut texts may bring."""
    for key in keys:
        try:
            key.encode()
        except UnicodeEncodeError:
            raise EvaluatorError(f"{name}: the name {key!a:.80} holds half of a character; rename it.") from None


def _score(name: str, value: object) -> Score:
    try:
        return Score(_python_number(value, 100))  # type: ignore[arg-type]  # it refuses what is no number
    except EvaluatorError as cause:
        raise EvaluatorError(f"{name}: {cause}") from cause


def _python_number(value: object, most: float) -> object:
    """Return the Python number in a numpy scalar or a torch tensor of one element; anything else as it is.

    What lies beyond 0 or `most` by no more than rounding is that: `100 * sum(right weights) / sum(weights)`.
    """
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        value = item()
    if isinstance(value, float) and -ROUNDING <= value / most <= 1 + ROUNDING:
        return min(max(value, 0.0), float(most)) + 0.0  # which makes 0 of -0
    return value
