"""What each recipe of a search is asked: single models and what is chosen everything, soups what singles dispute."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from soup.errors import EvaluatorError
from soup.evaluation.api import Benchmark, Score
from soup.evaluation.harnesses import asks_some
from soup.evaluation.question_rule import AuditSize
from soup.evaluation.questions import Dispute, QuestionSet
from soup.evaluation.suite import SuiteEntry

__all__ = ["QuestionPlan"]


@dataclass
class QuestionPlan:
    """The question sets of a search that does not ask every soup everything.

    Args:
        audit: How many undisputed questions are asked all the same.
        everything: The digests of recipes that are asked everything: first the single models, later what was chosen.
        singles: Gives the single models' scores on an entry, by the digest of each.
        on_remark: Called with why a benchmark is asked everything.
        asks_all: Set when estimates have turned out to be no good; then all recipes are asked everything.
        corrections: What is added to estimates, by benchmark; None until a search has asked for all of its soups once.
    """

    audit: AuditSize
    everything: set[str]
    singles: Callable[[SuiteEntry], Mapping[str, Score]]
    on_remark: Callable[[str], None] = lambda text: None
    asks_all: bool = False
    corrections: Mapping[str, float] | None = None
    _disputes: dict[Benchmark, Dispute | None] = field(default_factory=dict)
    _sets: dict[tuple[str, Benchmark], QuestionSet | None] = field(default_factory=dict)

    def estimates(self, recipe_digest: str) -> bool:
        """Whether a recipe is asked a part of the questions, as far as benchmarks let it."""
        return not self.asks_all and recipe_digest not in self.everything

    def ask_everything(self, recipe_digests: Iterable[str] | None = None) -> None:
        """Ask some recipes everything from now on; without digests, all of them."""
        self.everything.update(recipe_digests or ())
        self.asks_all = self.asks_all or recipe_digests is None

    def double_audit(self) -> None:
        """Ask each soup twice as large an audit from now on, at most a whole one."""
        self.audit = self.audit.doubled()
        self._sets.clear()

    def correct(self, trials: Iterable[Mapping[str, Score]]) -> bool:
        """Correct all estimates from now on by what their audits say on average; return whether that changes any.

        Args:
            trials: The scores, by benchmark, of all soups that a search has asked for.
        """
        corrections: dict[str, list[float]] = {}
        for name, score in (pair for scores in trials for pair in scores.items()):
            if score.estimate is not None:
                corrections.setdefault(name, []).append(score.estimate.correction)
        self.corrections = {name: math.fsum(row) / len(row) for name, row in corrections.items()}
        return any(self.corrections.values())

    def corrected(self, benchmark: str, score: Score) -> Score:
        """Return a score as it is, and an estimate with its benchmark's correction, where that is known by now."""
        return score.corrected((self.corrections or {}).get(benchmark, 0.0))

    def question_set(self, recipe_digest: str, entry: SuiteEntry) -> QuestionSet | None:
        """Return what a recipe is asked on a benchmark; None for everything. The single models' scores are known.

        Raises:
            EvaluatorError: the benchmark's own rule failed on the single models' points.
        """
        if not self.estimates(recipe_digest):
            return None
        key = (recipe_digest, entry.benchmark)
        if key not in self._sets:
            dispute = self._dispute(entry)
            self._sets[key] = dispute.questions_of(recipe_digest, self.audit) if dispute else None
        return self._sets[key]

    def _dispute(self, entry: SuiteEntry) -> Dispute | None:
        if entry.benchmark not in self._disputes:
            outcome = _find_dispute(self.singles(entry), entry)
            if isinstance(outcome, str):
                self.on_remark(f"{entry.benchmark.name}: every soup is asked all of its questions, for {outcome}.")
            self._disputes[entry.benchmark] = outcome if isinstance(outcome, Dispute) else None
        return self._disputes[entry.benchmark]


def _find_dispute(singles: Mapping[str, Score], entry: SuiteEntry) -> Dispute | str:
    if not asks_some(entry.evaluator, entry.benchmark):
        return "its evaluator can't be asked for some of them"
    if len(singles) < 2:
        return "one single model disputes nothing"
    try:
        return Dispute.among(singles, entry.total)
    except EvaluatorError:
        raise
    except Exception as cause:
        raise EvaluatorError(f"{entry.benchmark.name}: no score of its questions' points: {cause!r}") from cause
