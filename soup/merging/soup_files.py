"""What a soup holds beside its weights: files that it takes along, recipe, card, the recipe's digest in each header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from soup.checkpoints.card import CARD, read_card
from soup.checkpoints.carried_files import MAX_SIDE_FILE_BYTES
from soup.checkpoints.writer import CheckpointWriter
from soup.checkpoints.written_config import config_for
from soup.errors import CheckpointError, RecipeError
from soup.merging.model_card import model_card
from soup.merging.plan import MergePlan
from soup.merging.recipe import Recipe
from soup.support.json_text import read_text

__all__ = ["NO_DIGEST", "RECIPE_KEY", "add_side_files", "earlier_soup", "header_metadata", "is_kept", "make_card"]

NO_DIGEST = "sha256:" + "0" * 64
"""What stands in a header until the recipe's digest is known."""

RECIPE_KEY = "soup_recipe"
"""The key of a shard's metadata under which the recipe's digest stands."""


def add_side_files(
    writer: CheckpointWriter,
    plan: MergePlan,
    sealed: Recipe,
    out: Path,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    scores_note: str = "",
) -> None:
    """Add all that stands beside the weights: what the lead carries, config.json with the dtype, recipe, card.

    Args:
        writer: Takes the files.
        plan: What is merged.
        sealed: The recipe that is written.
        out: The directory that the recipe's paths are relative to.
        scores: For the model card: by benchmark, then by the part of the questions.
        scores_note: What the card says of them besides.
    """
    for name, path in plan.side_files.items():
        if name == "config.json":
            writer.add_file(name, _config_of(plan, _side_file(path)))
        else:
            writer.copy_file(name, path)
    writer.add_file("recipe.yaml", sealed.text(out).encode())
    writer.add_file(CARD, make_card(plan, sealed, out, scores, scores_note).encode())


def make_card(
    plan: MergePlan,
    sealed: Recipe,
    out: Path,
    scores: Mapping[str, Mapping[str, float]] | None,
    scores_note: str,
    adapter_error: float | None = None,
) -> str:
    """Make the soup's model card.

    Args:
        plan: What is merged.
        sealed: The recipe that is written.
        out: Where the soup goes; the card has its name.
        scores: By benchmark, then by the part of the questions.
        scores_note: What the card says of them besides.
        adapter_error: How far the soup, written as an adapter, is from the exact one, as a share of its norm.
    """
    return model_card(
        sealed,
        scores,
        plan.lead.config,
        name=out.name,
        cards={name: read_card(path) for name, path in plan.sources.items()},
        adapter_error=adapter_error,
        untied_output=None if plan.adapter else plan.untied_output,
        scores_note=scores_note,
    )


def header_metadata(digest: str) -> dict[str, str]:
    """Return the free metadata of each shard's header, which names the recipe by its digest."""
    return {"format": "pt", RECIPE_KEY: digest}


def earlier_soup(out: Path) -> Recipe | None:
    """Return the recipe of the soup that stands at `out`; None where there is none, or something else."""
    try:
        return Recipe.read(out / "recipe.yaml") if (out / "recipe.yaml").is_file() else None
    except RecipeError:
        return None


def is_kept(plan: MergePlan, out: Path, name: str, source: Path) -> bool:
    """Whether a side file of the soup at `out` is what this merge would write from `source`."""
    file = out / name
    if not file.is_file():
        return False
    data = _side_file(source)
    return _side_file(file) == (_config_of(plan, data) if name == "config.json" else data)


def _config_of(plan: MergePlan, data: bytes) -> bytes:
    return config_for(data, plan.writes, untied=plan.untied_output is not None)


def _side_file(path: Path) -> bytes:
    return read_text(path, CheckpointError, MAX_SIDE_FILE_BYTES)
