"""An evaluator: what turns a candidate into scores, and all that soup asks of one besides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from soup.errors import EvaluatorError
from soup.evaluation.api.benchmark import Benchmark, BenchmarkInfo, Location
from soup.evaluation.api.candidate import Candidate
from soup.evaluation.api.score import Score

__all__ = ["AskedModel", "Evaluator", "Harness", "OnReplies", "ShownQuestion", "TargetSyntax"]

TargetSyntax = Literal["one", "list", "rest"]

OnReplies = Callable[[Sequence[int], Sequence[Any]], None]
"""Hears of some replies as soon as they are there, each with its request's position among all that were handed over."""


@dataclass(frozen=True)
class AskedModel:
    """A model that was asked before, for those who want to see what it answered.

    Args:
        digest: Its recipe's.
        kept: The directory of its answers, `Candidate.kept` of then.
        identity: What the evaluator's `identity` was then.
    """

    digest: str
    kept: Path
    identity: Mapping[str, object]


@dataclass(frozen=True)
class ShownQuestion:
    """A question for people to look at.

    Args:
        text: As the models were asked.
        images: The bytes of image files.
        answers: What each model said; None where that was not kept.
        reference: The right answer, where there is a single one.
    """

    text: str
    images: tuple[bytes, ...] = ()
    answers: tuple[str | None, ...] = ()
    reference: str = ""


@runtime_checkable
class Evaluator(Protocol):
    """Turns a candidate into scores. Built once per search from `EvalSettings`, then asked again and again.

    These two methods are all that an evaluator must have; see `Harness` for what it may have besides.
    """

    def identity(self, benchmark: Benchmark) -> Mapping[str, object]:
        """Return all that a score depends on besides the candidate, as JSON values: version, settings, data's digest.

        It is a part of the journal's key, so that a remembered score can't be another data file's. It is asked for
        before any work starts, and is the place to say that data are not here.
        Where an engine answers, its identity stands in it under `answering`; where a judge grades, under `judge`.

        Args:
            benchmark: What would be asked; its split's fraction is in the key already.

        Raises:
            EvaluatorError: the benchmark is unknown, its data are not here, or it can't be split.
        """

    def evaluate(self, candidate: Candidate, benchmark: Benchmark) -> Score:
        """Return the candidate's score over the benchmark's questions for which `benchmark.holds(index)`.

        Args:
            candidate: Whose weights: a directory, or what is streamed into a loaded module.
            benchmark: What is asked.

        Raises:
            EvaluatorError: the harness failed or an answer never came. Never a zero in place of a failure.
        """


class Harness(Evaluator, Protocol):
    """All that soup asks of an evaluator, each member besides the two of `Evaluator` with its default.

    Inherit this class to get the defaults; or define the members that differ, on any class: what is missing counts as
    written here (`soup.evaluation.harnesses` looks it up).

    Attributes:
        benchmarks: The benchmarks that `--eval` takes by their bare names.
        has_parts: Whether a score may come in parts, so that the names to weigh are not known before.
        ranks: Whether a higher score is a better model. If not, equal scores of all models are nothing strange.
        target_hint: What stands for a target in `HARNESS:TARGET`, e.g. `FILE.py:FUNCTION`. Empty: the harness's bare
            name is a benchmark.
        target_syntax: Where a target ends in `--eval`. `one`: at a comma. `list`: at a comma too, and names right
            after it that are no benchmarks are further targets. `rest`: at the end of the text, commas included.
    """

    benchmarks: ClassVar[Mapping[str, BenchmarkInfo]] = MappingProxyType({})
    has_parts: ClassVar[bool] = True
    ranks: ClassVar[bool] = True
    target_hint: ClassVar[str] = ""
    target_syntax: ClassVar[TargetSyntax] = "one"

    @classmethod
    def target_of(cls, name: str) -> str | None:
        """Return the target of a bare name that `benchmarks` does not list, if the harness knows it all the same.

        Args:
            name: What stands in `--eval`.
        """
        return None

    @classmethod
    def near_names(cls, name: str) -> Sequence[str]:
        """Return names that `target_of` knows and that may be meant by one that nobody knows."""
        return ()

    @classmethod
    def unlisted(cls) -> Mapping[str, BenchmarkInfo | str]:
        """Return what can be named besides `benchmarks`, or the reason why it can't be evaluated; may take seconds."""
        return {}

    def locate(self, benchmark: Benchmark) -> Location | None:
        """Return where the benchmark's data are expected; None where that says nothing to a user."""
        return None

    def check(self, benchmark: Benchmark, checkpoint: Path) -> None:
        """Look for what would stop an evaluation, as far as it shows before the first question.

        It is called once before a run's first evaluation, and never for scores that are remembered.

        Args:
            benchmark: What will be asked.
            checkpoint: A directory whose config, tokenizer and processor files candidates will have.

        Raises:
            EvaluatorError: an evaluation can't succeed.
        """

    def answer(self, candidate: Candidate, requests: Sequence[Any], on_replies: OnReplies) -> None:
        """Answer requests with the candidate's weights in a worker; `evaluate` deals them out in another process.

        A harness that has this method hands its requests to the dealer in `evaluate`, if there is one
        (`soup.evaluation.dealing.dealer_of`): then the questions of one candidate are spread over all workers. A
        harness without it evaluates a candidate in one worker, whole.

        Args:
            candidate: Whose weights; one after the other may come, each for several calls.
            requests: Some of those that `evaluate` dealt out, as they come out of a pickle.
            on_replies: Called once for every request, with some of them at a time.

        Raises:
            EvaluatorError: an answer did not come. `MissingFilesError` for files that are not on this machine.
        """
        raise EvaluatorError(f"{type(self).__name__}: evaluates whole candidates only.")

    def why_no_likelihood(self, benchmark: Benchmark) -> str | None:
        """Say why `evaluate` can't give the likelihood of the benchmark's reference answers; None where it can.

        Args:
            benchmark: Whose answers.
        """
        return "its harness gives scores alone"

    def count(self, benchmark: Benchmark) -> int | None:
        """Count the benchmark's questions that are here; None where the harness does not know.

        Raises:
            EvaluatorError: the data are not here, or damaged.
        """
        return None

    def asks_some(self, benchmark: Benchmark) -> bool:
        """Say whether `benchmark.only` is heeded, and an answer is the same whatever is asked beside it.

        If so, the score is what `total` makes of all questions' points, those of `only` and others that are known.
        """
        return False

    def total(self, benchmark: Benchmark, points: Mapping[str, float]) -> float:
        """Return the score, 0 to 100, that the points of all of the benchmark's questions come to: here their mean.

        Args:
            benchmark: Whose questions.
            points: 0 to 1, by the question's index.
        """
        return 100 * math.fsum(points.values()) / len(points)

    def categories(self, benchmark: Benchmark) -> Mapping[str, str]:
        """Return the category of each question by its index; nothing where the data name none.

        Raises:
            EvaluatorError: the data are not here, or damaged.
        """
        return {}

    def show(
        self, benchmark: Benchmark, indices: Sequence[str], models: Sequence[AskedModel]
    ) -> Mapping[str, ShownQuestion]:
        """Return questions by their indices, with what models answered; those that can't be shown are left out.

        Args:
            benchmark: Whose questions.
            indices: Their indices.
            models: Whose answers; `ShownQuestion.answers` has one for each, in this order.

        Raises:
            EvaluatorError: the data are not here, damaged, or others than the models were asked.
        """
        return {}

    def fetch(self, benchmark: Benchmark, phase: Callable[[str, int], None], progress: Callable[[int], None]) -> Path:
        """Download the benchmark's data, and return where they lie then.

        Args:
            benchmark: Whose data.
            phase: Called with what is downloaded and the bytes to come.
            progress: Called with the bytes of each chunk.

        Raises:
            EvaluatorError: they can't be had.
        """
        raise EvaluatorError(f"There is nothing to fetch for {benchmark.name}.")
