"""What is known of a soup's bytes before it is merged: by its inputs' digests, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from soup.checkpoints.adapted import is_adapted
from soup.checkpoints.digest import ContentDigest
from soup.merging.plan import MergePlan

__all__ = ["KnownBytes"]


class KnownBytes:
    """Which tensors of a soup are known to be those of its inputs, or alike.

    Args:
        plan: How it is merged.
        digests: The ingredients' digests, and the base's, as far as they are known.
    """

    def __init__(self, plan: MergePlan, digests: Iterable[ContentDigest]) -> None:
        self._plan = plan
        self._by_content = {digest.content: digest.tensors for digest in digests}

    def is_shared(self, name: str) -> bool:
        """Whether every input is known to hold the same bytes for a tensor, which are then the result's."""
        blend, recipe = self._plan.blend, self._plan.recipe
        if recipe.dtype is not None or len(blend.inputs) != len(recipe.ingredients):
            return False  # a cast, or a base whose digests are not known
        digests = [digests.get(name) for digests in self._of_inputs()]
        return None not in digests and len(set(digests)) == 1

    def are_same(self, left: str, right: str) -> bool:
        """Whether two tensors hold the same bytes in every input, and so in the candidate."""
        return all(left in digests and digests[left] == digests.get(right) for digests in self._of_inputs())

    def _of_inputs(self) -> list[Mapping[str, str]]:
        """Each input's digests by tensor, as far as they are known; the base's too if the method reads it."""
        recipe, inputs = self._plan.recipe, self._plan.blend.inputs
        parts = [*recipe.ingredients, *([recipe.base] if recipe.base else [])][: len(inputs)]
        known = [self._by_content.get(part.digest or "", {}) for part in parts]
        base = self._by_content.get((recipe.base and recipe.base.digest) or "", {})
        return [
            {**base, **{name: f"{part.digest} {name}" for name in checkpoint.changes if base}}
            if is_adapted(checkpoint)
            else digests
            for part, checkpoint, digests in zip(parts, inputs, known, strict=True)
        ]
