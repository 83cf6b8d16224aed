"""The model card of a soup: what is in it, how it was made, what it scored on both splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from soup.merging.recipe import Recipe, describe_objective
from soup.support.text import pluralize

__all__ = ["model_card", "table"]


def model_card(recipe: Recipe, scores: Mapping[str, Any] | None, config: Mapping[str, Any]) -> str:
    """README.md for a sealed recipe. `scores` maps a benchmark to {"selection" | "all" | "report": value}."""
    front = {
        "library_name": "transformers",
        "tags": ["merge", "model-soup", *([str(config["model_type"])] if "model_type" in config else [])],
    }
    hub = [share.path.partition("@")[0] for share in recipe.ingredients if not share.path.startswith(("/", "."))]
    if hub and len(hub) == len(recipe.ingredients):
        front["base_model"] = hub
    rows = [[share.name, f"{share.weight:.6g}", f"`{share.digest}`"] for share in recipe.ingredients]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        "# A model soup\n",
        f"{pluralize(len(rows), 'fine-tuned checkpoint')}, merged by `{recipe.method_name}`"
        + (f", chosen by the strategy `{recipe.strategy}`" if recipe.strategy else "")
        + ". It costs as much to run as one of them.\n",
        table(["ingredient", "weight", "digest"], rows),
        *([_scores(scores, describe_objective(recipe.objective))] if scores else []),
        f"`recipe.yaml` beside this file makes it again (`soup merge recipe.yaml -o OUT`), bit for bit.\n"
        f"Recipe digest: `{recipe.digest}`.\n",
    ]
    return "\n".join(parts)


def _scores(scores: Mapping[str, Any], objective: str) -> str:
    splits = [split for split in ("all", "selection", "report") if any(split in row for row in scores.values())]
    rows = [[name, *(f"{row[split]:.2f}" if split in row else "" for split in splits)] for name, row in scores.items()]
    if "report" in splits:
        told = "The questions of the selection split chose this soup; those of the report split did not."
    else:
        told = "These very questions chose this soup, so that the scores flatter it."
    told = f"{told} Objective: {objective}." if objective else told
    return f"## Scores\n\n{table(['benchmark', *splits], rows)}\n{told}\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
