"""What workers side by side gain a greedy search: evaluations, hours and speed-up, in simulated time.

200 random pools each of k = 7 and 16. A soup's overall is the mean of its members' plus a random gain for company,
which shrinks as the soup grows: about as many ingredients are accepted as in POINTS' Figure 3. Evaluations take one
hour, give or take a fifth. `ideal` is what N workers could do at best: the evaluations that one by one needs, divided
by N, and no less than the chain of decisions that wait for each other.

    python benchmarks/speculation.py
"""

from __future__ import annotations

import random
import statistics

import click

from soup.search.strategies import greedy
from soup.search.workers.speculation import SpeculativeRunner
from soup.testing.simulation import SimulatedPool, TableScorer


@click.command()
@click.option("--pools", default=200, show_default=True)
def main(pools: int) -> None:
    """Print one table for each size of pool."""
    for k in (7, 16):
        click.echo(f"\n{pools} random pools of k = {k}\n")
        click.echo("| workers | evaluations | hours | speed-up | ideal |\n| --: | --: | --: | --: | --: |")
        for workers in (1, 2, 4, 8):
            click.echo(row(workers, [search(k, workers, seed) for seed in range(pools)]))


def search(k: int, workers: int, seed: int) -> tuple[int, float, float, float]:
    """Return evaluations and hours of one search, its hours with one worker, and the least so many workers need."""
    names = [f"m{i}" for i in range(k)]
    sequential_scorer = TableScorer(names, random_table(names, seed))
    sequential = SimulatedPool(sequential_scorer, 1, costs(seed))
    chosen = SpeculativeRunner(sequential_scorer, sequential).choose(lambda score: greedy(names, score))
    scorer = TableScorer(names, random_table(names, seed))
    parallel = SimulatedPool(scorer, workers, costs(seed))
    assert SpeculativeRunner(scorer, parallel).choose(lambda score: greedy(names, score)) == chosen
    longest = max(costs(seed)(frozenset([name])) for name in names)
    return parallel.evaluations, parallel.hours, sequential.hours, max(sequential.hours / workers, longest)


def random_table(names: list[str], seed: int):
    """Return a repeatable overall for every set of names."""
    singles = {name: random.Random(f"{seed}/{name}").gauss(60, 1) for name in names}

    def overall(members: frozenset[str]) -> float:
        gain = random.Random(f"{seed}/{sorted(members)}").gauss(0.4, 0.8) if len(members) > 1 else 0.0
        return min(100.0, max(0.0, statistics.fmean(singles[name] for name in members) + gain))

    return overall


def costs(seed: int):
    """Return a repeatable cost in hours for every set of names."""
    return lambda members: random.Random(f"cost/{seed}/{sorted(members)}").uniform(0.8, 1.2)


def row(workers: int, searches: list[tuple[int, float, float, float]]) -> str:
    """Return the means over all pools."""
    evaluations, hours, sequential, least = (statistics.fmean(column) for column in zip(*searches, strict=True))
    return f"| {workers} | {evaluations:.1f} | {hours:.1f} | {sequential / hours:.2f} | {sequential / least:.2f} |"


if __name__ == "__main__":
    main()
