"""What strategies are worth: evaluations, and gain over greedy on the questions that chose and on those that report.

    python benchmarks/strategies.py tables              300 random tables of scores, k = 6
    python benchmarks/strategies.py toy DIR...          pools of the toy family (ckpts/, base/, toy/), really evaluated

**Random tables.** A soup is v, each ingredient's weight times the scale. Its quality on a benchmark is
`a . v - v' C v`: additive, with interaction (C is positive definite, as the bottom of a basin is: means gain). How
steep the basin is differs from table to table. A question is right if quality and the soup's luck with it (the
ingredients' lucks, weighted like they are) exceed its difficulty. So soups that are alike err alike, and small
differences are noise. The report half has other questions of the same kind.

**Toy.** Pools of `finetune.toy` models (`make demo`, or `examples/toy/converged.yaml`), evaluated by the real harness.
MathVista and MM-Vet, which need a judge, are left out. The last row is what hindsight would have chosen.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from soup.evaluation.api import Score, Split
from soup.evaluation.config import EvalConfig
from soup.evaluation.objective import PLAIN
from soup.evaluation.progress import Progress
from soup.evaluation.run_directory import RunDirectory
from soup.evaluation.scorer import Scorer
from soup.evaluation.suite import build_suite
from soup.evaluation.trial import Trial
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe
from soup.merging.template import RecipeTemplate
from soup.search.session import Session
from soup.search.strategies.base import Choice
from soup.support.plugins import STRATEGIES
from soup.testing.table_scorer import TableRecipe, TableScorer

INGREDIENTS, BENCHMARKS, QUESTIONS = 6, 5, 200  # questions: of each benchmark, in each half
TOY_BENCHMARKS = "mmbench,mmstar,mmmu,hallusionbench,ai2d,ocrbench"

Scores = Mapping[str, Score]
Half = Callable[[TableRecipe], Scores]

PLAIN_MEANS = {
    "best single": ("maximum", {"top_k": 1}),
    "average": ("average", {}),
    "maximum": ("maximum", {}),
    "greedy": ("greedy", {}),
    "greedy, p>0.8": ("greedy", {"accept": "p>0.8"}),
    "prune": ("prune", {}),
    "prune, p>0.8": ("prune", {"accept": "p>0.8"}),
    "prune, order=own": ("prune", {"order": "own"}),
    "exhaustive": ("exhaustive", {}),
}
OTHERS = {
    "forward-backward (p>0.8)": ("forward-backward", {}),
    "forward-backward, gt": ("forward-backward", {"accept": "gt"}),
    "scale": ("scale", {}),
    "soce": ("soce", {}),
    "cma (p>0.8)": ("cma", {}),
    "cma, gt": ("cma", {"accept": "gt"}),
}


@click.group()
def main() -> None:
    """Compare strategies."""


@main.command()
@click.option("--count", default=300, show_default=True)
def tables(count: int) -> None:
    """Search random tables."""
    names = [f"m{i}" for i in range(INGREDIENTS)]
    rows: dict[str, list[tuple[int, float, float]]] = {}
    for seed in range(count):
        selection, report = random_table(seed)
        for name, row in search_all({**PLAIN_MEANS, **OTHERS}, names, selection, report).items():
            rows.setdefault(name, []).append(row)
    click.echo(f"{count} random tables, k = {INGREDIENTS}, {BENCHMARKS} benchmarks of {QUESTIONS} questions a half\n")
    print_table(rows)


def random_table(seed: int) -> tuple[Half, Half]:
    """Return the scores of a soup on the selection and on the report questions."""
    draws = np.random.default_rng(seed)
    gains = draws.normal(0.06, 0.03, (1, INGREDIENTS)) + draws.normal(0, 0.05, (BENCHMARKS, INGREDIENTS))
    factors = draws.normal(0, 1, (INGREDIENTS, 24)) / np.sqrt(24) + 0.5 * draws.normal(0, 1, 24) / np.sqrt(24)
    basin = 0.08 * draws.lognormal(0, 0.5) * factors @ factors.T / 1.25

    def half() -> Half:
        shape = (BENCHMARKS, QUESTIONS)
        luck, difficulty = draws.normal(0, 0.3, (*shape, INGREDIENTS)), draws.normal(-0.4, 1, shape)

        def scores(recipe: TableRecipe) -> Scores:
            v = np.zeros(INGREDIENTS)
            for name, weight in zip(recipe.names, recipe.weights, strict=True):
                v[int(name[1:])] = weight
            v *= dict(recipe.params).get("scale", 1.0)
            quality = gains @ v - v @ basin @ v
            right = (quality[:, None] + luck @ v > difficulty).astype(float)
            return {f"b{i}": as_score(row) for i, row in enumerate(right)}

        return scores

    return half(), half()


def as_score(points: np.ndarray) -> Score:
    return Score(100 * float(points.mean()), len(points), dict(zip(INDICES, points.tolist(), strict=True)))


INDICES = [str(index) for index in range(QUESTIONS)]


def search_all(
    searches: Mapping[str, tuple[str, dict[str, object]]], names: list[str], selection: Half, report: Half
) -> dict[str, tuple[int, float, float]]:
    """Return for each search its evaluations, and the overall of what it chose on both halves."""
    outcomes = {}
    for title, (name, options) in searches.items():
        scorer = TableScorer(names, selection)
        returned = STRATEGIES.get(name)(names, scorer, **options)
        choice = returned if isinstance(returned, Choice) else Choice(returned)
        trial = scorer(choice.chosen, choice.method, choice.params)
        outcomes[title] = len(scorer.known), trial.overall, PLAIN.overall(report(trial.recipe))
    return outcomes


def print_table(rows: Mapping[str, list[tuple[int, float, float]]]) -> None:
    """Print means over tables: gains over greedy in points, and how often the report half is better or worse."""
    click.echo("| strategy | evaluations | selection | report | standard error | report better / worse than greedy |")
    click.echo("| --- | --: | --: | --: | --: | --: |")
    greedy = rows["greedy"]
    for name, outcomes in rows.items():
        gains = [(a[1] - b[1], a[2] - b[2]) for a, b in zip(outcomes, greedy, strict=True)]
        selection, report = (statistics.fmean(column) for column in zip(*gains, strict=True))
        error = statistics.stdev(gain for _, gain in gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        better, worse = sum(gain > 0 for _, gain in gains), sum(gain < 0 for _, gain in gains)
        evaluations = statistics.fmean(row[0] for row in outcomes)
        click.echo(
            f"| {name} | {evaluations:.1f} | {selection:+.2f} | {report:+.2f} | {error:.2f} | {better} / {worse} |"
        )


@main.command()
@click.argument("works", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--workers", default=2, show_default=True)
@click.option("--skip", multiple=True, help="A strategy to leave out: cma scores a hundred soups.")
@click.option("--eval", "names", default=TOY_BENCHMARKS, show_default=True, help="MMBench takes most of the time.")
def toy(works: tuple[Path, ...], workers: int, skip: tuple[str, ...], names: str) -> None:
    """Evaluate every subset of toy pools on both halves, and search them; what a journal has is not evaluated again."""
    rows: dict[str, list[tuple[int, float, float]]] = {}
    for work in works:
        os.environ["LMUData"] = str((work / "toy/LMUData").absolute())
        for name, row in search_pool(work, names, workers, skip).items():
            rows.setdefault(name, []).append(row)
        greedy, best = rows["greedy"][-1], rows["best of all on report"][-1]
        click.echo(
            f"{work}: greedy {greedy[1]:.2f} / {greedy[2]:.2f}, the best of all on report {best[1]:.2f} / {best[2]:.2f}"
        )
    click.echo(f"\n{len(works)} toy pool(s), {names}\n")
    print_table(rows)


def search_pool(work: Path, names: str, workers: int, skip: tuple[str, ...]) -> dict[str, tuple[int, float, float]]:
    """Return what each search comes to over a real pool, as `search_all` does, and the best subset on the report."""
    config = EvalConfig(names, split=0.5, workers=workers)
    suite, report = build_suite(config.parse(), config.settings), Split("report", 0.5)
    run = RunDirectory.choose(work / "strategies.soup", work / "ckpts")
    progress = Progress(on_trial=lambda trial: click.echo(f"  {trial.label}: {trial.overall:.2f}", err=True))
    outcomes = {}
    with (
        Pool(work / "ckpts", work / "base") as pool,
        Session.open(pool, suite, config, run, RecipeTemplate(), progress) as session,
    ):

        def scores(recipe: Recipe) -> tuple[float, float]:
            assert session.runner
            session.runner.complete([recipe], report)
            trial = session.scorer.report(session.scorer.trial(recipe), report)
            return trial.overall, PLAIN.overall(trial.report)

        searches = {title: search for title, search in {**PLAIN_MEANS, **OTHERS}.items() if search[0] not in skip}
        for title, (name, options) in searches.items():
            counted, search = Counted(session.scorer), partial(STRATEGIES.get(name), pool, **options)
            session.choose(search)
            returned = search(counted)  # on scores that are known by now
            choice = returned if isinstance(returned, Choice) else Choice(returned)
            recipe = counted(choice.chosen, choice.method, choice.params).recipe
            outcomes[title] = len(counted.digests), *scores(recipe)
        subsets = [list(s) for size in range(1, len(pool) + 1) for s in itertools.combinations(pool, size)]
        recipes = [session.scorer.recipe(subset) for subset in subsets]
        best = max(map(scores, recipes), key=lambda pair: pair[1])
        outcomes["best of all on report"] = len(recipes), *best
    return outcomes


class Counted:
    """A score that counts the soups that were asked for."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.digests = scorer, set[str]()

    def __call__(self, *arguments: Any, **options: Any) -> Trial:
        trial = self.scorer(*arguments, **options)
        self.digests.add(trial.recipe.digest)
        return trial


if __name__ == "__main__":
    main()
