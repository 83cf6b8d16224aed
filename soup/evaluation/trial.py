"""A trial: one recipe and its scores."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from soup.errors import EvaluatorError
from soup.evaluation.api import Part, Score
from soup.evaluation.bootstrap import Difference, paired_difference
from soup.evaluation.estimates import Estimate
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.score_picture import ScoredModel, State, draw_scores
from soup.merging.recipe import Recipe
from soup.support.options import option_name
from soup.support.pictures import Picture, draw
from soup.support.text import pluralize

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Trial", "Trials"]


@dataclass(frozen=True, repr=False)
class Trial:
    """One recipe and its scores by benchmark.

    Args:
        recipe: What was evaluated, sealed.
        scores: Over the questions that choose.
        report: Over the questions that only report, where they were asked.
        seconds: What the evaluations took that were made now; None when all of them were remembered.
        objective: How the scores become one number.
        broken: The guards of the objective that the scores break.
        part: Which questions chose.
        varied: Whether a strategy gave it another method or other parameters than the search has.
    """

    recipe: Recipe
    scores: Mapping[str, Score]
    report: Mapping[str, Score] = field(default_factory=dict)
    seconds: float | None = None
    objective: Objective = PLAIN
    broken: tuple[str, ...] = ()
    part: Part = "all"
    varied: bool = False

    def __repr__(self) -> str:
        return f"<Trial of {' + '.join(self.names)}: {'~' if self.is_estimated else ''}{self.overall:.2f}>"

    @property
    def overall(self) -> float:
        """The objective over the questions that choose: the mean of the benchmarks' scores, weighted if so wished."""
        return self.objective.overall(self.scores)

    @property
    def report_overall(self) -> float | None:
        """The objective over the questions that only report, where they were asked."""
        return self.objective.overall(self.report) if self.report else None

    @property
    def estimate(self) -> Estimate | None:
        """How far the overall may be off where not all questions were asked."""
        estimates = {name: score.estimate for name, score in self.scores.items() if score.estimate}
        return Estimate.weighted(estimates, self.objective.shares(self.scores))

    @property
    def is_estimated(self) -> bool:
        """Whether it was not asked all questions that choose."""
        return any(score.estimate for score in self.scores.values())

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the overall over all questions, where not all were asked."""
        return self.estimate.interval(self.overall) if self.estimate else None

    @property
    def allowed(self) -> bool:
        """Whether it breaks no guard."""
        return not self.broken

    def better_than(self, other: Trial) -> float:
        """Return the probability that this soup beats another: the paired bootstrap over the questions that choose.

        Raises:
            EvaluatorError: a benchmark does not tell its questions' points.
        """
        difference = self.difference(other)
        if difference is None:
            silent = [name for name, score in self.scores.items() if not score.questions]
            raise EvaluatorError(
                f"{option_name('accept')} p>... needs the points of each question, and {', '.join(silent)} gives none. "
                f"Use {option_name('accept')} ge or gt."
            )
        return difference.p_better

    def difference(self, other: Trial) -> Difference | None:
        """Return how much higher the overall is than another's, by the paired bootstrap; None without points."""
        return paired_difference(self.scores, other.scores, self.objective)

    @property
    def is_single(self) -> bool:
        """Whether it is an ingredient as it is."""
        return len(self.names) == 1 and not self.varied

    @property
    def label(self) -> str:
        """The ingredients, with their weights where they differ, and the method's parameters: what tables show."""
        return self.recipe.describe()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the ingredients, in recipe order."""
        return self.recipe.names

    def as_scored_model(self, *, accepted: bool | None = None) -> ScoredModel:
        """Return it as a line of a picture, an estimate after a tilde.

        Args:
            accepted: Whether a search took it, where one did ask.
        """
        scores = {name: score.value for name, score in self.scores.items()}
        state: State = "single" if accepted is None else "accepted" if accepted else "refused"
        return ScoredModel(
            f"{'~ ' if self.is_estimated else ''}{self.label}", scores, self.overall, self.report_overall, state
        )


class Trials(list[Trial]):
    """Trials in the order in which they were made, with a table and a picture."""

    def to_pandas(self) -> DataFrame:
        """Return a row for each trial: its scores by benchmark, the overall, and that of the report questions."""
        import pandas

        rows = [
            {
                "ingredients": trial.label,
                **{name: score.value for name, score in trial.scores.items()},
                "overall": trial.overall,
                "report overall": trial.report_overall,
                "estimated": trial.is_estimated or None,
            }
            for trial in self
        ]
        return pandas.DataFrame(rows).dropna(axis="columns", how="all")

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        table = self.to_pandas().to_html(index=False, float_format="%.2f") if self else ""
        return f"<p>{html.escape(pluralize(len(self), 'trial'))}</p>{table}"

    def plot(self, path: str | Path | None = None) -> Picture | None:
        """Draw each trial's scores and its overall.

        Args:
            path: A png, svg or pdf file; an earlier one is replaced. Without one, a picture for a notebook is returned.

        Raises:
            OutputError: another suffix, or no matplotlib.
        """
        return draw(lambda target: draw_scores([trial.as_scored_model() for trial in self], target), path)
