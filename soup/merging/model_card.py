"""The model card of a soup: its ingredients, how it was made, and its scores on both splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from soup.merging.recipe import Recipe, describe_objective
from soup.support.text import markdown_code, markdown_text, pluralize

__all__ = ["Scores", "model_card", "table"]


Scores = Mapping[str, Mapping[str, float]]
"""A soup's scores by benchmark, and for each by the questions that were asked (`all`, `selection`, `report`)."""


def model_card(
    recipe: Recipe,
    scores: Scores | None,
    config: Mapping[str, object],
    *,
    adapter_error: float | None = None,
    scores_note: str = "",
) -> str:
    """Write README.md for a soup.

    Args:
        recipe: The sealed recipe.
        scores: What the soup scored; None leaves the section out.
        config: The soup's config.json.
        adapter_error: How far one adapter of a smaller rank is from the soup, as a share; None: it is a whole model.
        scores_note: What is said of the scores besides.
    """
    front = {
        "library_name": "transformers" if adapter_error is None else "peft",
        "tags": ["merge", "model-soup", *([str(config["model_type"])] if "model_type" in config else [])],
    }
    hub = [share.path.partition("@")[0] for share in recipe.ingredients if not share.path.startswith(("/", "."))]
    if hub and len(hub) == len(recipe.ingredients):
        front["base_model"] = hub
    rows = [
        [markdown_text(share.name), f"{share.weight:.6g}", markdown_code(str(share.digest))]
        for share in recipe.ingredients
    ]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        "# A model soup\n",
        f"{pluralize(len(rows), 'fine-tuned checkpoint')}, merged by {markdown_code(recipe.method_name)}"
        + (f", chosen by the strategy {markdown_code(recipe.strategy)}" if recipe.strategy else "")
        + ". It costs as much to run as one of them.\n",
        table(["ingredient", "weight", "digest"], rows),
        *([_adapter(adapter_error)] if adapter_error is not None else []),
        *([_scores(scores, describe_objective(recipe.objective), scores_note)] if scores else []),
        f"`recipe.yaml` beside this file makes it again (`soup merge recipe.yaml -o OUT`), bit for bit.\n"
        f"Recipe digest: `{recipe.digest}`.\n",
    ]
    return "\n".join(parts)


def _adapter(error: float) -> str:
    """Say what the adapter holds."""
    if error == 0:
        return "One LoRA adapter, which holds the soup exactly: the factors of all ingredients, side by side.\n"
    return (
        "One LoRA adapter, of a smaller rank than the soup: the norm of what it adds to the base differs from the "
        f"soup's by {error:.2%}. Scores here are the soup's own.\n"
    )


def _scores(scores: Scores, objective: str, note: str) -> str:
    splits = [split for split in ("all", "selection", "report") if any(split in row for row in scores.values())]
    rows = [
        [markdown_text(name), *(f"{row[split]:.2f}" if split in row else "" for split in splits)]
        for name, row in scores.items()
    ]
    if "report" in splits:
        remark = "The questions of the selection split chose this soup; those of the report split did not."
    else:
        remark = "These very questions chose this soup, so that the scores flatter it."
    remark = f"{remark} Objective: {markdown_text(objective)}." if objective else remark
    remark = f"{remark} {markdown_text(note)}" if note else remark
    return f"## Scores\n\n{table(['benchmark', *splits], rows)}\n{remark}\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
