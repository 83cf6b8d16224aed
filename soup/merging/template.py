"""What the recipes of a search have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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

    @cached_property
    def needs_base(self) -> bool:
        """Whether the method reads the base, whose digest is then part of the recipe's."""
        return bool(getattr(METHODS.get(self.options.method), "needs_base", False))

    def varied(self, method: str | None, params: Mapping[str, Any] | None) -> RecipeTemplate:
        """Return the template with another method or other parameters.

        Args:
            method: None: this template's own.
            params: Beside those that this template gives to the same method, or in their place.
        """
        if method is None and not params:
            return self
        options = self.options
        same = method in (None, options.method)
        merged = {**(options.method_args if same else {}), **(params or {})}
        return replace(self, options=replace(options, method=method or options.method, method_args=merged))

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
