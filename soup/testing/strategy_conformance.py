"""Checks that a strategy keeps its contract; soup's own pass them. AssertionError says what is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import tempfile
from collections.abc import Mapping, Sequence
from typing import cast

from soup.errors import RecipeError
from soup.evaluation.api import Score
from soup.merging.pool import Pool
from soup.merging.shares import shares_of
from soup.search.strategies.base import Choice, Chosen, Strategy
from soup.testing.tiny_checkpoints import tiny_pool

__all__ = ["check_strategy"]


def check_strategy(strategy: Strategy, *, tables: int = 25, seed: int = 0, **options: object) -> None:
    """Check that a strategy keeps the contract, over pools of 1 to 6 ingredients and random scores, many with ties.

    The pools have a base. The strategy must choose at least one ingredient of the pool, each once (or finite weights
    for them, not all 0), and call `score` with such choices alone, as often as its `budget` says at most. It must leave
    the pool as it is, and make the same choice when it is called again. It may refuse some pools by a RecipeError, but
    not all.

    Args:
        strategy: The function.
        tables: With how many tables of scores it is tried.
        seed: Seeds the scores.
        options: Passed on to the strategy.

    Raises:
        AssertionError: The strategy breaks the contract.
    """
    with tempfile.TemporaryDirectory() as folder, Pool(tiny_pool(folder, 7, tensors={"w": (1,)})) as seven:
        usable = 0
        for number in range(tables):
            pool = Pool.of(seven.ingredients[: 1 + number % 6], base=seven.ingredients[-1])
            before = pool.names
            table = _ScoreTable(pool, f"{seed}/{number}", ties=number % 2 == 1)
            try:
                first = strategy(pool, table, **options)
            except RecipeError as error:
                refusal = error
                continue
            usable += 1
            chosen = _soup(pool, first)
            assert pool.names == before, f"the pool was changed: expected {before}, found {pool.names}"
            second = _soup(pool, strategy(pool, table, **options))
            assert chosen == second, f"the same scores led to {chosen} and then to {second}"
            _check_budget(strategy, pool, table, first, options)
        assert usable, f"it refused all pools of 1 to 6 ingredients: {refusal}"


def _check_budget(
    strategy: Strategy, pool: Pool, table: _ScoreTable, returned: object, options: Mapping[str, object]
) -> None:
    if (most := getattr(strategy, "budget", None)) is None:
        return
    choice = returned if isinstance(returned, Choice) else Choice(cast("Chosen", returned))
    table(choice.chosen, choice.method, choice.params)  # a run scores what was chosen
    said = most(len(pool), **options)
    assert len(table.soups) <= said.singles + said.soups, (
        f"over {len(pool)} ingredients it asked for {len(table.soups)} soups; its budget said {said}"
    )


def _soup(pool: Pool, returned: object) -> object:
    if not isinstance(returned, Choice):
        return _choice(pool, returned, "it chose")
    return _choice(pool, returned.chosen, "it chose"), returned.method, returned.params


@dataclasses.dataclass
class _ScoreTable:
    """A score for every soup of a pool, from a hash: a soup has the same score in whatever order scores are called."""

    pool: Pool
    seed: str
    ties: bool
    soups: set[str] = dataclasses.field(default_factory=set)

    def __call__(
        self, chosen: Chosen, /, method: str | None = None, params: Mapping[str, object] | None = None
    ) -> _TableScore:
        soup = _choice(self.pool, chosen, "it asked for the score of")
        name = f"{sorted(soup)}{[method, dict(params)] if params else method or ''}"
        self.soups.add(name)
        drawn = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        numbers = [int.from_bytes(drawn[i : i + 4], "big") for i in range(0, 12, 4)]
        values = [float(number % 3) if self.ties else number % 100_001 / 1000 for number in numbers]
        return _TableScore({f"benchmark {i}": Score(value) for i, value in enumerate(values)})


@dataclasses.dataclass(frozen=True)
class _TableScore:
    scores: Mapping[str, Score]

    @property
    def overall(self) -> float:
        return math.fsum(score.value for score in self.scores.values()) / len(self.scores)


def _choice(pool: Pool, chosen: object, did: str) -> list[tuple[str, float]]:
    """List the (name, weight) of each chosen ingredient, in the order of choice."""
    assert isinstance(chosen, Sequence | Mapping), f"{did} {chosen!r}: expected ingredients, or a weight for each"
    assert not isinstance(chosen, str), f"{did} {chosen!r}: expected a list of ingredients"
    assert len(chosen), f"{did} nothing"
    try:
        shares = {share.name: share.weight for share in shares_of(pool, chosen)}
    except RecipeError as error:
        raise AssertionError(f"{did} {chosen!r}: {error}") from error
    names = [str(getattr(entry, "name", entry)) for entry in chosen]
    return [(name, shares[name]) for name in names]
