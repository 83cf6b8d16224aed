"""What the journal knows of recipes' scores: which score answers for which questions, and what was given now."""

from __future__ import annotations

from dataclasses import dataclass, field

from soup.errors import EvaluatorError
from soup.evaluation.api import Score
from soup.evaluation.journal import Journal, score_key
from soup.evaluation.journal_entry import Entry
from soup.evaluation.questions import QuestionSet
from soup.evaluation.suite import SuiteEntry
from soup.merging.recipe import Recipe

__all__ = ["RememberedScores"]


@dataclass
class RememberedScores:
    """Scores of recipes on the entries of suites, in a journal.

    Args:
        journal: Where they are.
        fresh: Its keys of what was given now.
    """

    journal: Journal
    fresh: set[str] = field(default_factory=set)

    def find(self, recipe: Recipe, entry: SuiteEntry, questions: QuestionSet | None = None) -> Entry | None:
        """Return what is remembered.

        A score of everything answers for an estimate, unless the estimate was made before it: a search that is typed
        again goes the same way. An estimate never answers for a score.

        Args:
            recipe: What was scored.
            entry: On what.
            questions: What was asked; None: everything.
        """
        estimate = self.journal.find(_key(recipe, entry, questions)) if questions else None
        return estimate or self.journal.find(_key(recipe, entry))

    def add(
        self, recipe: Recipe, entry: SuiteEntry, score: Score, seconds: float, questions: QuestionSet | None = None
    ) -> Score | None:
        """Write a score down, as an estimate where not everything was asked; None where it is known already.

        Args:
            recipe: What was scored.
            entry: On what.
            score: What the evaluator gave.
            seconds: How long it took.
            questions: What was asked; None: everything.

        Raises:
            EvaluatorError: it answered other questions than it was asked.
        """
        key = _key(recipe, entry, questions)
        if self.journal.find(key) is not None:
            return None
        if questions is not None:
            score = _estimate(recipe, entry, score, questions)
        self.journal.remember(key, recipe, entry.benchmark, entry.identity, score, seconds)
        self.fresh.add(key)
        return score


def _key(recipe: Recipe, entry: SuiteEntry, questions: QuestionSet | None = None) -> str:
    return score_key(recipe.digest, entry.benchmark, entry.identity, questions.digest if questions else None)


def _estimate(recipe: Recipe, entry: SuiteEntry, score: Score, questions: QuestionSet) -> Score:
    try:
        return questions.estimate(score, entry.total)
    except EvaluatorError as error:
        raise EvaluatorError(f"{'+'.join(recipe.names)} on {entry.benchmark.name}: {error}") from error
