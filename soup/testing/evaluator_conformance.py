"""Checks that an evaluator keeps its contract; soup's own pass them. AssertionError says what is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Candidate, Evaluator, Score, Split
from soup.evaluation.harnesses import why_no_likelihood
from soup.evaluation.settings import EvalSettings

__all__ = ["check_evaluator"]


def check_evaluator(
    factory: Callable[[EvalSettings], Evaluator],
    benchmark: Benchmark,
    candidate: Candidate,
    *,
    settings: EvalSettings | None = None,
    failing: Candidate | None = None,
) -> Score:
    """Check that an evaluator keeps the contract of `soup.evaluation.Evaluator`.

    Its identity must be JSON and stay the same. A candidate must get the same score twice, and from a second evaluator
    too. If it can split, the halves must share no question and together be all of them. If it says that it gives the
    likelihood of reference answers, that has an identity of its own, and is the same twice.

    Args:
        factory: What the entry point names: makes an evaluator from settings.
        benchmark: The benchmark to evaluate on.
        candidate: The candidate, such as one of `tiny_candidate`.
        settings: The settings (default: `EvalSettings()`).
        failing: A candidate that can't be evaluated: it must raise EvaluatorError, and never get a score.

    Returns:
        The candidate's score.

    Raises:
        AssertionError: The evaluator breaks the contract.
    """
    settings = settings or EvalSettings()
    evaluator, second = factory(settings), factory(settings)
    assert isinstance(evaluator, Evaluator), f"{factory}: no identity() or no evaluate()"
    identity = _identity(evaluator, benchmark)
    assert _identity(second, benchmark) == identity, "two evaluators of the same settings have two identities"
    score = _evaluate(evaluator, candidate, benchmark)
    _check_score(score, benchmark)
    for other in (evaluator, second):
        assert _evaluate(other, candidate, benchmark) == score, "the same candidate got another score the second time"
    assert _identity(evaluator, benchmark) == identity, "evaluating changed the identity"
    _check_halves(evaluator, benchmark, candidate, score)
    if why_no_likelihood(evaluator, benchmark) is None:
        likely = benchmark.likelihood
        assert _identity(evaluator, likely) != identity, "a likelihood would be remembered as the score"
        values = [_evaluate(each, candidate, likely).loss for each in (evaluator, second)]
        assert values[0] == values[1], "the same candidate got another likelihood the second time"
    if failing is not None:
        _check_failure(evaluator, benchmark, failing)
    return score


class _Attempt:
    """A candidate with fresh directories: nothing that an earlier evaluation left there can answer for it."""

    def __init__(self, candidate: Candidate, folder: Path) -> None:
        self.scratch, self.kept, self._candidate = folder / "scratch", folder / "kept", candidate
        self.scratch.mkdir()

    def __getattr__(self, name: str) -> object:
        attribute: object = getattr(self._candidate, name)
        return attribute


def _evaluate(evaluator: Evaluator, candidate: Candidate, benchmark: Benchmark) -> Score:
    with tempfile.TemporaryDirectory() as folder:
        return evaluator.evaluate(cast("Candidate", _Attempt(candidate, Path(folder))), benchmark)


def _check_failure(evaluator: Evaluator, benchmark: Benchmark, failing: Candidate) -> None:
    try:
        score = _evaluate(evaluator, failing, benchmark)
    except EvaluatorError as error:
        message = str(error)
    else:
        raise AssertionError(f"the failing candidate was given a score: {score}")
    assert message.strip(), "an EvaluatorError that says nothing"


def _identity(evaluator: Evaluator, benchmark: Benchmark) -> str:
    """Check that the identity is JSON, and return it as such."""
    identity = evaluator.identity(benchmark)
    try:
        text = json.dumps(identity, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the identity is no JSON ({error}): {identity!r}") from error
    assert json.loads(text) == identity, f"the identity does not come back from JSON as it was: {identity!r}"
    return text


def _check_score(score: object, benchmark: Benchmark) -> None:
    assert isinstance(score, Score), f"expected a soup.evaluation.Score, found {score!r:.80}"
    assert score.n is None or score.n > 0, f"a score over {score.n} questions"
    if score.questions is not None:
        outside = [index for index in score.questions if not benchmark.split.holds(index)]
        assert not outside, f"questions of the other half were scored: {outside[:5]}"
        assert all(0 <= points <= 1 for points in score.questions.values()), "a question's points are 0 to 1"
    if score.parts:
        mean = math.fsum(score.parts.values()) / len(score.parts)
        assert math.isclose(score.value, mean), (
            f"the value must be the parts' mean: expected {mean}, found {score.value}"
        )


def _check_halves(evaluator: Evaluator, benchmark: Benchmark, candidate: Candidate, whole: Score) -> None:
    """Check that the halves of a split are disjoint and complete, if the evaluator can split."""
    halves = [dataclasses.replace(benchmark, split=Split(part, 0.5)) for part in ("selection", "report")]
    try:
        for half in halves:
            _identity(evaluator, half)
        chosen = _evaluate(evaluator, candidate, halves[0])
    except EvaluatorError:
        return  # it can't split, and says so before any work, or when it first sees that questions are not told
    reported = _evaluate(evaluator, candidate, halves[1])
    for half, score in zip(halves, (chosen, reported), strict=True):
        _check_score(score, half)
    if whole.n is not None and chosen.n is not None and reported.n is not None:
        assert chosen.n + reported.n == whole.n, f"halves of {chosen.n} and {reported.n} questions out of {whole.n}"
    if whole.questions is not None and chosen.questions is not None and reported.questions is not None:
        shared = chosen.questions.keys() & reported.questions.keys()
        assert not shared, f"questions in both halves: {sorted(shared)[:5]}"
        assert {*chosen.questions, *reported.questions} == {*whole.questions}, "the halves are not the whole"
