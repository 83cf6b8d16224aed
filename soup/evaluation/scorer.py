"""Score a recipe: look it up, else merge, evaluate, remember, tidy. What comes back to a strategy is one float."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from soup.errors import EvaluatorError
from soup.evaluation.api import Score, Split
from soup.evaluation.candidate import OnAnswers, SoupCandidate, ignore_answers, make_candidate
from soup.evaluation.estimates import refuse_failed_audit
from soup.evaluation.harnesses import has_check, ranks
from soup.evaluation.journal import Journal
from soup.evaluation.objective import PLAIN, Objective
from soup.evaluation.pace import Evaluations, Pace, search_pace
from soup.evaluation.progress import Progress
from soup.evaluation.question_plan import QuestionPlan
from soup.evaluation.question_rule import AuditSize
from soup.evaluation.questions import QuestionSet
from soup.evaluation.remembered_scores import RememberedScores
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.score_remarks import constant_scores, score_remarks
from soup.evaluation.suite import BenchmarkSuite, SuiteEntry, check_entries, evaluate_once
from soup.evaluation.trial import Trial
from soup.merging.pool import Pool
from soup.merging.pool_recipes import PoolRecipes
from soup.merging.recipe import Recipe
from soup.support.options import option_name

__all__ = ["Scorer"]

TrialKey = tuple[tuple[str, ...], str]
Outcome = tuple[dict[str, Score], float | None]
"""Scores by benchmark, and the seconds that they took now; None where all were remembered."""


@dataclass
class Scorer:
    """Give a strategy its `score(ingredients)`: the trial of their mean. Ask twice and it is evaluated once.

    Args:
        recipes: Seals those of the pool.
        suite: The benchmarks of the questions that choose.
        journal: Where scores are remembered.
        run: Where candidates and answers lie meanwhile.
        objective: How scores become one number, and what a soup must not break.
        progress: Who hears of evaluations and trials.
        expected: How many models are evaluated at most; None: nobody knows.
        audit: How many undisputed questions soups are asked beside the disputed ones; None: all are asked everything.
        trials: The trials in the order asked.
        remarks: What was strange on the way, each by what it is about.
    """

    recipes: PoolRecipes
    suite: BenchmarkSuite
    journal: Journal
    run: RunDirectory
    objective: Objective = PLAIN
    progress: Progress = field(default_factory=Progress)
    expected: Evaluations | None = None
    audit: AuditSize | None = None
    trials: dict[TrialKey, Trial] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    _announced: set[tuple[tuple[str, ...], str, bool, float]] = field(default_factory=set)
    _outcomes: dict[TrialKey, Outcome] = field(default_factory=dict)
    _is_checked: bool = False  # whether harnesses had their look before the first evaluation

    def __call__(self, chosen: object, /, method: str | None = None, params: Mapping[str, Any] | None = None) -> Trial:
        """Return the trial of the mean of some ingredients (or of their names), or of a weighted one.

        Args:
            chosen: The ingredients, or a weight for each.
            method: Another method than the search's.
            params: Parameters of the method, beside those that the search gives to it.

        Raises:
            EvaluatorError: the harness failed, timed out, or gave no score.
            RecipeError: nothing to score, or an ingredient that the pool does not have.
            AuditFailedError: estimates are no good in this search.
        """
        recipe = self.recipe(chosen, method, params)
        key = _key(recipe)
        if key not in self.trials:
            self.trials[key] = self.trial(recipe)
            self.announce(self.trials[key])
            refuse_failed_audit(trial.estimate for trial in self.trials.values())
        return self.trials[key]

    def trial(self, recipe: Recipe) -> Trial:
        """Return a recipe's trial, evaluated if need be, without a note that it was asked for."""
        scores, seconds = self._outcome(recipe)
        # Guards compare with the single models, which are scored for them where nobody has asked yet.
        singles = [self._outcome(single)[0] for single in self.singles] if self.objective.guards else []
        broken = self.objective.broken(scores, singles)
        varied = self.recipes.is_varied(recipe)
        return Trial(recipe, scores, {}, seconds, self.objective, broken, self.suite.split.part, varied)

    def report(self, trial: Trial, split: Split) -> Trial:
        """Return the same trial with its scores over the questions that only report, and the seconds of both."""
        scores, seconds = self._scores(trial.recipe, self.suite.on(split))
        spent = [part for part in (trial.seconds, seconds) if part is not None]
        reported = replace(trial, report=scores, seconds=sum(spent) if spent else None)
        self.trials[_key(trial.recipe)] = reported
        self.progress.on_trial(reported)
        return reported

    def restart(self) -> None:
        """Forget the order in which trials were asked for: a strategy begins anew, on the scores that are known now."""
        self.trials.clear()
        self._outcomes.clear()

    @property
    def pool(self) -> Pool:
        """The ingredients."""
        return self.recipes.pool

    def recipe(self, chosen: object, method: str | None = None, params: Mapping[str, Any] | None = None) -> Recipe:
        """Return the sealed recipe of a choice; see `PoolRecipes.seal`."""
        return self.recipes.seal(chosen, method, params)

    @property
    def singles(self) -> Sequence[Recipe]:
        """The recipe of each ingredient alone."""
        return self.recipes.singles

    @property
    def needs_singles(self) -> bool:
        """Whether no soup is scored before all single models are: what they dispute says what it is asked."""
        return self.question_plan is not None

    @cached_property
    def question_plan(self) -> QuestionPlan | None:
        """What each recipe is asked; None where all are asked everything."""
        if self.audit is None:
            return None
        digests = {single.digest for single in self.singles}
        return QuestionPlan(self.audit, digests, self._singles_scores, self.remark)

    def question_sets(self, recipe: Recipe, suite: BenchmarkSuite) -> list[QuestionSet | None]:
        """Return what a recipe is asked on each of the suite's entries; None for everything.

        Questions that only report are asked one and all.
        """
        plan = self.question_plan
        if plan is None or suite.split != self.suite.split:
            return [None] * len(suite.entries)
        return [plan.question_set(recipe.digest, entry) for entry in suite.entries]

    @cached_property
    def remembered(self) -> RememberedScores:
        """What the journal knows of recipes on the entries of suites."""
        return RememberedScores(self.journal)

    def missing(self, recipe: Recipe, suite: BenchmarkSuite) -> list[int]:
        """Return the indices of the suite's entries for which a recipe has no remembered score yet."""
        pairs = enumerate(zip(suite.entries, self.question_sets(recipe, suite), strict=True))
        return [index for index, (entry, questions) in pairs if not self.remembered.find(recipe, entry, questions)]

    def remember(
        self, recipe: Recipe, entry: SuiteEntry, score: Score, seconds: float, questions: QuestionSet | None = None
    ) -> None:
        """Write down a score that was given now, here or by a worker; see `RememberedScores`."""
        if (added := self.remembered.add(recipe, entry, score, seconds, questions)) is not None:
            self.progress.on_score(recipe, entry.benchmark, added, seconds)

    def check_first(self) -> None:
        """Before the first evaluation, have harnesses look for what would stop a later one; after it, do nothing.

        Raises:
            EvaluatorError: a benchmark can't be evaluated on candidates with some ingredient's files; all are listed.
        """
        if self._is_checked:
            return
        self._is_checked = True
        if not any(has_check(entry.evaluator) for entry in self.suite.entries):
            return
        needed = sorted({index for single in self.singles for index in self.missing(single, self.suite)})
        check_entries([self.suite.entries[index] for index in needed], self.pool)

    def candidate(
        self, recipe: Recipe, on_remark: Callable[[str], None], on_answers: OnAnswers = ignore_answers
    ) -> SoupCandidate:
        """Return a recipe's candidate, to be evaluated here; see `make_candidate`."""
        return make_candidate(
            recipe,
            self.pool,
            self.run,
            self.recipes.digests,
            self.recipes.template.options,
            on_answers=on_answers,
            on_remark=on_remark,
        )

    def pace(self, at_once: int = 1) -> Pace:
        """Return how far the search is; see `search_pace`.

        Args:
            at_once: How many models are evaluated side by side.
        """
        scores: list[Mapping[str, Score]] = [row for row, _ in self._outcomes.values()]
        scores += [trial.report for trial in self.trials.values() if trial.report]
        names = [entry.benchmark.name for entry in self.suite.entries]
        return search_pace(self.journal, names, scores, self.expected, at_once)

    def announce(self, trial: Trial) -> None:
        """Tell of a trial, once; once more where its estimate has become a score, or another number."""
        key = (*_key(trial.recipe), trial.is_estimated, trial.overall)
        if key not in self._announced:
            self._announced.add(key)
            self.progress.on_trial(trial)

    def on_best(self, trial: Trial) -> None:
        """Pass on what a strategy tells: see `tell_best`."""
        self.progress.on_best(trial)

    def remark(self, text: str, subject: str = "") -> None:
        """Tell of something strange that stops nothing, once for each subject (the text itself where none is named)."""
        if (subject or text) not in self.remarks:
            self.remarks[subject or text] = text
            self.progress.on_warning(text)

    def remark_on_choice(self) -> None:
        """Tell where the scores of all trials are the same, so that a choice among them rests on nothing."""
        if text := constant_scores({trial.recipe.digest: trial.scores for trial in self.trials.values()}):
            self.remark(f"{text} The soup was chosen by no evidence.")

    def _outcome(self, recipe: Recipe) -> Outcome:
        """Return the scores over the questions that choose, and the seconds that they took; made once."""
        key = _key(recipe)
        if key not in self._outcomes:
            if self.question_plan is not None and self.question_plan.estimates(recipe.digest):
                for single in self.singles:
                    self._outcome(single)
            scores, seconds = self._scores(recipe, self.suite)
            self.objective.check(list(scores))
            self._refuse_other_names(recipe, scores)
            self._remark_on(recipe, scores)
            self._outcomes[key] = scores, seconds
        return self._outcomes[key]

    def _scores(self, recipe: Recipe, suite: BenchmarkSuite) -> Outcome:
        pairs = list(zip(suite.entries, self.question_sets(recipe, suite), strict=True))
        if missing := self.missing(recipe, suite):
            self._evaluate(recipe, [pairs[index] for index in missing], suite.timeout_seconds)
        scores: dict[str, Score] = {}
        seconds: float | None = None
        for entry, questions in pairs:
            remembered = self.remembered.find(recipe, entry, questions)
            assert remembered is not None
            name, score = entry.benchmark.name, remembered.score
            _add(scores, name, self.question_plan.corrected(name, score) if self.question_plan else score)
            if remembered.key in self.remembered.fresh:
                seconds = (seconds or 0.0) + remembered.seconds
        return scores, seconds

    def _evaluate(
        self, recipe: Recipe, pairs: list[tuple[SuiteEntry, QuestionSet | None]], timeout_seconds: float | None
    ) -> None:
        self.check_first()
        entry, _ = pairs[0]

        def tell_answers(count: int, total: int, what: str) -> None:
            self.progress.on_answers(recipe, entry.benchmark, count, total, what)

        candidate = self.candidate(recipe, self.remark, tell_answers)
        try:
            for entry, questions in pairs:
                self.progress.on_pace(self.pace())
                self.progress.on_start(recipe, entry.benchmark)
                try:
                    only = questions.asked if questions else None
                    score, seconds = evaluate_once(entry.asking(only), candidate, timeout_seconds)
                finally:
                    self.progress.on_end(recipe, entry.benchmark)
                self.remember(recipe, entry, score, seconds, questions)
        finally:
            candidate.remove()

    def _singles_scores(self, entry: SuiteEntry) -> dict[str, Score]:
        entries = {single.digest: self.remembered.find(single, entry) for single in self.singles}
        return {digest: remembered.score for digest, remembered in entries.items() if remembered}

    def _refuse_other_names(self, recipe: Recipe, scores: Mapping[str, Score]) -> None:
        """Refuse scores under other names: an overall of other benchmarks is another number."""
        first = next((row for row, _ in self._outcomes.values()), scores)
        if first.keys() != scores.keys():
            raise EvaluatorError(
                f"{'+'.join(recipe.names)}: its scores can't be held against the others': expected "
                f"{', '.join(first)}, found {', '.join(scores)}. Make the evaluator give the same names for every "
                f"checkpoint, and choose another {option_name('run_dir')} where wrong ones are remembered."
            )

    def _remark_on(self, recipe: Recipe, scores: Mapping[str, Score]) -> None:
        """Tell what is strange about a model's scores, and once all single models could be known about all scores."""
        earlier = [row for row, _ in self._outcomes.values()]
        for subject, text in score_remarks(recipe.names, scores, earlier):
            self.remark(text, subject)
        if len(earlier) + 1 == len(self.pool) and any(ranks(entry.evaluator) for entry in self.suite.entries):
            by_digest = {digest: row for (_, digest), (row, _) in self._outcomes.items()}
            if remark := constant_scores(by_digest | {recipe.digest: scores}):
                self.remark(remark)


def _key(recipe: Recipe) -> TrialKey:
    """Two ingredients may hold the same weights, and are two trials all the same; the journal answers the second."""
    return recipe.names, recipe.digest


def _add(scores: dict[str, Score], name: str, score: Score) -> None:
    """Add a benchmark's score, or those of its parts, each a benchmark of its own."""
    parts = score.by_name(name)
    if twice := sorted(parts.keys() & scores.keys()):
        raise EvaluatorError(
            f"{name}: gives scores under names that another benchmark has: {', '.join(twice)}. Rename them in one "
            f"of the two, or leave one out of {option_name('eval')}."
        )
    scores.update(parts)
