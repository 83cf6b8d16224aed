"""What a strategy came to, as a report needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soup.evaluation.objective import Objective
from soup.search.result import single_digests

__all__ = ["SearchRecord", "trial_digests"]

SETTINGS = ("method", "code", "params", "dtype", "drop", "base", "tokenizer")
"""Of a recipe, beside its ingredients."""


@dataclass(frozen=True, eq=False)
class SearchRecord:
    """What a strategy came to: its document of `soups/`, when that was written, and what it is called in the run."""

    document: Mapping[str, Any]
    time: float
    path: Path
    title: str

    @property
    def strategy(self) -> str:
        """The strategy's name."""
        return str(self.document["strategy"])

    @property
    def digest(self) -> str:
        """The digest of the chosen recipe."""
        return str(self.document["recipe"]["digest"])

    @property
    def chosen(self) -> tuple[str, ...]:
        """The chosen ingredients, in the order of admission."""
        return tuple(self.document["chosen"])

    def other_models(self, main: SearchRecord) -> list[str]:
        """Return the names by which this search and another mean other models, as far as both tell."""
        recipe, other = self.document["recipe"], main.document["recipe"]
        pairs = [(_digests(recipe), _digests(other))]
        if all(recipe.get(key) == other.get(key) for key in SETTINGS):  # then one model alone is one recipe
            pairs.append((single_digests(self.document), single_digests(main.document)))
        names = [name for ours, theirs in pairs for name in ours if theirs.get(name, ours[name]) != ours[name]]
        return [*dict.fromkeys(names)]

    @property
    def objective(self) -> Objective:
        """How it summed scores up, without its guards."""
        return Objective(dict(self.document.get("objective", {}).get("weights", {})))


def _digests(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the digests of a recipe's ingredients, by name."""
    return {share.get("name"): share.get("digest") for share in recipe.get("ingredients", [])}


def trial_digests(searches: Iterable[SearchRecord]) -> set[str]:
    """Return the digests of what searches asked for."""
    return {trial["recipe"] for search in searches for trial in search.document["trials"]}
