"""What the recipes of a search have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from soup.merging.options import MergeOptions
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe, Share
from soup.support.plugins import METHODS, code_digest

__all__ = ["RecipeTemplate"]


@dataclass(frozen=True)
class RecipeTemplate:
    """What all recipes of a search have in common: everything but the ingredients."""

    strategy: str | None = None
    objective: Mapping[str, Any] = field(default_factory=dict)
    options: MergeOptions = field(default_factory=MergeOptions)

    @cached_property
    def code(self) -> str | None:
        """The digest of the method's code, where it is a user's own."""
        return code_digest(METHODS.get(self.options.method))

    def recipe(
        self, pool: Pool, shares: Sequence[Share], side_digest: str | None = None, base_digest: str | None = None
    ) -> Recipe:
        """Return the recipe of some of a pool's ingredients; sealed if the side files' digest is given."""
        return Recipe(
            strategy=self.strategy,
            method=self.options.method,
            code=self.code if side_digest else None,
            params=dict(self.options.method_args),
            dtype=self.options.dtype,
            drop=tuple(self.options.drop),
            base=pool.base.source(base_digest) if pool.base else None,
            tokenizer=pool.tokenizer.source() if pool.tokenizer else None,
            ingredients=tuple(shares),
            side_digest=side_digest,
            objective=dict(self.objective),
        )
