"""Where a pool's checkpoints lie: enough for another process to open the same pool."""

from __future__ import annotations

from dataclasses import dataclass

from soup.merging.ingredient import open_ingredient
from soup.merging.pool import Pool

__all__ = ["PoolLocations"]


@dataclass(frozen=True)
class PoolLocations:
    """A pool by its directories; it can be pickled.

    Args:
        ingredients: The ingredients: name and directory.
        base: The base's directory, if the pool has one.
        tokenizer: The name of the ingredient whose tokenizer soups take, where one was chosen.
    """

    ingredients: tuple[tuple[str, str], ...]
    base: str | None
    tokenizer: str | None = None

    @classmethod
    def of(cls, pool: Pool) -> PoolLocations:
        """Return those of an open pool."""
        return cls(
            tuple((part.name, str(part.checkpoint.path.absolute())) for part in pool),
            str(pool.base.checkpoint.path.absolute()) if pool.base else None,
            pool.tokenizer.name if pool.tokenizer else None,
        )

    def open(self) -> Pool:
        """Return the pool, opened by its directories; it was checked before."""
        base = open_ingredient("base", self.base) if self.base else None
        parts = [open_ingredient(*part, base.checkpoint if base else None) for part in self.ingredients]
        pool = Pool.of(tuple(parts), base)
        pool.take_tokenizer(self.tokenizer)
        return pool
