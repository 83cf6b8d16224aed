"""The last word on a search that went by estimates: what it chose is asked everything, and must hold.

Once a strategy has chosen, the audits of all soups say how far estimates are off on average. It is run again on
estimates that are corrected by that, so that they can stand beside true numbers: those of single models, and of what is
asked everything next, the choice, the runner-up and the best single model. Then it is run again on what is known. Each
time costs nothing where it goes the same way; where true numbers contradict it, it goes on from those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from soup.evaluation.estimates import LIMIT, Audit, AuditFailedError, refuse_failed_audit
from soup.evaluation.pace import ASKED
from soup.evaluation.question_plan import QuestionPlan
from soup.evaluation.scorer import Scorer
from soup.evaluation.trial import Trial
from soup.merging.ingredient import Ingredient
from soup.merging.recipe import Recipe
from soup.search.strategies.base import Budget, Choice, ScoreFunction
from soup.support.text import pluralize

__all__ = ["FINALISTS", "choose_confirmed", "saves_questions"]

FINALISTS = 2
"""The choice and the runner-up, which are asked everything in the end."""

MOST_CONTRADICTIONS = 3
"""After so many choices that did not hold, everything is asked."""

Choose = Callable[[Callable[[ScoreFunction], Choice]], Choice]
"""Runs a strategy on a session's scores."""

Complete = Callable[[Iterable[Recipe]], None]
"""Has workers evaluate recipes over the questions that choose."""


def choose_confirmed(
    scorer: Scorer,
    choose: Choose,
    strategy: Callable[[ScoreFunction], Choice],
    complete: Complete = lambda recipes: None,
) -> Choice:
    """Return what a strategy chooses; where estimates led there, its choice was asked everything, and held.

    Args:
        scorer: The session's.
        choose: Runs the strategy on it.
        strategy: What chooses.
        complete: Has workers evaluate recipes; by default the scorer does it alone.
    """
    contradictions = 0
    doubted: Trial | None = None
    while True:
        choice, trial = _choose_by_audited(scorer, choose, strategy, complete)
        if scorer.question_plan is None:
            return choice
        if doubted is not None and doubted.recipe.digest == trial.recipe.digest:
            break
        if doubted is not None:
            contradictions += 1
            scorer.remark(
                f"Asked everything, {doubted.label} was not chosen again: the search went on from the true numbers to "
                f"{trial.label}."
            )
        estimated = [other for other in _finalists(scorer, trial) if other.is_estimated]
        if not estimated:
            break
        if contradictions >= MOST_CONTRADICTIONS:
            _ask_everything(scorer, f"{pluralize(contradictions, 'choice')} by estimates did not hold.")
            continue
        _ask_finalists(scorer, scorer.question_plan, estimated, complete)
        doubted = trial
    scorer([_best_single(scorer)])
    return choice


def _choose_by_audited(
    scorer: Scorer, choose: Choose, strategy: Callable[[ScoreFunction], Choice], complete: Complete
) -> tuple[Choice, Trial]:
    """Return what a strategy chooses, and its trial, once the audits of all soups have nothing more to say."""
    while True:
        try:
            choice = choose(strategy)
            if scorer.question_plan is None:  # else single models come first, and the scorer sees to that
                complete([scorer.recipe(choice.chosen, choice.method, choice.params)])
            trial = scorer(choice.chosen, choice.method, choice.params)
            if not _changes_estimates(scorer):
                return choice, trial
            scorer.restart()
        except AuditFailedError as failure:
            _ask_everything(scorer, f"The audit of the estimates fails: {failure}.")


def _ask_finalists(scorer: Scorer, plan: QuestionPlan, estimated: Sequence[Trial], complete: Complete) -> None:
    """Ask those finalists everything that were estimated; and all soups, if an estimate was far off."""
    plan.ask_everything(trial.recipe.digest for trial in estimated)
    scorer.restart()
    complete([trial.recipe for trial in estimated])
    off = max(abs(scorer.trial(trial.recipe).overall - trial.overall) for trial in estimated)
    if off > LIMIT:
        _ask_everything(scorer, f"Asked everything, an overall was {off:.2f} points from its estimate.")


def saves_questions(budget: Budget | None, count: int) -> bool:
    """Whether estimates ask less than everything, as far as a strategy says what it asks for at most.

    Args:
        budget: The strategy's; None: nobody knows.
        count: The size of the pool: all single models are asked everything, and need not have been.
    """
    return budget is None or count + FINALISTS + ASKED * budget.soups < budget.singles + budget.soups


def _changes_estimates(scorer: Scorer) -> bool:
    """Judge the audits of all soups; return whether that changes estimates: by larger audits, or by a correction.

    Raises:
        AuditFailedError: estimates are no good in this search.
    """
    estimates = [trial.estimate for trial in scorer.trials.values() if trial.estimate]
    if (plan := scorer.question_plan) is None or not estimates:
        return False
    is_first = plan.corrections is None
    if is_first and plan.audit.part < 1 and not Audit.of(estimates).passes:
        plan.double_audit()
        return True
    refuse_failed_audit(estimates, at_end=True)
    if not is_first or not plan.correct(trial.scores for trial in scorer.trials.values()):
        return False
    added = ", ".join(f"{name} {points:+z.2f}" for name, points in (plan.corrections or {}).items() if points)
    scorer.progress.on_hint(f"All estimates are corrected by what their audits say together: {added}.")
    return True


def _finalists(scorer: Scorer, chosen: Trial) -> list[Trial]:
    """Return the trials of the choice and of the best other model, which may be a single one."""
    trials = [*scorer.trials.values(), *map(scorer.trial, scorer.singles)]
    others = [trial for trial in trials if trial.allowed and trial.recipe.digest != chosen.recipe.digest]
    return [chosen, *sorted(others, key=lambda trial: -trial.overall)[:1]]


def _best_single(scorer: Scorer) -> Ingredient:
    """Return the best single model, which is shown beside the choice, whatever the strategy asked for."""
    best, _ = max(zip(scorer.pool, scorer.singles, strict=True), key=lambda pair: scorer.trial(pair[1]).overall)
    return best


def _ask_everything(scorer: Scorer, why: str) -> None:
    assert scorer.question_plan is not None
    scorer.question_plan.ask_everything()
    scorer.remark(f"{why} Every soup is asked all questions from here on.")
    scorer.restart()
