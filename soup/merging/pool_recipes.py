"""The sealed recipes of the soups of one pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from soup.checkpoints.adapted import is_adapted
from soup.checkpoints.digest import ContentDigest, side_digest
from soup.merging.pool import Pool
from soup.merging.recipe import Recipe
from soup.merging.shares import shares_of
from soup.merging.template import RecipeTemplate

__all__ = ["PoolRecipes"]


@dataclass(frozen=True)
class PoolRecipes:
    """Seals the recipes of a search: whatever is chosen, its digests are known.

    Args:
        pool: The ingredients.
        template: What all recipes of the search have in common.
        digests: The ingredients' digests by name, and that of a base that is read, by its location.
        digest_base: Gives the base's digest, where the method or an adapter reads the base.
    """

    pool: Pool
    template: RecipeTemplate
    digests: Mapping[str, ContentDigest]
    digest_base: Callable[[], str] | None = None

    def seal(self, chosen: object, method: str | None = None, params: Mapping[str, Any] | None = None) -> Recipe:
        """Return the sealed recipe of a choice. Ingredients stand in the pool's order: one set is one recipe.

        Args:
            chosen: The ingredients or their names, or a weight for each.
            method: Another method than the search's.
            params: Parameters of the method, beside those that the search gives to it.

        Raises:
            RecipeError: nothing chosen, or an ingredient that the pool does not have.
        """
        template = self.template.varied(method, params)
        shares = [
            share.model_copy(update={"digest": self.digests[share.name].content})
            for share in shares_of(self.pool, chosen)
        ]
        lead = self.pool.base or self.pool[shares[0].name]
        parts = [self.pool[share.name].checkpoint for share in shares]
        tokenizer = self.pool.tokenizer.checkpoint if self.pool.tokenizer else None
        side = side_digest(lead.checkpoint, *parts, tokenizer=tokenizer)
        reads_base = template.needs_base or any(map(is_adapted, parts))
        return template.recipe(self.pool, shares, side, self.digest_base() if self.digest_base and reads_base else None)

    @cached_property
    def singles(self) -> list[Recipe]:
        """The recipe of each ingredient alone."""
        return [self.seal([part]) for part in self.pool]

    def is_varied(self, recipe: Recipe) -> bool:
        """Whether a recipe has another method, or other parameters of it, than the search."""
        return (recipe.method, recipe.params) != self._method_and_params

    @cached_property
    def _method_and_params(self) -> tuple[str, dict[str, object]]:
        """The search's own, as recipes hold them."""
        recipe = self.seal([self.pool[0]])
        return recipe.method, recipe.params
