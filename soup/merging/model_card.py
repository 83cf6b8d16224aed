"""The model card of a soup: its ingredients, how it was made, and its scores on both splits.

It may be published as it is: no folder of this machine stands in it, and no key.
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from soup._version import __version__
from soup.checkpoints.card import CardFacts
from soup.checkpoints.hub import HubId
from soup.merging.card_metadata import Scores, card_metadata, licence_conflict, licences_by_owner, scores_metadata
from soup.merging.published_recipe import public_name, published
from soup.merging.recipe import CheckpointSource, Recipe, describe_objective
from soup.support.text import markdown_code, markdown_table, markdown_text, pluralize

__all__ = ["Scores", "model_card"]

_HUB = "https://huggingface.co"


def model_card(
    recipe: Recipe,
    scores: Scores | None,
    config: Mapping[str, object],
    *,
    name: str = "soup",
    cards: Mapping[str, CardFacts] | None = None,
    adapter_error: float | None = None,
    untied_output: str | None = None,
    scores_note: str = "",
) -> str:
    """Write README.md for a soup.

    Args:
        recipe: The sealed recipe.
        scores: What the soup scored; None leaves the section out.
        config: The soup's config.json.
        name: What the model is called.
        cards: What the cards of ingredients and base say, by name.
        adapter_error: How far one adapter of a smaller rank is from the soup, as a share; None: it is a whole model.
        untied_output: The output layer that it has of its own, although its base ties it to the embeddings.
        scores_note: What is said of the scores besides.
    """
    recipe, original = published(recipe), recipe
    names = dict(zip(original.names, recipe.names, strict=True))
    cards = {names.get(owner, owner): card for owner, card in (cards or {}).items()}
    front = card_metadata(recipe, config, cards, is_adapter=adapter_error is not None)
    part = _honest_part(recipe, scores or {})
    if part and (index := scores_metadata(scores or {}, name, front.get("pipeline_tag"), part)):
        front["model-index"] = index
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        "# A model soup\n",
        _summary(recipe),
        _ingredients(recipe),
        *([_adapter(adapter_error)] if adapter_error is not None else []),
        *([_untied(untied_output)] if untied_output else []),
        *([_scores(scores, recipe, part, scores_note)] if scores else []),
        *_licence(cards),
        _again(recipe),
    ]
    return "\n".join(parts)


def _summary(recipe: Recipe) -> str:
    strategy = f", chosen by the strategy {markdown_code(recipe.strategy)}" if recipe.strategy else ""
    return (
        f"{pluralize(len(recipe.ingredients), 'fine-tuned checkpoint')}, merged by "
        f"{markdown_code(recipe.method_name)}{strategy}. It costs as much to run as one of them.\n"
    )


def _ingredients(recipe: Recipe) -> str:
    rows = [
        [markdown_text(share.name), f"{share.weight:.6g}", _origin(share), markdown_code(str(share.digest))]
        for share in recipe.ingredients
    ]
    if recipe.base:
        digest = markdown_code(recipe.base.digest) if recipe.base.digest else ""
        rows.append(["the base", "", _origin(recipe.base), digest])
    return markdown_table(["ingredient", "weight", "from", "digest"], rows)


def _origin(source: CheckpointSource) -> str:
    hub_id = HubId.parse(source.path)
    if hub_id is None:
        return "not published"
    revision = hub_id.revision or "main"
    folder = f"/{hub_id.folder}" if hub_id.folder else ""
    return f"[{markdown_text(hub_id.name)}]({_HUB}/{hub_id.name}/tree/{revision}{folder})"


def _adapter(error: float) -> str:
    """Say what the adapter holds."""
    if error == 0:
        return "One LoRA adapter, which holds the soup exactly: the factors of all ingredients, side by side.\n"
    return (
        "One LoRA adapter, of a smaller rank than the soup: the norm of what it adds to the base differs from the "
        f"soup's by {error:.2%}. Scores here are the soup's own.\n"
    )


def _untied(output: str) -> str:
    return (
        f"Its output layer, {markdown_code(output)}, is not the embeddings, to which the base ties it: an adapter was "
        "trained so. `tie_word_embeddings` is false in config.json.\n"
    )


def _honest_part(recipe: Recipe, scores: Scores) -> str | None:
    """Return the part of the questions that did not choose the soup; None where all of them did."""
    if any("report" in row for row in scores.values()):
        return "report"
    return "all" if recipe.strategy == "average" else None


def _scores(scores: Scores, recipe: Recipe, honest: str | None, note: str) -> str:
    splits = [split for split in ("all", "selection", "report") if any(split in row for row in scores.values())]
    rows = [
        [markdown_text(public_name(name)), *(f"{row[split]:.2f}" if split in row else "" for split in splits)]
        for name, row in scores.items()
    ]
    remark = {
        "report": "The questions of the selection split chose this soup; those of the report split did not.",
        "all": "No score chose this soup: it is the mean of the whole pool.",
        None: "These very questions chose this soup, so that the scores flatter it.",
    }[honest]
    objective = describe_objective(recipe.objective)
    remark = f"{remark} Objective: {markdown_text(objective)}." if objective else remark
    remark = f"{remark} {markdown_text(note)}" if note else remark
    return f"## Scores\n\n{markdown_table(['benchmark', *splits], rows)}\n{remark}\n"


def _licence(cards: Mapping[str, CardFacts]) -> list[str]:
    """Say under which licences the ingredients stand, where they name any."""
    if conflict := licence_conflict(cards):
        text = f"Its ingredients name different licences, and all of them have to be heeded: {markdown_text(conflict)}."
    elif owners := licences_by_owner(cards):
        licence, names = next(iter(owners.items()))
        silent = [name for name in cards if name not in names]
        text = f"{markdown_text(str(licence))}, as {markdown_text(', '.join(names))} say{'s' * (len(names) == 1)}."
        text += f" {markdown_text(', '.join(silent))}: no word of a licence." if silent else ""
    else:
        return []
    return [f"## Licence\n\n{text}\n"]


def _again(recipe: Recipe) -> str:
    """Say how the soup is made again."""
    sources = [*recipe.ingredients, *filter(None, [recipe.base])]
    absent = [source.path for source in sources if HubId.parse(source.path) is None]
    text = "`soup merge recipe.yaml -o OUT` makes it again from the `recipe.yaml` beside this file, bit for bit"
    text += f" (`pip install vlm-soup=={__version__}`)."
    if absent:
        text += (
            f" It expects {', '.join(map(markdown_code, dict.fromkeys(absent)))} beside the recipe, which came from no "
            "Hub, and verifies their digests."
        )
    if recipe.method.rpartition(":")[0].endswith(".py"):
        code = f"{markdown_code(recipe.method)}, of digest {markdown_code(str(recipe.code))}"
        text += f" The method is code of its own: {code}."
    return f"## Making it again\n\n{text}\n\nRecipe digest: `{recipe.digest}`.\n"
