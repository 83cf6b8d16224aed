"""A score: the one number of a candidate on a benchmark, and what it was made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from soup.errors import EvaluatorError
from soup.evaluation.estimates import Estimate

__all__ = ["Score"]

MOST_LOSS = 700.0
"""A larger loss has a likelihood that no float64 holds."""


@dataclass(frozen=True)
class Score:
    """One number for one recipe on one benchmark.

    Args:
        value: 0 to 100, higher is better.
        n: The number of questions behind it; None where the harness does not say.
        questions: The points of each question, 0 to 1, by its index, where the harness tells them.
        parts: For a harness that scores several things at once: each part's value by its name. Each then counts as a
            benchmark of its own, and `value` is their plain mean.
        unparsed: The share of answers, 0 to 1, that are none by their form, where the harness knows: no option named,
            neither yes nor no.
        estimate: How far the value may be off where not all questions were asked; soup itself sets it.
        part_questions: The points of each part that is a mean of some, as in `questions`.
        part_of: The benchmark that the score is a part of; soup itself sets it, and leaves `n` out, since a question
            that counts for several parts is asked once.

    Raises:
        EvaluatorError: a value that is no number, not finite, or outside of 0 to 100; a share outside of 0 to 1; points
            of no part.
    """

    value: float
    n: int | None = None
    questions: Mapping[str, float] | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    unparsed: float | None = None
    estimate: Estimate | None = None
    part_questions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    part_of: str | None = None

    @classmethod
    def of_loss(cls, losses: Sequence[float]) -> Score:
        """Return the likelihood of the reference answers: 100 exp(-loss).

        Args:
            losses: Of each question, the mean over its answer's tokens of their negative log likelihood, in nats; the
                loss is their mean.

        Raises:
            EvaluatorError: there is none, or it is NaN.
        """
        loss = math.fsum(losses) / len(losses) if losses else math.nan
        if math.isnan(loss):
            raise EvaluatorError(f"likelihood: expected the losses of questions, found {list(losses)[:5]}.")
        return cls(100 * math.exp(-min(max(loss, 0.0), MOST_LOSS)), len(losses))

    @property
    def asked(self) -> int | None:
        """How many questions were asked for it; None where the harness does not say."""
        return self.estimate.asked if self.estimate else self.n

    def by_name(self, benchmark: str) -> dict[str, Score]:
        """Return what counts under which name: the score by its benchmark's, or each of its parts by its own.

        Args:
            benchmark: The benchmark's name.
        """
        points = self.part_questions
        return {
            part: Score(value, questions=points.get(part), part_of=benchmark) for part, value in self.parts.items()
        } or {benchmark: self}

    def corrected(self, points: float) -> Score:
        """Return an estimate with so many points more, of those that its audit says are missing; a score as it is.

        Its value then stands beside scores. Its questions have the points that they had: see `question_changes`.
        """
        if self.estimate is None or not points:
            return self
        value = min(100.0, max(0.0, self.value + points))
        added = value - self.value
        rest, total = self.estimate.correction - added, self.estimate.added + added
        return replace(self, value=value, estimate=replace(self.estimate, correction=rest, added=total))

    @property
    def loss(self) -> float:
        """The loss that a likelihood was made of, in nats a token."""
        return -math.log(self.value / 100) if self.value else MOST_LOSS

    def __post_init__(self) -> None:
        if self.unparsed is not None and not 0 <= self.unparsed <= 1:
            raise EvaluatorError(f"unparsed: expected a share from 0 to 1, found {self.unparsed!r}.")
        if unknown := sorted(self.part_questions.keys() - self.parts.keys()):
            raise EvaluatorError(f"part_questions: points of what is no part: {', '.join(unknown)}.")
        for what, value in [("score", self.value), *self.parts.items()]:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise EvaluatorError(f"{what}: expected a number from 0 to 100, found {value!r}.")
            if not 0 <= value <= 100:  # nor is NaN
                raise EvaluatorError(f"{what}: expected a finite number from 0 to 100, found {value!r:.40}.")
