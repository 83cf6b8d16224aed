"""What `--questions disputed` saves, and what it costs in truth: questions asked, error of the overall, same choice.

    python benchmarks/disputed.py simulated             pools of 7 by an item response model, OpenCompass' eight sizes
    python benchmarks/disputed.py toy RUN...            run directories whose journals hold all subsets of a pool

**Simulated.** A soup is right on a question if its ability on the benchmark and its luck with the question exceed the
question's difficulty. Abilities are additive with a basin whose bottom lies between the models (means gain); a soup's
luck is its ingredients' lucks, weighted like they are. `forgotten` is the share of questions that a soup gets wrong
whatever its ingredients know: each soup others. That is what breaks the method.

**Toy.** Points of real soups, out of journals (`benchmarks/strategies.py toy` scores all subsets): every sub-pool of
three and more is a pool of its own. A search that asks for a soup that the journal lacks is left out.

Questions are counted once for each soup, and are a share of what the same search asks that asks everything: single
models and finalists are counted in. The error is that of the estimated overalls. Where another soup was chosen, its
true overall counts against that of the one that asking everything chose: a search over weights goes another way after
the smallest change of a score, and comes out elsewhere, as good or not.
"""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from results import record

from soup.evaluation.api import Benchmark, Harness, Score
from soup.evaluation.estimates import Estimate, refuse_failed_audit
from soup.evaluation.journal import Journal
from soup.evaluation.objective import PLAIN
from soup.evaluation.progress import Progress
from soup.evaluation.question_plan import QuestionPlan
from soup.evaluation.question_rule import AuditSize, QuestionRule
from soup.evaluation.questions import QuestionSet
from soup.evaluation.suite import SuiteEntry
from soup.search.confirmation import choose_confirmed, saves_questions
from soup.search.strategies.base import Choice
from soup.support.plugins import STRATEGIES
from soup.testing.table_scorer import TableRecipe, TableScorer

SIZES = {"mmbench": 1164, "mmstar": 1500, "mmmu": 900, "mathvista": 1000, "hallusionbench": 951, "ai2d": 3088}
SIZES |= {"ocrbench": 1000, "mmvet": 218}
INGREDIENTS = 7
SEARCHES: dict[str, tuple[str, dict[str, object]]] = {
    "greedy": ("greedy", {}),
    "maximum": ("maximum", {}),
    "prune": ("prune", {}),
    "forward-backward, gt": ("forward-backward", {"accept": "gt"}),
    "cma, gt, 100": ("cma", {"accept": "gt"}),
}
SMALLEST_POOL = 3
BUDGET = ("single models", "disputed", "audit", "finalists", "everything")
"""Why questions are asked."""

Points = Mapping[str, Mapping[str, float]]
Table = Callable[[TableRecipe], Points]


class UnknownSoupError(Exception):
    """A search asked for a soup that is in no journal."""


class Rule(Harness):
    """The benchmarks' own rules: the mean, and HallusionBench's three means where its indices are VLMEvalKit's."""

    def asks_some(self, benchmark: Benchmark) -> bool:
        return True

    def total(self, benchmark: Benchmark, points: Mapping[str, float]) -> float:
        mean = super().total(benchmark, points)
        if benchmark.name != "hallusionbench" or "/" not in next(iter(points)):
            return mean
        figures: dict[str, bool] = {}
        questions: dict[str, bool] = {}
        for index, value in points.items():
            group, _, row = index.partition("/")
            figure, question = row.split("_")[4:6]
            for groups, key in ((figures, f"{group} {figure}"), (questions, f"{group} {question}")):
                groups[key] = groups.get(key, True) and value == 1
        shares = [100 * sum(groups.values()) / len(groups) for groups in (figures, questions)]
        return statistics.fmean([mean, *shares])


@dataclass(frozen=True)
class Told:
    """A trial of a table."""

    recipe: TableRecipe
    scores: Mapping[str, Score]
    allowed: bool = True

    @property
    def overall(self) -> float:
        return PLAIN.overall(self.scores)

    @property
    def label(self) -> str:
        return self.recipe.digest

    @property
    def is_single(self) -> bool:
        return len(self.recipe) == 1 and self.recipe.method is None

    @property
    def estimate(self) -> Estimate | None:
        estimates = {name: score.estimate for name, score in self.scores.items() if score.estimate}
        return Estimate.weighted(estimates, PLAIN.shares(self.scores))

    @property
    def is_estimated(self) -> bool:
        return self.estimate is not None


class DisputedScorer:
    """What a search needs of a scorer, over a table of points: asks what a `QuestionPlan` says, and counts it."""

    def __init__(self, pool: Sequence[str], table: Table, audit: AuditSize | None = None) -> None:
        self.pool = pool
        self.table = table
        self.recipe = TableScorer(pool, lambda recipe: 0.0).recipe
        self.singles = [self.recipe([name]) for name in pool]
        self.full: dict[str, Points] = {}
        self.trials: dict[str, Told] = {}
        self.evaluated: dict[tuple[str, bool], Told] = {}
        self.questions: dict[tuple[str, str], set[str]] = {}
        self.budget: Counter[str] = Counter()
        self.estimates: dict[str, float] = {}
        self.remarks: list[str] = []
        self.progress = Progress()  # which hears nothing
        names = self.points(self.singles[0])
        self.entries = {name: SuiteEntry(Benchmark(name, "table", name), Rule(), {}) for name in names}
        digests = {single.digest for single in self.singles}
        self.question_plan = QuestionPlan(audit, digests, self._singles, self.remarks.append) if audit else None

    def __call__(self, chosen: object, /, method: str | None = None, params: Mapping[str, Any] | None = None) -> Told:
        recipe = self.recipe(chosen, method, params)
        if recipe.digest not in self.trials:
            self.trials[recipe.digest] = self.trial(recipe)
            refuse_failed_audit(trial.estimate for trial in self.trials.values())
        return self.trials[recipe.digest]

    def restart(self) -> None:
        self.trials.clear()
        self.evaluated.clear()

    def remark(self, text: str, subject: str = "") -> None:
        self.remarks.append(text)

    def true_overall(self, digest: str) -> float:
        """Return what a soup that was met scores where it is asked everything."""
        points = self.full[digest]
        return statistics.fmean(self.entries[name].total(points[name]) for name in points)

    def points(self, recipe: TableRecipe) -> Points:
        if recipe.digest not in self.full:
            self.full[recipe.digest] = self.table(recipe)
        return self.full[recipe.digest]

    def trial(self, recipe: TableRecipe) -> Told:
        key = (recipe.digest, self.question_plan is not None and self.question_plan.estimates(recipe.digest))
        if key not in self.evaluated:
            if key[1]:
                for single in self.singles:
                    self.trial(single)
            self.evaluated[key] = Told(recipe, {name: self._score(recipe, name) for name in self.entries})
            if self.evaluated[key].is_estimated:
                self.estimates[recipe.digest] = self.evaluated[key].overall
        return self.evaluated[key]

    def _score(self, recipe: TableRecipe, name: str) -> Score:
        points, entry = self.points(recipe)[name], self.entries[name]
        questions = self.question_plan.question_set(recipe.digest, entry) if self.question_plan else None
        row = points if questions is None else {index: points[index] for index in questions.asked}
        self._count(recipe, name, row, questions)
        score = Score(entry.total(points) if questions is None else 0.0, len(row), row)
        if questions is None:
            return score
        assert self.question_plan is not None
        return self.question_plan.corrected(name, questions.estimate(score, entry.total))

    def _count(self, recipe: TableRecipe, name: str, row: Iterable[str], questions: QuestionSet | None) -> None:
        """Count the questions that a soup was not asked before, by why it is asked them."""
        known = self.questions.setdefault((recipe.digest, name), set())
        fresh = set(row) - known
        known |= fresh
        if questions is not None:
            self.budget["disputed"] += len(fresh & questions.disputed)
            self.budget["audit"] += len(fresh - questions.disputed)
        elif recipe.digest in {single.digest for single in self.singles}:
            self.budget["single models"] += len(fresh)
        else:
            gave_up = self.question_plan is None or self.question_plan.asks_all
            self.budget["everything" if gave_up else "finalists"] += len(fresh)

    def _singles(self, entry: SuiteEntry) -> dict[str, Score]:
        return {single.digest: self.trial(single).scores[entry.benchmark.name] for single in self.singles}


@dataclass(frozen=True)
class Outcome:
    """What one search by estimates came to, beside the same one that asks everything."""

    budget: Mapping[str, float]
    same: bool
    loss: float
    errors: tuple[float, ...]
    failed: bool
    contradicted: int

    @property
    def share(self) -> float:
        """The share of the questions that were asked."""
        return sum(self.budget.values())


def compare(names: Sequence[str], table: Table, strategy: str, options: Mapping[str, object], rule: str) -> Outcome:
    """Search a table twice: asking everything, and by estimates."""
    whole = DisputedScorer(names, table)
    budget = STRATEGIES.get(strategy).budget(len(names), **options)
    audit = QuestionRule.parse(rule).audit_of(budget.soups if budget else 0, len(whole.entries))
    part = DisputedScorer(names, table, audit if saves_questions(budget, len(names)) else None)
    chosen = [search(scorer, strategy, options) for scorer in (whole, part)]
    count = sum(map(len, whole.questions.values()))
    budget = {why: part.budget[why] / count for why in BUDGET}
    errors = []
    for digest, estimate in part.estimates.items():
        errors.append(estimate - part.true_overall(digest))
    loss = whole.true_overall(chosen[0]) - part.true_overall(chosen[1])
    failed = any("audit of the estimates fails" in text for text in part.remarks)
    contradicted = sum("not chosen again" in text for text in part.remarks)
    return Outcome(budget, chosen[0] == chosen[1], loss, tuple(errors), failed, contradicted)


def search(scorer: Any, strategy: str, options: Mapping[str, object]) -> str:
    """Return the digest of what a strategy chooses."""

    def choose(score: Any) -> Choice:
        returned = STRATEGIES.get(strategy)(scorer.pool, score, **options)
        return returned if isinstance(returned, Choice) else Choice(returned)

    choice = choose_confirmed(scorer, lambda strategy: strategy(scorer), choose)
    digest: str = scorer(choice.chosen, choice.method, choice.params).recipe.digest
    return digest


def print_outcomes(rows: Mapping[str, Sequence[Outcome]]) -> None:
    """Print a line for each search: means over pools."""
    head = ["search", "pools", "questions asked", *BUDGET, "same choice", "choice worse by", "error, s.d.", "largest"]
    head += ["audit failed", "contradicted"]
    click.echo(f"| {' | '.join(head)} |\n| --- |{' --: |' * (len(head) - 1)}")
    for name, outcomes in rows.items():
        errors = [error for outcome in outcomes for error in outcome.errors] or [0.0]
        shares = [outcome.share for outcome in outcomes]
        parts = [[outcome.budget[why] for outcome in outcomes] for why in BUDGET]
        cells = [name, len(outcomes), *(f"{statistics.fmean(column):.1%}" for column in (shares, *parts))]
        cells += [f"{sum(outcome.same for outcome in outcomes)} of {len(outcomes)}"]
        cells += [f"{statistics.fmean(outcome.loss for outcome in outcomes):+.3f}"]
        cells += [f"{statistics.fmean(error**2 for error in errors) ** 0.5:.3f}", f"{max(map(abs, errors)):.3f}"]
        cells += [sum(outcome.failed for outcome in outcomes), sum(outcome.contradicted for outcome in outcomes)]
        click.echo(f"| {' | '.join(map(str, cells))} |")


@click.group()
def main() -> None:
    """Compare searches that ask everything with searches by estimates."""


@main.command()
@click.option("--count", default=40, show_default=True, help="Pools for each search.")
@click.option("--forgotten", default="0,0.0003,0.001,0.003,0.01", show_default=True, help="Shares, comma-separated.")
@click.option("--basin", default="0.02", show_default=True, help="How steep it is: what means gain, comma-separated.")
@click.option("--questions", "rule", default="disputed", show_default=True, help="As for a search.")
@click.option("--only", multiple=True, type=click.Choice(list(SEARCHES)), help="Searches; by default all.")
@click.option("--record", "recording", is_flag=True, help="Keep what was asked in results/disputed.json, for draw.py.")
def simulated(count: int, forgotten: str, basin: str, rule: str, only: tuple[str, ...], recording: bool) -> None:
    """Search simulated pools."""
    names = [f"m{number}" for number in range(INGREDIENTS)]
    searches = {name: SEARCHES[name] for name in only or SEARCHES}
    settings = itertools.product(map(float, basin.split(",")), map(float, forgotten.split(",")))
    for steepness, share in settings:
        rows: dict[str, list[Outcome]] = {name: [] for name in searches}
        disputed, gains = [], []
        for seed in range(count):
            table = simulated_table(seed, steepness, share)
            singles = [table(TableRecipe((name,), (1.0,))) for name in names]
            disputed.append(disputed_share(singles))
            gains.append(overall(table(TableRecipe(tuple(names), (1 / 7,) * 7))) - max(map(overall, singles)))
            for name, (strategy, options) in searches.items():
                rows[name].append(compare(names, table, strategy, options, rule))
        click.echo(
            f"\nbasin {steepness:g}, {share:.2%} forgotten by a soup: {statistics.fmean(disputed):.1%} of questions "
            f"disputed, the mean of all {statistics.fmean(gains):+.2f} against the best single model\n"
        )
        print_outcomes(rows)
        if recording:
            case = {"basin": steepness, "forgotten": share, "pools": count}
            means = {name: statistics.fmean(outcome.share for outcome in rows[name]) for name in rows}
            shares = [{"search": name, **case, "asked": round(part, 3)} for name, part in means.items()]
            record("disputed", shares, ("search", "basin", "forgotten"))


def overall(points: Points) -> float:
    """Return the plain mean of the benchmarks' plain means."""
    return 100 * statistics.fmean(statistics.fmean(row.values()) for row in points.values())


def simulated_table(seed: int, steepness: float, forgotten: float) -> Table:
    """Return a table of points by an item response model."""
    draws = np.random.default_rng(seed)
    count = INGREDIENTS
    gains = draws.normal(0.05, 0.04, (len(SIZES), count)) + draws.normal(0, 0.04, count)
    factors = draws.normal(0, 1, (count, 24)) / np.sqrt(24)
    basin = steepness * factors @ factors.T
    lucks = [draws.normal(0, 0.17, (size, count)) for size in SIZES.values()]
    difficulties = [draws.normal(-0.5, 1, size) for size in SIZES.values()]
    indices = [[str(number) for number in range(size)] for size in SIZES.values()]

    def points(recipe: TableRecipe) -> Points:
        weights = np.zeros(count)
        for name, weight in zip(recipe.names, recipe.weights, strict=True):
            weights[int(name[1:])] = weight
        abilities = gains @ weights - weights @ basin @ weights
        forgetting = np.random.default_rng([seed, *recipe.digest.encode()])
        table = {}
        for row, name in enumerate(SIZES):
            right = abilities[row] + lucks[row] @ weights > difficulties[row]
            if len(recipe) > 1:
                right &= forgetting.random(len(right)) >= forgotten
            table[name] = dict(zip(indices[row], right.astype(float).tolist(), strict=True))
        return table

    return points


def disputed_share(singles: Sequence[Points]) -> float:
    """Return the share of questions on which single models differ, over all benchmarks."""
    rows = [{(name, index): value for name in points for index, value in points[name].items()} for points in singles]
    return sum(len({row[key] for row in rows}) > 1 for key in rows[0]) / len(rows[0])


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--questions", "rule", default="disputed", show_default=True, help="As for a search.")
@click.option(
    "--part", default="selection", show_default=True, type=click.Choice(["all", "selection", "report", "both"])
)
def toy(runs: tuple[Path, ...], rule: str, part: str) -> None:
    """Search the real points of journals; `both` puts the halves together."""
    rows: dict[str, list[Outcome]] = {}
    for run in runs:
        known = journaled(run, ("selection", "report") if part == "both" else (part,))
        names = sorted({name for names, _ in known for name in names})
        singles = [known[(name,), (1.0,)] for name in names]
        for pool in sub_pools(names):
            for name, (strategy, options) in SEARCHES.items():
                try:
                    outcome = compare(pool, table_of(known), strategy, options, rule)
                except UnknownSoupError:
                    continue
                rows.setdefault(f"{name}, k = {len(pool)}", []).append(outcome)
        sizes = ", ".join(f"{name} {len(points)}" for name, points in singles[0].items())
        click.echo(f"{run}: {disputed_share(singles):.1%} of the questions disputed among {len(names)} ({sizes})")
    click.echo()
    print_outcomes({name: rows[name] for name in sorted(rows)})


def sub_pools(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield every pool of three and more."""
    for size in range(SMALLEST_POOL, len(names) + 1):
        for pool in itertools.combinations(names, size):
            yield list(pool)


def table_of(known: Mapping[tuple[tuple[str, ...], tuple[float, ...]], Points]) -> Table:
    """Return the table of a journal's soups."""

    def points(recipe: TableRecipe) -> Points:
        key = recipe.names, tuple(round(weight, 9) for weight in recipe.weights)
        if recipe.method is not None or recipe.params or key not in known:
            raise UnknownSoupError(recipe.digest)
        return known[key]

    return points


def journaled(run: Path, parts: Sequence[str]) -> dict[tuple[tuple[str, ...], tuple[float, ...]], Points]:
    """Return each soup's points by benchmark; of soups that differ in parameters alone, the first, a plain mean."""
    with Journal(run / "journal.jsonl", write=False) as journal:
        entries = [entry for entry in journal if entry.split.part in parts and not entry.score.estimate]
    first: dict[object, str] = {}
    soups: dict[tuple[tuple[str, ...], tuple[float, ...]], dict[str, dict[str, float]]] = {}
    for entry in entries:
        key = entry.names, tuple(round(weight, 9) for weight in entry.weights)
        if first.setdefault(key, entry.recipe) == entry.recipe:
            soups.setdefault(key, {}).setdefault(entry.benchmark, {}).update(entry.score.questions or {})
    single = next(points for (names, _), points in soups.items() if len(names) == 1)
    sizes = {name: len(points) for name, points in single.items()}
    return {key: points for key, points in soups.items() if {name: len(row) for name, row in points.items()} == sizes}


if __name__ == "__main__":
    main()
