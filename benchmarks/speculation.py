"""What N workers gain a greedy search, in simulated time: one candidate's questions over all of them, by the real code.

200 random pools each of k = 7 and 16. Eight benchmarks of the sizes that OpenCompass' eight have, one of them circular:
rotation by rotation, a question is asked no further after its first wrong answer, three of four are right. An answer
takes a worker a lognormal time (a few tokens here, a paragraph there), a swap 15 s. A soup's overall is the mean of its
members' plus a random gain for company, which shrinks as the soup grows: about as many ingredients are accepted as in
POINTS' Figure 3. `goal` is 0.9 N. 23 minutes on one core, and as many searches at once as there are cores.

    python benchmarks/speculation.py [--pools 200] [--workers 8]
"""

from __future__ import annotations

import random
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import repeat

import click
import numpy as np
from results import record

from soup.evaluation.api import Benchmark, Score
from soup.evaluation.dealing import dealer_of
from soup.evaluation.suite import BenchmarkSuite, SuiteEntry
from soup.search.strategies import greedy
from soup.search.workers.dealing import DealingPool
from soup.search.workers.speculation import SpeculativeRunner
from soup.testing.simulation import SimulatedCandidate, SimulatedWorkers
from soup.testing.table_scorer import TableScorer

SWAP_SECONDS = 15.0
RIGHT = 0.75
# Questions, rotations of each, and the median seconds of an answer.
BENCHMARKS = {
    "mmbench": (1164, 4, 0.15),
    "mmstar": (1500, 1, 0.15),
    "mmmu": (900, 1, 0.3),
    "mathvista": (1000, 1, 0.6),
    "hallusionbench": (951, 1, 0.15),
    "ai2d": (3088, 1, 0.15),
    "ocrbench": (1000, 1, 0.2),
    "mmvet": (218, 1, 2.0),
}
SPREAD = 0.5  # of the logarithm of an answer's seconds


class Questions:
    """A harness that asks a benchmark's questions, rotation by rotation."""

    def identity(self, benchmark):
        return {}

    def evaluate(self, candidate, benchmark):
        count, rotations, _ = BENCHMARKS[benchmark.target]
        left = np.arange(count)
        for turn in range(rotations):
            requests = [(turn, question) for question in left.tolist()]
            dealer_of(candidate).deal(requests, lambda positions, replies: None, lambda request: 0)
            left = left[right(candidate.digest, turn, count)[left] < RIGHT]
        return Score(0.0, count)

    def answer(self, candidate, requests, on_replies):
        on_replies(range(len(requests)), [""] * len(requests))


@lru_cache(32)
def right(digest: str, turn: int, count: int):
    """Return a repeatable draw for each question of a round."""
    return np.random.default_rng(random.Random(f"{digest}/{turn}").getrandbits(64)).random(count)


@lru_cache(64)
def answer_seconds(digest: str, index: int):
    """Return the repeatable seconds of each answer of a candidate, [rotations, questions]."""
    count, rotations, median = list(BENCHMARKS.values())[index]
    chance = np.random.default_rng(random.Random(f"{digest}/{index}").getrandbits(64))
    return median * chance.lognormal(0.0, SPREAD, (rotations, count))


SUITE = BenchmarkSuite(tuple(SuiteEntry(Benchmark(name, "toy", name), Questions(), {}) for name in BENCHMARKS))


@click.command()
@click.option("--pools", default=200, show_default=True)
@click.option("--workers", "sizes", multiple=True, type=int, default=(2, 4, 8, 16), show_default=True)
@click.option("--k", "ks", multiple=True, type=int, default=(7, 16), show_default=True)
@click.option("--record", "recording", is_flag=True, help="Keep the speed-ups for draw.py.")
def main(pools: int, sizes: tuple[int, ...], ks: tuple[int, ...], recording: bool) -> None:
    """Print one table for each size of pool."""
    with ProcessPoolExecutor() as processes:
        for k in ks:
            click.echo(f"\n{pools} random pools of k = {k}\n")
            click.echo("| workers | soups begun | hours | speed-up | goal |\n| --: | --: | --: | --: | --: |")
            alone: list[Search] = []
            for workers in (1, *sizes):
                searches = list(processes.map(search, repeat(k), repeat(workers), range(pools)))
                alone = alone or searches
                click.echo(row(workers, searches, alone))
                if recording:
                    hours, sequential = (statistics.fmean(ended[2] for ended in rows) for rows in (searches, alone))
                    case = {"k": k, "workers": workers, "pools": pools}
                    speed = {"hours": round(hours, 3), "speed_up": round(sequential / hours, 3)}
                    record("speculation", [{**case, **speed}], ("k", "workers"))


Search = tuple[list[str], int, float]
"""What a search chose, how many candidates it began to evaluate, and its simulated hours."""


def search(k: int, size: int, seed: int) -> Search:
    """Run one search in simulated time."""
    names = [f"m{i}" for i in range(k)]
    scorer = TableScorer(names, random_table(names, seed), suite=SUITE)
    held: dict[int, str] = {}

    def seconds(number, chunk):
        swap = 0.0 if held.get(number) == chunk.recipe.digest else SWAP_SECONDS
        held[number] = chunk.recipe.digest
        table = answer_seconds(f"{seed}/{chunk.recipe.digest}", chunk.index)
        turns, questions = np.array(chunk.requests).T
        return swap + float(table[turns, questions].sum())

    workers = SimulatedWorkers(size, SUITE, seconds)
    pool = DealingPool(workers, SUITE, SimulatedCandidate, lambda: workers.now)
    runner = SpeculativeRunner(scorer, pool)
    chosen = runner.choose(lambda score: greedy(names, score))
    hours = workers.now / 3600
    began = len({chunk.recipe.digest for chunk in workers.given})
    runner.close()
    return chosen, began, hours


def random_table(names: list[str], seed: int):
    """Return a repeatable overall for every set of names."""
    singles = {name: random.Random(f"{seed}/{name}").gauss(60, 1) for name in names}

    def overall(members) -> float:
        gain = random.Random(f"{seed}/{sorted(members)}").gauss(0.4, 0.8) if len(members) > 1 else 0.0
        return min(100.0, max(0.0, statistics.fmean(singles[name] for name in members) + gain))

    return overall


def row(workers: int, searches: list[Search], alone: list[Search]) -> str:
    """Return the means over all pools; what they chose is what one worker chose."""
    assert [chosen for chosen, _, _ in searches] == [chosen for chosen, _, _ in alone]
    evaluations, hours, sequential = (
        statistics.fmean(column)
        for column in zip(*[(run[1], run[2], base[2]) for run, base in zip(searches, alone, strict=True)], strict=True)
    )
    return f"| {workers} | {evaluations:.1f} | {hours:.2f} | {sequential / hours:.2f} | {0.9 * workers:.1f} |"


if __name__ == "__main__":
    main()
